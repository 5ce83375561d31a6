#include "producer/lunactl/inputs.h"

#include "common/file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX_BYTES (32U << 20)  //  the wire's limit of each

//  The bytes travel as they are; they are only parsed to see that they are JSON. Integers
//  as reals: ComfyUI's seeds do not fit into jansson's.
static luna_err check_json(const char *path, const char *text, size_t len, bool object)
{
    json_error_t error;
    const size_t flags = JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL;
    json_t *value = json_loadb(text, len, flags, &error);
    if (!value)
        return luna_error(LUNA_BAD_REQUEST, "%s is not JSON: line %d: %s", path,
                          error.line, error.text);
    const bool is_object = json_is_object(value);
    json_decref(value);
    if (object && !is_object)
        return luna_error(LUNA_BAD_REQUEST, "%s must hold a JSON object", path);
    return LUNA_OK;
}

static luna_err read_json(const char *path, bool object, char **out)
{
    size_t len;
    if (!path) return LUNA_OK;
    LUNA_TRY(luna_file_read(path, JSON_MAX_BYTES, out, &len));
    return check_json(path, *out, len, object);
}

static const char *wire_dtype(luna_dtype dtype)
{
    switch (dtype) {
        case LUNA_DTYPE_F32:
            return "float32";
        case LUNA_DTYPE_F16:
            return "float16";
        case LUNA_DTYPE_BF16:
            return "bfloat16";
        default:
            return NULL;
    }
}

static luna_err fill_latent(const char *spec, const luna_tensor *tensor, luna_latent *to)
{
    to->dtype = wire_dtype(tensor->dtype);
    if (!to->dtype)
        return luna_error(LUNA_UNSUPPORTED,
                          "%s: its values are %s; convert them to float32 or float16",
                          spec, tensor->dtype_name);
    if (tensor->rank > LUNA_DIMS_MAX)
        return luna_error(LUNA_BAD_LATENT, "%s: %zu dimensions; expected [N, C, H, W]",
                          spec, tensor->rank);
    to->data = tensor->data;
    to->bytes = tensor->bytes;
    to->dims = (uint32_t)tensor->rank;
    for (size_t i = 0; i < tensor->rank; i++) to->shape[i] = tensor->shape[i];
    return LUNA_OK;
}

//  Text of the header that is not one C string cannot be JSON; it is left out.
static const char *own_text(const luna_latent_file *latents, const char *key)
{
    size_t len;
    const char *text = luna_safetensors_metadata(latents->file, key, &len);
    return text && strlen(text) == len ? text : NULL;
}

static luna_err open_latents(luna_ctl *ctl, luna_ctl_inputs *inputs)
{
    luna_submission *job = &ctl->job;
    if (job->input_count == 0)
        return luna_error(LUNA_USAGE, "submit needs --latents FILE[:TENSOR]");
    for (size_t i = 0; i < job->input_count; i++) {
        luna_latent_file *latents = &inputs->latents[i];
        LUNA_TRY(luna_latent_file_open(ctl->latents[i], latents));
        inputs->count++;
        LUNA_TRY(fill_latent(ctl->latents[i], &latents->tensor, &job->inputs[i]));
        if (!job->prompt) job->prompt = own_text(latents, "prompt");
        if (!job->workflow) job->workflow = own_text(latents, "workflow");
    }
    return LUNA_OK;
}

//  The decoder works in another folder, and it refuses "..".
static luna_err set_output_dir(luna_ctl *ctl, luna_ctl_inputs *inputs)
{
    char *real = NULL;
    const char *dir = ctl->job.output_dir;
    if (!dir) return LUNA_OK;
    if (strstr(dir, "..")) real = realpath(dir, NULL);
    const luna_err err = luna_path_absolute(real ? real : dir, inputs->output_dir,
                                            sizeof inputs->output_dir);
    free(real);
    LUNA_TRY(err);
    ctl->job.output_dir = inputs->output_dir;
    return LUNA_OK;
}

luna_err luna_ctl_inputs_open(luna_ctl *ctl, luna_ctl_inputs *inputs)
{
    *inputs = (luna_ctl_inputs){0};
    LUNA_TRY(open_latents(ctl, inputs));
    LUNA_TRY(read_json(ctl->prompt_file, false, &inputs->prompt));
    LUNA_TRY(read_json(ctl->workflow_file, false, &inputs->workflow));
    LUNA_TRY(read_json(ctl->metadata_file, true, &inputs->metadata));
    if (inputs->prompt) ctl->job.prompt = inputs->prompt;
    if (inputs->workflow) ctl->job.workflow = inputs->workflow;
    ctl->job.metadata = inputs->metadata;
    return set_output_dir(ctl, inputs);
}

void luna_ctl_inputs_close(luna_ctl_inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++)
        luna_latent_file_close(&inputs->latents[i]);
    free(inputs->prompt);
    free(inputs->workflow);
    free(inputs->metadata);
    *inputs = (luna_ctl_inputs){0};
}
