//  The narrow convolution's weights: blocks of one tap, 64 x 64, in the order in which
//  conv_narrow.cu reads them, laid out in shared memory's own way so that all of them
//  are one plain copy.

#include "decoder/vae/cuda/kernels.h"

#include <string.h>

enum { CHANNELS = GPU_NARROW_CHANNELS, LANES = 8, BLOCK = CHANNELS * CHANNELS };

size_t gpu_narrow_weight_bytes(bool folded)
{
    return (size_t)(folded ? 16 : 9) * BLOCK * 2;
}

//  A tensor core's column n = 8 j + 2 q + e is channel 16 q + 2 j + e: so the sums of one
//  thread are sixteen channels next to each other.
static size_t channel_of(size_t row)
{
    const size_t j = row / 8, q = row % 8 / 2, e = row % 2;
    return 16 * q + 2 * j + e;
}

//  16-byte columns of a row are exchanged by its number.
static size_t place_of(size_t row, size_t channel)
{
    return row * CHANNELS + ((channel / LANES) ^ (row % 8)) * LANES + channel % LANES;
}

//  Tap `number` of the nine or, folded, of the sixteen: four results of a pixel, row by
//  row, with four taps each.
static float weight_at(const float *taps, bool folded, size_t number)
{
    return folded ? gpu_folded_tap(taps, number / 4, number % 4) : taps[number];
}

void gpu_narrow_pack(gpu_type type, const float *weight, bool folded, void *packed)
{
    float block[BLOCK];
    for (size_t t = 0; t < (folded ? 16 : 9); t++, packed = (char *)packed + BLOCK * 2) {
        for (size_t row = 0; row < CHANNELS; row++)
            for (size_t c = 0; c < CHANNELS; c++)
                block[place_of(row, c)] =
                    weight_at(weight + (channel_of(row) * CHANNELS + c) * 9, folded, t);
        gpu_narrow(type, block, BLOCK);
        memcpy(packed, block, BLOCK * 2);
    }
}
