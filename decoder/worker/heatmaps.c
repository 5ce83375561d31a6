#include "decoder/worker/heatmaps.h"

#include <libdeflate.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"
#include "common/log.h"
#include "decoder/image/bytes.h"
#include "proto/heatmaps.h"

#define LEVEL 1  //  of libdeflate: higher ones find nothing more in floats
#define HEAD \
    "{\"encoding\": \"base64 of gzip of float32, little-endian, rows from the top\""

typedef struct writer {
    luna_bytes text;
    struct libdeflate_compressor *compressor;
    float *map;  //  the one in hand, aligned
    uint8_t *packed;
    size_t room;  //  of `packed`
} writer;

//  What stands beside a map.
typedef struct figures {
    double total;
    float max;
    size_t covered;  //  places with at least half of `max`
    size_t left, top, right, bottom;
} figures;

//  ---- figures ------------------------------------------------------------------------

static bool is_finite(const float *map, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(map[i])) return false;
    return true;
}

static void cover(figures *f, size_t x, size_t y)
{
    if (f->covered++ == 0) *f = (figures){f->total, f->max, 1, x, y, x, y};
    if (x < f->left) f->left = x;
    if (x > f->right) f->right = x;
    f->bottom = y;
}

static figures figures_of(const float *map, size_t width, size_t height)
{
    figures f = {.max = map[0]};
    for (size_t i = 0; i < width * height; i++) {
        f.total += (double)map[i];
        if (map[i] > f.max) f.max = map[i];
    }
    for (size_t i = 0; f.max > 0 && i < width * height; i++)
        if (map[i] >= f.max / 2) cover(&f, i % width, i / width);
    return f;
}

//  ---- text ---------------------------------------------------------------------------

static void put_string(luna_bytes *out, luna_text text)
{
    const char *data = text.data ? text.data : "";
    const size_t len = luna_json_text_write(data, text.len, NULL, 0);
    luna_bytes_reserve(out, len + 1);
    if (out->failed) return;
    luna_json_text_write(data, text.len, (char *)out->data + out->len, len + 1);
    out->len += len;
}

//  RFC 4648, section 4.
static void put_base64(luna_bytes *out, const uint8_t *data, size_t len)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    luna_bytes_reserve(out, (len + 2) / 3 * 4);
    for (size_t i = 0; i < len; i += 3) {
        const size_t have = len - i < 3 ? len - i : 3;
        const uint32_t bits = (uint32_t)data[i] << 16 |
                              (have > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                              (have > 2 ? data[i + 2] : 0);
        const char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                              have > 1 ? digits[bits >> 6 & 63] : '=',
                              have > 2 ? digits[bits & 63] : '='};
        luna_bytes_put(out, four, sizeof four);
    }
}

static void put_figures(luna_bytes *out, const figures *f, size_t width, size_t height)
{
    char text[320];
    const double places = (double)(width * height);
    const size_t bbox_width = f->covered ? f->right - f->left + 1 : 0;
    const size_t bbox_height = f->covered ? f->bottom - f->top + 1 : 0;
    snprintf(text, sizeof text,
             "\"width\": %zu, \"height\": %zu, \"max_attention\": %.9g, "
             "\"mean_attention\": %.9g, \"total_attention\": %.9g, "
             "\"coverage_area\": %.9g, \"bbox\": [%zu, %zu, %zu, %zu]",
             width, height, (double)f->max, f->total / places, f->total,
             (double)f->covered / places, f->left, f->top, bbox_width, bbox_height);
    luna_bytes_text(out, text);
}

static void put_map(writer *w, const luna_msg_token *token, size_t width, size_t height)
{
    char index[64];
    const size_t bytes = width * height * sizeof(float);
    const figures f = figures_of(w->map, width, height);
    luna_bytes_text(&w->text, "{\"token\": ");
    put_string(&w->text, token->text);
    snprintf(index, sizeof index, ", \"token_index\": %llu, ",
             (unsigned long long)token->index);
    luna_bytes_text(&w->text, index);
    put_figures(&w->text, &f, width, height);
    luna_bytes_text(&w->text, ", \"heatmap\": \"");
    put_base64(
        &w->text, w->packed,
        libdeflate_gzip_compress(w->compressor, w->map, bytes, w->packed, w->room));
    luna_bytes_text(&w->text, "\"}");
}

