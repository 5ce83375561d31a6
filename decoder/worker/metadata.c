#include "decoder/worker/metadata.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json_text.h"
#include "common/log.h"
#include "common/utf8.h"
#include "decoder/worker/json_members.h"

#define GEN_PREFIX "gen_"

static bool is_printable(unsigned char c)
{
    return (c >= 0x20 && c <= 0x7e);
}

//  ASCII only, of what PNG allows: every reader agrees on it.
static bool is_keyword(const char *word)
{
    const size_t len = strlen(word);
    if (len == 0 || len > LUNA_PNG_KEYWORD_MAX || word[0] == ' ' || word[len - 1] == ' ')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_printable((unsigned char)word[i]) ||
            (word[i] == ' ' && word[i + 1] == ' '))
            return false;
    return true;
}

static bool is_taken(const luna_metadata *metadata, const char *keyword)
{
    for (size_t i = 0; i < metadata->count; i++)
        if (strcmp(metadata->texts[i].keyword, keyword) == 0) return true;
    return false;
}

static const char *fault_of(const luna_metadata *metadata, const char *keyword,
                            luna_text text)
{
    if (!is_keyword(keyword)) return "its key is no PNG keyword";
    if (is_taken(metadata, keyword)) return "its key is there already";
    if (metadata->count == LUNA_METADATA_MAX) return "there are too many";
    if (text.len > LUNA_PNG_CHUNK_MAX) return "it is too long";
    if (memchr(text.data, 0, text.len)) return "it holds a NUL";
    if (!luna_utf8_valid(text.data, text.len)) return "it is not UTF-8";
    return NULL;
}

//  `keyword` and `text` must live as long as the metadata.
static void add(luna_metadata *metadata, const char *keyword, luna_text text)
{
    if (!text.data || text.len == 0) return;
    const char *fault = fault_of(metadata, keyword, text);
    if (fault) {
        luna_log(LUNA_LOG_WARNING, "metadata_left_out", "key=\"%.80s\" reason=\"%s\"",
                 keyword, fault);
        return;
    }
    metadata->texts[metadata->count++] = (luna_png_text){keyword, text.data, text.len};
}

static luna_text as_text(luna_blob blob)
{
    return (luna_text){blob.data, blob.len};
}

static luna_err no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory for an image's metadata");
}

static luna_err add_extra(luna_metadata *metadata, const luna_msg_job *job)
{
    for (size_t i = 0; i < job->extra.count; i++) {
        const luna_pair *pair = &job->extra.items[i];
        const char *keyword =
            luna_arena_text(&metadata->memory, pair->key.data, pair->key.len);
        if (!keyword) return no_memory();
        add(metadata, keyword, as_text(pair->value));
    }
    return LUNA_OK;
}

//  A JSON string as its text; anything else as it stands.
static luna_err plain_value(luna_metadata *metadata, luna_text value, luna_text *out)
{
    const char *fault;
    *out = value;
    if (value.data[0] != '"') return LUNA_OK;
    char *room = luna_arena_alloc(&metadata->memory, value.len, 1);
    if (!room) return no_memory();
    if (luna_json_text_read(value.data, value.len, room, &out->len, &fault) == 0)
        return LUNA_OK;
    out->data = room;
    return LUNA_OK;
}

static luna_err add_member(luna_metadata *metadata, luna_text key, luna_text value)
{
    luna_text name, plain;
    LUNA_TRY(plain_value(metadata, key, &name));
    LUNA_TRY(plain_value(metadata, value, &plain));
    const size_t prefix = strlen(GEN_PREFIX);
    char *keyword = luna_arena_alloc(&metadata->memory, prefix + name.len + 1, 1);
    if (!keyword) return no_memory();
    memcpy(keyword, GEN_PREFIX, prefix);
    memcpy(keyword + prefix, name.data, name.len);
    add(metadata, keyword, plain);
    return LUNA_OK;
}

static luna_err add_generation(luna_metadata *metadata, const luna_msg_job *job)
{
    luna_members members = luna_members_of(job->metadata);
    luna_text key, value;
    add(metadata, "generation_metadata", as_text(job->metadata));
    while (luna_members_next(&members, &key, &value))
        LUNA_TRY(add_member(metadata, key, value));
    return LUNA_OK;
}

static luna_err add_printed(luna_metadata *metadata, const char *keyword,
                            const char *text)
{
    const char *copy = luna_arena_text(&metadata->memory, text, strlen(text));
    if (!copy) return no_memory();
    add(metadata, keyword, luna_text_of(copy));
    return LUNA_OK;
}

static luna_err add_time(luna_metadata *metadata, const luna_msg_job *job)
{
    const int64_t offset = job->utc_offset_min;
    const int64_t local_s = (int64_t)(job->created_ms / 1000) + 60 * offset;
    const time_t seconds = (time_t)local_s;
    const int64_t ahead = offset < 0 ? -offset : offset;
    struct tm parts;
    char text[64], day[32];
    if (!gmtime_r(&seconds, &parts) ||
        strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts) == 0)
        return LUNA_OK;
    snprintf(text, sizeof text, "%s%c%02" PRId64 ":%02" PRId64, day,
             offset < 0 ? '-' : '+', ahead / 60, ahead % 60);
    return add_printed(metadata, "save_timestamp", text);
}

static luna_err add_index(luna_metadata *metadata, const luna_msg_input *input,
                          size_t index)
{
    if (input->shape.at[0] < 2) return LUNA_OK;
    char text[24];
    snprintf(text, sizeof text, "%zu", index);
    return add_printed(metadata, "batch_index", text);
}

luna_err luna_metadata_collect(const luna_msg_job *job, size_t input, size_t index,
                               luna_metadata *out)
{
    out->count = 0;
    out->memory = (luna_arena){0};
    if (!job->embed_workflow) return LUNA_OK;
    add(out, "prompt", as_text(job->prompt));
    add(out, "workflow", as_text(job->workflow));
    LUNA_TRY(add_extra(out, job));
    LUNA_TRY(add_generation(out, job));
    add(out, "image_type", job->inputs.items[input].affix);
    add(out, "model_name", job->model_name);
    add(out, "custom_metadata", job->custom_metadata);
    LUNA_TRY(add_time(out, job));
    return add_index(out, &job->inputs.items[input], index);
}
