#include "common/latent_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const float old_scale = 1.0F / 0.18215F;

//  "'a', 'b', ..." of the first few tensors.
static void list_names(const luna_safetensors *file, char *out, size_t room)
{
    size_t used = 0;
    const size_t count = luna_safetensors_count(file);
    snprintf(out, room, "none");
    for (size_t i = 0; i < count && i < 8 && used < room; i++) {
        const char *name = luna_safetensors_at(file, i)->name;
        const char *tail = i == 7 && count > 8 ? ", ..." : "";
        used += (size_t)snprintf(out + used, room - used, "%s'%.60s'%s", i ? ", " : "",
                                 name, tail);
    }
}

static luna_err no_such(const luna_safetensors *file, luna_err err, const char *what)
{
    char names[600];
    list_names(file, names, sizeof names);
    return luna_error(err, "%s: %s; it holds: %s", luna_safetensors_label(file), what,
                      names);
}

static luna_err choose(const luna_safetensors *file, const char *name,
                       const luna_tensor **out)
{
    if (name) {
        char what[128];
        snprintf(what, sizeof what, "no tensor '%.90s'", name);
        *out = luna_safetensors_find(file, name);
        return *out ? LUNA_OK : no_such(file, LUNA_NOT_FOUND, what);
    }
    *out = luna_safetensors_find(file, "latent_tensor");
    if (*out) return LUNA_OK;
    const size_t count = luna_safetensors_count(file);
    if (count == 0) return no_such(file, LUNA_NOT_FOUND, "no tensors");
    if (count > 1)
        return no_such(file, LUNA_BAD_REQUEST, "say which tensor, FILE:TENSOR");
    *out = luna_safetensors_at(file, 0);
    return LUNA_OK;
}

static bool has_old_scale(const luna_latent_file *latents)
{
    return strcmp(latents->tensor.name, "latent_tensor") == 0 &&
           !luna_safetensors_find(latents->file, "latent_format_version_0");
}

static luna_err undo_old_scale(luna_latent_file *latents)
{
    luna_tensor *tensor = &latents->tensor;
    size_t bytes;
    if (__builtin_mul_overflow(tensor->count, sizeof(float), &bytes))
        return luna_error(LUNA_NO_MEMORY, "the latents are too large");
    float *values = malloc(bytes ? bytes : 1);
    if (!values)
        return luna_error(LUNA_NO_MEMORY, "no memory for %zu bytes of latents", bytes);
    latents->scaled = values;
    LUNA_TRY(luna_dtype_to_float(tensor->dtype, tensor->data, tensor->count, values));
    for (size_t i = 0; i < tensor->count; i++) values[i] *= old_scale;
    tensor->dtype = LUNA_DTYPE_F32;
    tensor->dtype_name = luna_dtype_name(LUNA_DTYPE_F32);
    tensor->data = values;
    tensor->bytes = bytes;
    return LUNA_OK;
}

static luna_err take(luna_latent_file *latents, const char *name)
{
    const luna_tensor *tensor = NULL;
    LUNA_TRY(choose(latents->file, name, &tensor));
    latents->tensor = *tensor;
    if (!luna_dtype_is_float(tensor->dtype))
        return luna_error(
            LUNA_UNSUPPORTED, "%s: '%.80s' is %.20s; latents are F16, BF16, F32 or F64",
            luna_safetensors_label(latents->file), tensor->name, tensor->dtype_name);
    return has_old_scale(latents) ? undo_old_scale(latents) : LUNA_OK;
}

static luna_err take_or_close(luna_latent_file *latents, const char *name)
{
    const luna_err err = take(latents, name);
    if (err != LUNA_OK) luna_latent_file_close(latents);
    return err;
}

luna_err luna_latent_file_open(const char *spec, luna_latent_file *out)
{
    const char *colon = access(spec, F_OK) == 0 ? NULL : strrchr(spec, ':');
    const char *name = colon && colon > spec && colon[1] ? colon + 1 : NULL;
    char *path = name ? strndup(spec, (size_t)(colon - spec)) : strdup(spec);
    if (!path) return luna_error(LUNA_NO_MEMORY, "no memory to open %s", spec);
    *out = (luna_latent_file){0};
    const luna_err err = luna_safetensors_open(path, &out->file);
    free(path);
    return err == LUNA_OK ? take_or_close(out, name) : err;
}

luna_err luna_latent_file_parse(const void *data, size_t len, const char *label,
                                const char *tensor, luna_latent_file *out)
{
    *out = (luna_latent_file){0};
    LUNA_TRY(luna_safetensors_parse(data, len, label, &out->file));
    return take_or_close(out, tensor);
}

void luna_latent_file_close(luna_latent_file *latents)
{
    luna_safetensors_close(&latents->file);
    free(latents->scaled);
    *latents = (luna_latent_file){0};
}
