#include "decoder/vae/conv_plain.h"

#include <string.h>

//  Eight result channels at four neighbouring pixels are summed at once: eight vector
//  registers of partial sums, enough work for each weight loaded.
enum { LANES = 8, TILE = 4 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), may_alias));

static size_t groups_of(size_t channels)
{
    return (channels + LANES - 1) / LANES;
}

size_t luna_conv_packed_count(size_t channels, size_t from_channels, size_t kernel)
{
    return groups_of(channels) * LANES * from_channels * kernel * kernel;
}

void luna_conv_pack(const float *weight, size_t channels, size_t from_channels,
                    size_t kernel, float *packed)
{
    const size_t taps = from_channels * kernel * kernel;
    for (size_t o = 0; o < groups_of(channels) * LANES; o++)
        for (size_t t = 0; t < taps; t++)
            packed[(o / LANES * taps + t) * LANES + o % LANES] =
                o < channels ? weight[o * taps + t] : 0.0F;
}

//  A row holds the border on both sides and what the last tile reads beyond it.
static size_t row_of(const luna_shape *from, size_t kernel)
{
    return from->width + kernel - 1 + TILE - 1;
}

size_t luna_conv_scratch_count(const luna_shape *from, size_t kernel)
{
    return from->channels * (from->height + kernel - 1) * row_of(from, kernel);
}

static void add_border(const luna_shape *from, size_t kernel, const float *x,
                       float *scratch)
{
    const size_t row = row_of(from, kernel), rows = from->height + kernel - 1;
    memset(scratch, 0, luna_conv_scratch_count(from, kernel) * sizeof *scratch);
    for (size_t c = 0; c < from->channels; c++)
        for (size_t y = 0; y < from->height; y++)
            memcpy(scratch + (c * rows + y + kernel / 2) * row + kernel / 2,
                   x + (c * from->height + y) * from->width, from->width * sizeof *x);
}

//  One tile: `in` is its upper left corner in the first bordered channel plane.
static void sum_tile(const luna_conv *conv, const float *in, const lanes *weight,
                     lanes sums[TILE])
{
    const size_t row = row_of(&conv->from, conv->kernel);
    const size_t plane = row * (conv->from.height + conv->kernel - 1);
    lanes a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (size_t channel = 0; channel < conv->from.channels; channel++, in += plane)
        for (size_t ky = 0; ky < conv->kernel; ky++)
            for (size_t kx = 0; kx < conv->kernel; kx++, weight++) {
                const float *at = in + ky * row + kx;
                a += *weight * at[0];
                b += *weight * at[1];
                c += *weight * at[2];
                d += *weight * at[3];
            }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

static void store_tile(const luna_conv *conv, const lanes sums[TILE], size_t group,
                       float *out, size_t columns)
{
    const size_t area = conv->from.height * conv->from.width;
    for (size_t i = 0; i < LANES && group * LANES + i < conv->channels; i++)
        for (size_t p = 0; p < columns; p++)
            out[(group * LANES + i) * area + p] = sums[p][i];
}

//  Every partial sum starts at its channel's bias.
static void start_tile(const luna_conv *conv, size_t group, lanes sums[TILE])
{
    lanes bias = {0};
    for (size_t i = 0; conv->bias && i < LANES && group * LANES + i < conv->channels; i++)
        bias[i] = conv->bias[group * LANES + i];
    for (size_t p = 0; p < TILE; p++) sums[p] = bias;
}

//  One row of one group of result channels.
static void run_row(const luna_conv *conv, const float *scratch, size_t group, size_t y,
                    float *out)
{
    const size_t width = conv->from.width;
    const size_t taps = conv->from.channels * conv->kernel * conv->kernel;
    const lanes *weight = (const lanes *)(const void *)conv->weight + group * taps;
    for (size_t x = 0; x < width; x += TILE) {
        lanes sums[TILE];
        start_tile(conv, group, sums);
        sum_tile(conv, scratch + y * row_of(&conv->from, conv->kernel) + x, weight, sums);
        store_tile(conv, sums, group, out + y * width + x,
                   width - x < TILE ? width - x : TILE);
    }
}

void luna_conv_run(const luna_conv *conv, const float *x, float *scratch, float *out)
{
    add_border(&conv->from, conv->kernel, x, scratch);
    for (size_t y = 0; y < conv->from.height; y++)
        for (size_t group = 0; group < groups_of(conv->channels); group++)
            run_row(conv, scratch, group, y, out);
}
