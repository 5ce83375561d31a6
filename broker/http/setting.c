#include "broker/http/setting.h"

#include "broker/http/value.h"
#include "common/json_text.h"

#include <string.h>

#define OF_JOB(name, kind, member)                                  \
    {                                                               \
        name, LUNA_HTTP_##kind, false, offsetof(luna_draft, member) \
    }
#define OF_INPUT(name, kind, member)                                   \
    {                                                                  \
        name, LUNA_HTTP_##kind, true, offsetof(luna_msg_input, member) \
    }

static const luna_http_setting settings[] = {
    OF_JOB("vae", TEXT, job.vae),
    OF_JOB("output_dir", TEXT, job.output_dir),
    OF_JOB("save_path", TEXT, job.save_path),
    OF_JOB("filename", TEXT, job.filename),
    OF_JOB("model_name", TEXT, job.model_name),
    OF_JOB("filename_index", UINT, job.filename_index),
    OF_JOB("save_mode", TEXT, job.save_mode),
    OF_JOB("quality_gate", TEXT, job.quality_gate),
    OF_JOB("min_quality_threshold", FLOAT, job.min_quality),
    OF_JOB("min_quality", FLOAT, job.min_quality),
    OF_JOB("embed_workflow", BOOL, job.embed_workflow),
    OF_JOB("round_pixels", BOOL, job.round_pixels),
    OF_JOB("sidecar", BOOL, job.sidecar),
    OF_JOB("parameters", BOOL, job.parameters),
    OF_JOB("priority", UINT, job.priority),
    OF_JOB("deadline_ms", UINT, job.deadline_ms),
    OF_JOB("custom_metadata", TEXT, job.custom_metadata),
    OF_JOB("prompt_id", TEXT, job.prompt_id),
    OF_JOB("job_id", ID, job.id),
    OF_JOB("timestamp", TIME, job.created_ms),
    OF_JOB("prompt", DOCUMENT, job.prompt),
    OF_JOB("workflow", DOCUMENT, job.workflow),
    OF_JOB("metadata", OBJECT, job.metadata),
    OF_JOB("extra_pnginfo", EXTRA, extra),
    OF_JOB("latents", LATENTS, latents),
    OF_JOB("tensor", TEXT, tensor),
    OF_INPUT("affix", TEXT, affix),
    OF_INPUT("format", TEXT, format),
    OF_INPUT("subdir", BOOL, subdir),
    OF_INPUT("png_compression", UINT, png_compression),
    OF_INPUT("lossy_quality", UINT, lossy_quality),
    OF_INPUT("lossless_webp", BOOL, lossless_webp),
    OF_INPUT("png_bits", UINT, png_bits),
    OF_INPUT("dtype", DTYPE, dtype),
    OF_INPUT("shape", SHAPE, shape),
    OF_INPUT("data", DATA, latent),
};

_Static_assert(sizeof settings / sizeof settings[0] < 64, "a bit for each setting");

const luna_http_setting *luna_http_setting_find(luna_text name)
{
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (luna_text_is(name, settings[i].name)) return &settings[i];
    return NULL;
}

size_t luna_http_setting_index(const luna_http_setting *setting)
{
    return (size_t)(setting - settings);
}

static luna_err wrong(const luna_http_setting *setting, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "%s %s", setting->name, what);
}

//  ---- documents ----------------------------------------------------------------------

static luna_err set_document(const luna_http_setting *setting, luna_text value,
                             luna_blob *out)
{
    const size_t blanks = luna_http_blanks(value);
    if (setting->kind == LUNA_HTTP_OBJECT &&
        (blanks == value.len || value.data[blanks] != '{'))
        return wrong(setting, "must be an object, or a string that holds one");
    if (value.len > LUNA_MAX_JSON_BYTES)
        return luna_error(LUNA_TOO_LARGE, "%s has %zu bytes; at most %d are taken",
                          setting->name, value.len, LUNA_MAX_JSON_BYTES);
    if (out->data) return wrong(setting, "is given twice");
    *out = (luna_blob){.data = value.data, .len = value.len};
    return LUNA_OK;
}

//  A value that is kept as it stands: an object or array byte for byte, a string as
//  the document it holds.
static luna_err take_document(luna_draft *draft, const luna_http_setting *setting,
                              luna_text span, luna_text *out)
{
    if (span.data[0] == '"') return luna_http_json_string(draft, span, out);
    *out = span;
    if (span.data[0] == '{' || span.data[0] == '[') return LUNA_OK;
    return wrong(setting, "must be an object, or a string that holds one");
}

static luna_err add_extra(luna_draft *draft, luna_text key, luna_text value)
{
    static const luna_http_setting row = {.name = "a key of extra_pnginfo",
                                          .kind = LUNA_HTTP_DOCUMENT};
    static const luna_http_setting workflow = {.name = "workflow",
                                               .kind = LUNA_HTTP_DOCUMENT};
    if (luna_text_is(key, "workflow")) {
        LUNA_TRY(take_document(draft, &workflow, value, &value));
        return set_document(&workflow, value, &draft->job.workflow);
    }
    if (draft->extra_count == LUNA_DRAFT_EXTRA)
        return luna_error(LUNA_BAD_REQUEST, "extra_pnginfo has more than %d keys",
                          LUNA_DRAFT_EXTRA);
    luna_pair *pair = &draft->extra[draft->extra_count++];
    pair->key = key;
    return set_document(&row, value, &pair->value);
}

static bool is_null(luna_text span)
{
    return span.len == 4 && span.data[0] == 'n';
}