//  ---- sets ---------------------------------------------------------------------------

static void put_maps(writer *w, const luna_msg_heatmaps *set, const uint8_t *maps)
{
    const size_t width = (size_t)set->shape.at[3], height = (size_t)set->shape.at[2];
    const size_t bytes = luna_heatmap_bytes(set);
    const char *before = "";
    for (size_t i = 0; i < set->tokens.count; i++) {
        memcpy(w->map, maps + i * bytes, bytes);
        if (!is_finite(w->map, width * height)) {
            luna_log(
                LUNA_LOG_WARNING, "heatmap_left_out",
                "prompt=%.*s token_index=%llu reason=\"it holds a NaN or an infinity\"",
                (int)set->prompt.len, set->prompt.data,
                (unsigned long long)set->tokens.items[i].index);
            continue;
        }
        luna_bytes_text(&w->text, before);
        put_map(w, &set->tokens.items[i], width, height);
        before = ", ";
    }
}

static void put_set(writer *w, const luna_msg_heatmaps *set, const uint8_t *maps)
{
    const bool modified = luna_text_is(set->variant, "modified");
    luna_bytes_text(&w->text, ", \"");
    luna_bytes_put(&w->text, set->prompt.data, set->prompt.len);
    luna_bytes_text(&w->text, modified ? "_modified\": [" : "\": [");
    put_maps(w, set, maps);
    luna_bytes_text(&w->text, "]");
}

static bool open_writer(writer *w, const luna_msg_job *job)
{
    size_t bytes = 0;
    for (size_t i = 0; i < job->heatmaps.count; i++)
        if (luna_heatmap_bytes(&job->heatmaps.items[i]) > bytes)
            bytes = luna_heatmap_bytes(&job->heatmaps.items[i]);
    w->compressor = libdeflate_alloc_compressor(LEVEL);
    if (!w->compressor) return false;
    w->room = libdeflate_gzip_compress_bound(w->compressor, bytes);
    w->map = malloc(bytes);
    w->packed = malloc(w->room);
    return w->map && w->packed;
}

static void close_writer(writer *w)
{
    if (w->compressor) libdeflate_free_compressor(w->compressor);
    free(w->map);
    free(w->packed);
    luna_bytes_free(&w->text);
}

//  How many sets have maps of the image.
static size_t write_sets(writer *w, const luna_msg_job *job, size_t index)
{
    size_t count = 0;
    luna_bytes_text(&w->text, HEAD);
    for (size_t i = 0; i < job->heatmaps.count; i++) {
        const uint8_t *maps = luna_heatmaps_of(&job->heatmaps.items[i], index);
        if (!maps) continue;
        put_set(w, &job->heatmaps.items[i], maps);
        count++;
    }
    luna_bytes_text(&w->text, "}");
    return count;
}

static luna_err no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory for an image's heatmaps");
}

static luna_err keep(const writer *w, luna_arena *memory, luna_text *out)
{
    LUNA_TRY(luna_bytes_end(&w->text, "an image's heatmaps"));
    out->data = luna_arena_text(memory, (const char *)w->text.data, w->text.len);
    out->len = w->text.len;
    return out->data ? LUNA_OK : no_memory();
}

luna_err luna_heatmaps_text(const luna_msg_job *job, size_t index, luna_arena *memory,
                            luna_text *out)
{
    writer w = {0};
    *out = (luna_text){0};
    if (job->heatmaps.count == 0) return LUNA_OK;
    luna_err err = open_writer(&w, job) ? LUNA_OK : no_memory();
    if (err == LUNA_OK && write_sets(&w, job, index) > 0) err = keep(&w, memory, out);
    close_writer(&w);
    return err;
}
