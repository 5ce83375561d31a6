#include "decoder/worker/metadata.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json_text.h"
#include "common/log.h"
#include "common/utf8.h"
#include "decoder/image/png_chunks.h"
#include "decoder/sink/name.h"
#include "decoder/worker/heatmaps.h"
#include "decoder/worker/json_members.h"
#include "decoder/worker/parameters.h"

#define GEN_PREFIX "gen_"
#define PARAMETERS "parameters"

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
static void add_kind(luna_metadata *metadata, const char *keyword, luna_text text,
                     luna_text_kind kind)
{
    if (!text.data || text.len == 0) return;
    const char *fault = fault_of(metadata, keyword, text);
    if (fault) {
        luna_log(LUNA_LOG_WARNING, "metadata_left_out", "key=\"%.80s\" reason=\"%s\"",
                 keyword, fault);
        return;
    }
    metadata->texts[metadata->count++] =
        (luna_image_text){keyword, text.data, text.len, kind};
}

static void add(luna_metadata *metadata, const char *keyword, luna_text text)
{
    add_kind(metadata, keyword, text, LUNA_TEXT_NOTE);
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
        const bool own = strcmp(keyword, PARAMETERS) == 0;
        add_kind(metadata, keyword, as_text(pair->value),
                 own ? LUNA_TEXT_PARAMETERS : LUNA_TEXT_GRAPH);
    }
    return LUNA_OK;
}

static luna_err add_parameters(luna_metadata *metadata, const luna_metadata_of *of)
{
    luna_text text;
    if (!of->job->parameters || is_taken(metadata, PARAMETERS)) return LUNA_OK;
    LUNA_TRY(luna_parameters_make(of->job->metadata, of->width, of->height,
                                  &metadata->memory, &text));
    add_kind(metadata, PARAMETERS, text, LUNA_TEXT_PARAMETERS);
    return LUNA_OK;
}

static luna_err add_model(luna_metadata *metadata, const luna_msg_job *job)
{
    luna_text path, name;
    char *room = luna_arena_alloc(&metadata->memory, LUNA_NAME_MODEL_BYTES, 1);
    if (!room) return no_memory();
    luna_name_model(job->model_name, room, &path, &name);
    add(metadata, "model_name", name);
    add(metadata, "model_path", path);
    return LUNA_OK;
}

static luna_err add_member(luna_metadata *metadata, luna_text key, luna_text value)
{
    luna_text name, plain;
    LUNA_TRY(luna_member_text(&metadata->memory, key, &name));
    LUNA_TRY(luna_member_text(&metadata->memory, value, &plain));
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

static luna_err add_index(luna_metadata *metadata, size_t index)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", index);
    return add_printed(metadata, "batch_index", text);
}

//  They cost most of all texts, so only where they are kept.
static luna_err add_heatmaps(luna_metadata *metadata, const luna_metadata_of *of)
{
    luna_text text;
    if (!of->job->embed_workflow && !of->job->sidecar) return LUNA_OK;
    LUNA_TRY(luna_heatmaps_text(of->job, of->index, &metadata->memory, &text));
    add(metadata, LUNA_TEXT_HEATMAPS, text);
    return LUNA_OK;
}

luna_err luna_metadata_collect(const luna_metadata_of *of, luna_metadata *out)
{
    const luna_msg_job *job = of->job;
    out->count = 0;
    out->memory = (luna_arena){0};
    add_kind(out, "prompt", as_text(job->prompt), LUNA_TEXT_GRAPH);
    add_kind(out, "workflow", as_text(job->workflow), LUNA_TEXT_GRAPH);
    LUNA_TRY(add_extra(out, job));
    LUNA_TRY(add_parameters(out, of));
    LUNA_TRY(add_generation(out, job));
    add(out, "image_type", job->inputs.items[of->input].affix);
    LUNA_TRY(add_model(out, job));
    add(out, "custom_metadata", job->custom_metadata);
    LUNA_TRY(add_time(out, job));
    LUNA_TRY(add_index(out, of->index));
    return add_heatmaps(out, of);
}

//  ---- as JSON ------------------------------------------------------------------------

//  "{", a member a line, "}": called with NULL it only measures.
static size_t write_json(const luna_metadata *metadata, char *out, size_t room)
{
    size_t at = 0;
    for (size_t i = 0; i < metadata->count; i++) {
        const luna_image_text *t = &metadata->texts[i];
        const char *before = i ? ",\n  " : "{\n  ";
        const size_t keyword = strlen(t->keyword);
        if (out) memcpy(out + at, before, strlen(before));
        at += strlen(before);
        at += luna_json_text_write(t->keyword, keyword, out ? out + at : NULL,
                                   out ? room - at : 0);
        if (out) memcpy(out + at, ": ", 2);
        at += 2;
        at += luna_json_text_write(t->text, t->len, out ? out + at : NULL,
                                   out ? room - at : 0);
    }
    if (out) memcpy(out + at, metadata->count ? "\n}\n" : "{ }\n", 4);
    return at + (metadata->count ? 3 : 4);
}

luna_err luna_metadata_json(luna_metadata *metadata, const char **out, size_t *len)
{
    const size_t room = write_json(metadata, NULL, 0) + 8;
    char *data = luna_arena_alloc(&metadata->memory, room, 1);
    if (!data) return no_memory();
    *len = write_json(metadata, data, room);
    *out = data;
    return LUNA_OK;
}
