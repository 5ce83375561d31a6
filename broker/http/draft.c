#include "broker/http/draft.h"

#include "broker/http/base64.h"
#include "broker/http/setting.h"
#include "common/clock.h"
#include "common/utf8.h"
#include "proto/job.h"

#include <string.h>

void luna_draft_init(luna_draft *draft)
{
    *draft =
        (luna_draft){.job = luna_msg_job_default(), .common = luna_msg_input_default()};
    draft->job.min_quality = LUNA_MIN_QUALITY_DEFAULT;
}

void luna_draft_free(luna_draft *draft)
{
    luna_packet_close(&draft->packet);
    luna_latent_file_close(&draft->file);
    luna_arena_free(&draft->arena);
}

static void ignore(luna_draft *draft, luna_text name)
{
    if (draft->ignored_count < LUNA_DRAFT_IGNORED)
        draft->ignored[draft->ignored_count++] = name;
}

luna_err luna_draft_query(luna_draft *draft, luna_text name, luna_text value)
{
    const luna_http_setting *setting = luna_http_setting_find(name);
    if (!setting) {
        ignore(draft, name);
        return LUNA_OK;
    }
    if (memchr(value.data, 0, value.len) || !luna_utf8_valid(value.data, value.len))
        return luna_error(LUNA_BAD_REQUEST, "%s must be UTF-8 without NUL",
                          setting->name);
    return luna_http_setting_text(draft, &draft->common, setting, value);
}

//  ---- JSON ---------------------------------------------------------------------------

//  The settings of one object. `at_top`: of the job, else of one latent.
static luna_err take_members(luna_draft *draft, luna_msg_input *input, bool at_top,
                             luna_json_walk *walk)
{
    luna_text key, value;
    uint64_t seen = 0;
    while (luna_json_next(walk, &key, &value)) {
        const luna_text quoted = {.data = key.data - 1, .len = key.len + 2};
        LUNA_TRY(luna_http_json_string(draft, quoted, &key));
        const luna_http_setting *setting = luna_http_setting_find(key);
        if (!setting || (!at_top && !setting->of_input)) {
            ignore(draft, key);
            continue;
        }
        const uint64_t bit = (uint64_t)1 << luna_http_setting_index(setting);
        if (seen & bit)
            return luna_error(LUNA_BAD_REQUEST, "%s is given twice", setting->name);
        seen |= bit;
        LUNA_TRY(luna_http_setting_json(draft, input, setting, value));
    }
    return LUNA_OK;
}

//  Adds the input's number to the latest sentence.
static luna_err in_input(luna_err err, size_t index)
{
    return luna_error(err, "latents[%zu]: %s", index, luna_error_text());
}

static luna_err take_latents(luna_draft *draft, luna_text document)
{
    luna_json_walk list, members;
    luna_text key, value;
    LUNA_TRY(luna_json_enter(document, draft->latents, &list));
    while (luna_json_next(&list, &key, &value)) {
        const size_t i = draft->input_count;
        if (i == LUNA_MAX_INPUTS)
            return luna_error(LUNA_BAD_REQUEST, "latents: at most %d in a job",
                              LUNA_MAX_INPUTS);
        if (value.data[0] != '{')
            return luna_json_fault(document, value.data, "an object was expected");
        LUNA_TRY(luna_json_enter(document, value, &members));
        draft->inputs[i] = draft->common;
        const luna_err err = take_members(draft, &draft->inputs[i], false, &members);
        if (err != LUNA_OK) return in_input(err, i);
        draft->input_count += !luna_text_is(draft->inputs[i].format, "no save");
    }
    return LUNA_OK;
}

//  Last of all: it writes over the body.
static luna_err decode_all(luna_draft *draft)
{
    for (size_t i = 0; i < draft->input_count; i++) {
        luna_msg_input *input = &draft->inputs[i];
        if (!input->latent.data)
            return luna_error(LUNA_BAD_REQUEST, "latents[%zu]: data is missing", i);
        if (!input->dtype.data || input->shape.count == 0)
            return luna_error(LUNA_BAD_REQUEST, "latents[%zu]: dtype or shape is missing",
                              i);
        const luna_err err =
            luna_base64_decode((char *)(uintptr_t)input->latent.data, &input->latent.len);
        if (err != LUNA_OK)
            return luna_error(err, "latents[%zu].data: %s", i, luna_error_text());
    }
    return LUNA_OK;
}