//  `text` is a whole JSON document here: an object of documents.
static luna_err set_extra(luna_draft *draft, const luna_http_setting *setting,
                          luna_text text)
{
    luna_json_walk walk;
    luna_text object, key, value;
    LUNA_TRY(luna_json_check(text, &object));
    if (object.data[0] != '{') return wrong(setting, "must be an object");
    LUNA_TRY(luna_json_enter(text, object, &walk));
    while (luna_json_next(&walk, &key, &value)) {
        if (is_null(value)) continue;
        const luna_text quoted = {.data = key.data - 1, .len = key.len + 2};
        LUNA_TRY(luna_http_json_string(draft, quoted, &key));
        //  Any kind of value is a document: ComfyUI too writes json.dumps(value).
        LUNA_TRY(add_extra(draft, key, value));
    }
    return LUNA_OK;
}

//  ---- from the query string -----------------------------------------------------------

luna_err luna_http_setting_text(luna_draft *draft, luna_msg_input *input,
                                const luna_http_setting *setting, luna_text value)
{
    void *at =
        (char *)(setting->of_input ? (void *)input : (void *)draft) + setting->offset;
    switch (setting->kind) {
        case LUNA_HTTP_TEXT:
            *(luna_text *)at = value;
            return LUNA_OK;
        case LUNA_HTTP_UINT:
            return luna_http_uint(setting->name, value, at);
        case LUNA_HTTP_FLOAT:
            return luna_http_float(setting->name, value, at);
        case LUNA_HTTP_BOOL:
            return luna_http_bool(setting->name, value, at);
        case LUNA_HTTP_ID:
            return luna_http_id(setting->name, value, at);
        case LUNA_HTTP_DTYPE:
            return luna_http_dtype(setting->name, value, at);
        case LUNA_HTTP_TIME:
            draft->has_time = true;
            return luna_http_time(setting->name, value, &draft->job.created_ms,
                                  &draft->job.utc_offset_min);
        case LUNA_HTTP_DOCUMENT:
        case LUNA_HTTP_OBJECT:
            return set_document(setting, value, at);
        case LUNA_HTTP_EXTRA:
            return set_extra(draft, setting, value);
        default:
            return wrong(setting, "belongs in the body, not in the query string");
    }
}

//  ---- from JSON -----------------------------------------------------------------------

luna_err luna_http_json_string(luna_draft *draft, luna_text span, luna_text *out)
{
    const char *fault;
    *out = (luna_text){.data = span.data + 1, .len = span.len - 2};
    if (!memchr(out->data, '\\', out->len)) return LUNA_OK;
    char *copy = luna_arena_alloc(&draft->arena, span.len, 1);
    if (!copy)
        return luna_error(LUNA_NO_MEMORY, "no memory for a text of %zu bytes", span.len);
    if (luna_json_text_read(span.data, span.len, copy, &out->len, &fault) == 0)
        return luna_error(LUNA_BAD_REQUEST, "the JSON is wrong: a text with %s", fault);
    out->data = copy;
    return memchr(copy, 0, out->len)
               ? luna_error(LUNA_BAD_REQUEST, "the JSON is wrong: a text holds \\u0000")
               : LUNA_OK;
}

static luna_err set_shape(const luna_http_setting *setting, luna_text span,
                          luna_dims *out)
{
    luna_json_walk walk;
    luna_text key, value;
    luna_dims dims = {.count = 0};
    if (span.data[0] != '[') return wrong(setting, "must be an array: [N, C, H, W]");
    LUNA_TRY(luna_json_enter(span, span, &walk));
    while (luna_json_next(&walk, &key, &value)) {
        if (dims.count == LUNA_MAX_DIMS) return wrong(setting, "has too many dimensions");
        LUNA_TRY(luna_http_uint(setting->name, value, &dims.at[dims.count++]));
    }
    *out = dims;
    return LUNA_OK;
}

static luna_err set_scalar(luna_draft *draft, luna_msg_input *input,
                           const luna_http_setting *setting, luna_text span)
{
    const char first = span.data[0];
    const bool text = first == '"';
    const bool wants_text = setting->kind == LUNA_HTTP_TEXT ||
                            setting->kind == LUNA_HTTP_ID ||
                            setting->kind == LUNA_HTTP_DTYPE;
    if (first == '{' || first == '[' || (wants_text && !text))
        return wrong(setting, wants_text ? "must be a text" : "must be a single value");
    if (text) LUNA_TRY(luna_http_json_string(draft, span, &span));
    return luna_http_setting_text(draft, input, setting, span);
}

luna_err luna_http_setting_json(luna_draft *draft, luna_msg_input *input,
                                const luna_http_setting *setting, luna_text value)
{
    luna_text document;
    if (is_null(value)) return LUNA_OK;
    switch (setting->kind) {
        case LUNA_HTTP_DOCUMENT:
        case LUNA_HTTP_OBJECT:
        case LUNA_HTTP_EXTRA:
            LUNA_TRY(take_document(draft, setting, value, &document));
            return luna_http_setting_text(draft, input, setting, document);
        case LUNA_HTTP_SHAPE:
            return set_shape(setting, value, &input->shape);
        case LUNA_HTTP_DATA:
            if (value.data[0] != '"') return wrong(setting, "must be base64 in a text");
            input->latent = (luna_blob){.data = value.data + 1, .len = value.len - 2};
            return LUNA_OK;
        case LUNA_HTTP_LATENTS:
            if (value.data[0] != '[')
                return wrong(setting, "must be an array of objects");
            draft->latents = value;
            return LUNA_OK;
        default:
            return set_scalar(draft, input, setting, value);
    }
}
