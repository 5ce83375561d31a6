#include "decoder/image/png_filter.h"

#include <stdlib.h>
#include <string.h>

enum { NONE, SUB, UP, AVERAGE, PAETH, FILTERS };

//  One row and the row above it; `bpp` bytes a pixel.
typedef struct row {
    const uint8_t *at;
    const uint8_t *up;
    size_t len;
    size_t bpp;
} row;

static void filter_sub(const row *r, uint8_t *restrict out)
{
    memcpy(out, r->at, r->bpp);
    for (size_t i = r->bpp; i < r->len; i++)
        out[i] = (uint8_t)(r->at[i] - r->at[i - r->bpp]);
}

static void filter_up(const row *r, uint8_t *restrict out)
{
    for (size_t i = 0; i < r->len; i++) out[i] = (uint8_t)(r->at[i] - r->up[i]);
}

static void filter_average(const row *r, uint8_t *restrict out)
{
    for (size_t i = 0; i < r->bpp; i++) out[i] = (uint8_t)(r->at[i] - r->up[i] / 2);
    for (size_t i = r->bpp; i < r->len; i++)
        out[i] = (uint8_t)(r->at[i] - (r->at[i - r->bpp] + r->up[i]) / 2);
}

static int distance(int value)
{
    return value < 0 ? -value : value;
}

//  Of left, above and upper left the one that is nearest to left + above - upper left.
static int predict(int left, int above, int corner)
{
    const int to_left = distance(above - corner), to_above = distance(left - corner);
    const int to_corner = distance(above + left - 2 * corner);
    const int other = to_above <= to_corner ? above : corner;
    const int nearest = to_above <= to_corner ? to_above : to_corner;
    return to_left <= nearest ? left : other;
}

static void filter_paeth(const row *r, uint8_t *restrict out)
{
    for (size_t i = 0; i < r->bpp; i++) out[i] = (uint8_t)(r->at[i] - r->up[i]);
    for (size_t i = r->bpp; i < r->len; i++)
        out[i] =
            (uint8_t)(r->at[i] - predict(r->at[i - r->bpp], r->up[i], r->up[i - r->bpp]));
}

static uint64_t sum_signed(const uint8_t *bytes, size_t len)
{
    uint64_t sum = 0;
    for (size_t from = 0; from < len; from += 4096) {
        const size_t to = len - from < 4096 ? len : from + 4096;
        uint32_t part = 0;
        for (size_t i = from; i < to; i++)
            part += bytes[i] < 128 ? bytes[i] : 256u - bytes[i];
        sum += part;
    }
    return sum;
}

//  `out` and `scratch` take a row and its filter byte.
static void choose(const row *r, uint8_t *out, uint8_t *scratch)
{
    static void (*const filters[FILTERS])(const row *, uint8_t *restrict) = {
        [SUB] = filter_sub,
        [UP] = filter_up,
        [AVERAGE] = filter_average,
        [PAETH] = filter_paeth};
    uint64_t least = sum_signed(r->at, r->len);
    out[0] = NONE;
    memcpy(out + 1, r->at, r->len);
    for (uint8_t f = SUB; f < FILTERS; f++) {
        filters[f](r, scratch + 1);
        const uint64_t sum = sum_signed(scratch + 1, r->len);
        if (sum >= least) continue;
        least = sum;
        scratch[0] = f;
        memcpy(out, scratch, r->len + 1);
    }
}

size_t luna_png_filtered_bytes(const luna_pixels *p)
{
    return p->height * (p->width * p->channels * p->sample_bytes + 1);
}

luna_err luna_png_filter(const luna_pixels *p, luna_png_filtering how, uint8_t *out)
{
    const size_t bpp = p->channels * p->sample_bytes;
    row r = {.len = p->width * bpp, .bpp = bpp};
    uint8_t *nothing = calloc(2, r.len + 1), *scratch = nothing + r.len + 1;
    if (!nothing)
        return luna_error(LUNA_NO_MEMORY, "no memory for a row of %zu bytes", r.len);
    for (size_t y = 0; y < p->height; y++, out += r.len + 1) {
        r.at = p->data + y * r.len;
        r.up = y > 0 ? r.at - r.len : nothing;
        if (how == LUNA_PNG_BY_ROW) {
            choose(&r, out, scratch);
        } else {
            out[0] = NONE;
            memcpy(out + 1, r.at, r.len);
        }
    }
    free(nothing);
    return LUNA_OK;
}
