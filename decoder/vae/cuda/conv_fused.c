//  The fused convolution's weights: blocks of one tap, 64 channels and 128 channels of
//  the result, in the order in which a tile reads them (fused.cuh), laid out in shared
//  memory's own way so that a block is one plain copy.

#include "decoder/vae/cuda/kernels.h"

#include <string.h>

enum { ROWS = GPU_FUSED_TO, CHUNK = GPU_FUSED_FROM, LANES = 8 };

static size_t taps_of(const gpu_fused_weights *w)
{
    return (size_t)w->from / CHUNK * (w->folded ? 4 : 9) + (size_t)w->beside / CHUNK;
}

size_t gpu_fused_weight_bytes(const gpu_fused_weights *w)
{
    const size_t blocks = (size_t)w->to / ROWS * (w->folded ? 4 : 1);
    return blocks * taps_of(w) * ROWS * CHUNK * 2;
}

//  A tensor core's column n of 32 is channel 8 q + 2 j + e where n = 8 j + 2 q + e: so
//  the sums of one thread are eight channels next to each other.
static size_t channel_of(size_t row)
{
    const size_t j = row % 32 / 8, q = row % 8 / 2, e = row % 2;
    return row / 32 * 32 + 8 * q + 2 * j + e;
}

//  The place of a value in its block: 16-byte columns of a row are exchanged by its
//  number.
static size_t place_of(size_t row, size_t channel)
{
    return row * CHUNK + ((channel / LANES) ^ (row % 8)) * LANES + channel % LANES;
}

//  Along a side the taps are {2}, {1, 2}, {0, 1}, {0}.
float gpu_folded_weight(const float *taps, size_t row, size_t column)
{
    static const size_t first[] = {2, 1, 0, 0}, last[] = {2, 2, 1, 0};
    float sum = 0.0F;
    for (size_t r = first[row]; r <= last[row]; r++)
        for (size_t c = first[column]; c <= last[column]; c++) sum += taps[r * 3 + c];
    return sum;
}

float gpu_folded_tap(const float *taps, size_t corner, size_t number)
{
    return gpu_folded_weight(taps, 3 - corner / 2 - 2 * (number / 2),
                             3 - corner % 2 - 2 * (number % 2));
}

typedef struct tap {
    size_t corner, number;
} tap;

static float weight_at(const gpu_fused_weights *w, tap t, size_t to, size_t from)
{
    const float *taps = w->weight + (to * (size_t)w->from + from) * 9;
    return w->folded ? gpu_folded_tap(taps, t.corner, t.number) : taps[t.number];
}

static void pack_tap(const gpu_fused_weights *w, tap t, size_t to, size_t from,
                     float *block)
{
    for (size_t row = 0; row < ROWS; row++)
        for (size_t c = 0; c < CHUNK; c++)
            block[place_of(row, c)] = weight_at(w, t, to + channel_of(row), from + c);
}

static void pack_beside(const gpu_fused_weights *w, size_t to, size_t from, float *block)
{
    for (size_t row = 0; row < ROWS; row++)
        for (size_t c = 0; c < CHUNK; c++)
            block[place_of(row, c)] =
                w->shortcut[(to + channel_of(row)) * (size_t)w->beside + from + c];
}

//  Narrows a block and puts it at the end of what is packed.
static void *append(gpu_type type, float *block, void *packed)
{
    gpu_narrow(type, block, (size_t)ROWS * CHUNK);
    memcpy(packed, block, (size_t)ROWS * CHUNK * 2);
    return (char *)packed + (size_t)ROWS * CHUNK * 2;
}

void gpu_fused_pack(gpu_type type, const gpu_fused_weights *w, void *packed)
{
    float block[ROWS * CHUNK];
    const size_t corners = w->folded ? 4 : 1, taps = w->folded ? 4 : 9;
    for (size_t corner = 0; corner < corners; corner++)
        for (size_t to = 0; to < (size_t)w->to; to += ROWS) {
            for (size_t from = 0; from < (size_t)w->from; from += CHUNK)
                for (size_t t = 0; t < taps; t++) {
                    pack_tap(w, (tap){corner, t}, to, from, block);
                    packed = append(type, block, packed);
                }
            for (size_t from = 0; from < (size_t)w->beside; from += CHUNK) {
                pack_beside(w, to, from, block);
                packed = append(type, block, packed);
            }
        }
}