luna_err luna_draft_json(luna_draft *draft, char *body, size_t len)
{
    const luna_text document = {.data = body, .len = len};
    luna_text object;
    luna_json_walk walk;
    LUNA_TRY(luna_json_check(document, &object));
    if (object.data[0] != '{')
        return luna_json_fault(document, object.data, "an object was expected");
    LUNA_TRY(luna_json_enter(document, object, &walk));
    LUNA_TRY(take_members(draft, &draft->common, true, &walk));
    if (draft->latents.data && draft->common.latent.data)
        return luna_error(LUNA_BAD_REQUEST,
                          "give either latents, or data with dtype and shape, not both");
    if (draft->latents.data) {
        LUNA_TRY(take_latents(draft, document));
    } else if (draft->common.latent.data) {
        draft->inputs[draft->input_count++] = draft->common;
    } else {
        return luna_error(LUNA_BAD_REQUEST,
                          "no latents: give latents: [{data, dtype, shape}]");
    }
    return decode_all(draft);
}

//  ---- safetensors -----------------------------------------------------------------

static void take_metadata(const luna_draft *draft, const char *key, luna_blob *out)
{
    size_t len;
    const char *value = luna_safetensors_metadata(draft->file.file, key, &len);
    if (value && !out->data) *out = (luna_blob){.data = value, .len = len};
}

//  What is wrong with the file is wrong with the request: not 404, not 415.
static luna_err as_latent(luna_err err)
{
    return err == LUNA_NOT_FOUND || err == LUNA_UNSUPPORTED ? LUNA_BAD_LATENT : err;
}

luna_err luna_draft_latent_file(luna_draft *draft, const char *body, size_t len)
{
    char tensor[LUNA_MAX_NAME_BYTES];
    const char *name = draft->tensor.data ? tensor : NULL;
    luna_text_copy(draft->tensor, tensor, sizeof tensor);
    const luna_err err =
        luna_latent_file_parse(body, len, "the body", name, &draft->file);
    if (err != LUNA_OK) return as_latent(err);
    const luna_tensor *found = &draft->file.tensor;
    luna_msg_input *input = &draft->inputs[0];
    *input = draft->common;
    if (found->rank > LUNA_MAX_DIMS)
        return luna_error(LUNA_BAD_LATENT, "'%.80s' has %zu dimensions, not 4",
                          found->name, found->rank);
    for (size_t i = 0; i < found->rank; i++) input->shape.at[i] = found->shape[i];
    input->shape.count = found->rank;
    input->dtype = luna_text_of(luna_dtype_word(found->dtype));
    input->latent = (luna_blob){.data = found->data, .len = found->bytes};
    draft->input_count = 1;
    take_metadata(draft, "prompt", &draft->job.prompt);
    take_metadata(draft, "workflow", &draft->job.workflow);
    return LUNA_OK;
}

//  ---- msgpack ---------------------------------------------------------------------

luna_err luna_draft_msgpack(luna_draft *draft, const char *body, size_t len)
{
    LUNA_TRY(luna_packet_open(body, len, &draft->packet));
    if (luna_packet_type(draft->packet) != LUNA_MSG_JOB)
        return luna_error(LUNA_BAD_REQUEST, "the message is not a job");
    LUNA_TRY(luna_packet_read(draft->packet, &draft->job));
    draft->has_time = true;
    return LUNA_OK;
}

//  ---- all -------------------------------------------------------------------------

static luna_err choose_id(luna_msg_job *job, const luna_id *key)
{
    const bool own = !luna_id_is_nil(&job->id), given = !luna_id_is_nil(key);
    if (own && given && luna_id_compare(&job->id, key) != 0)
        return luna_error(LUNA_BAD_REQUEST,
                          "the job's id and the Idempotency-Key are different");
    if (!own) job->id = given ? *key : luna_id_new();
    return LUNA_OK;
}

luna_err luna_draft_finish(luna_draft *draft, const luna_id *client, const luna_id *key)
{
    luna_msg_job *job = &draft->job;
    LUNA_TRY(choose_id(job, key));
    job->client = *client;
    if (!draft->has_time) {
        job->created_ms = (uint64_t)luna_wall_ms();
        job->utc_offset_min = luna_utc_offset_min((int64_t)job->created_ms);
    }
    if (!draft->packet) {
        job->inputs.items = draft->inputs;
        job->inputs.count = draft->input_count;
        job->extra.items = draft->extra;
        job->extra.count = draft->extra_count;
    }
    return luna_job_check(job);
}
