//  kernels.h - the arithmetic of the CPU backend, compiled once for each instruction set
//
//  Values lie in rows of pixels, a pixel's channels side by side and filled up with zeros
//  to a multiple of CPU_LANES; every pointer is aligned to 64 bytes. Each result is
//  summed in one fixed order that depends neither on how many pixels a call covers nor on
//  where they lie, so that a picture comes out the same to the bit however it is cut up.
//  (Another instruction set may round differently.)
//
//  3x3 convolutions are Winograd's F(4x4, 3x3): 4 x 4 results from 36 products instead of
//  144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). A
//  tile becomes CPU_POINTS values a channel, each point is a matrix product over the
//  channels.

#ifndef LUNA_DECODER_VAE_CPU_KERNELS_H
#define LUNA_DECODER_VAE_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    CPU_LANES = 16,   //  channels are filled up to a multiple of this
    CPU_PANEL = 32,   //  columns of a packed matrix that lie together
    CPU_TILE = 4,     //  results a side of a Winograd tile
    CPU_PATCH = 6,    //  inputs a side
    CPU_POINTS = 36,  //  CPU_PATCH squared
    CPU_RUN = 64      //  pixels that `moments` takes at once, at most
};

//  c[rows, columns] = a[rows, depth] b[depth, columns]. b lies in panels: column j of row
//  i at [j / CPU_PANEL * panel_stride + i * CPU_PANEL + j % CPU_PANEL].
typedef struct cpu_product {
    const float *a;
    size_t a_stride;  //  floats from row to row
    size_t rows;
    const float *b;
    size_t panel_stride;
    size_t depth;
    size_t columns;  //  a multiple of CPU_LANES
    float *c;
    size_t c_stride;
    bool add;  //  to what c holds
} cpu_product;

//  Where a tile of results goes.
typedef struct cpu_tile {
    const float *points;  //  point p of channel k at [p * point_stride + k]
    size_t point_stride;
    size_t channels;
    const float *bias;      //  [channels]
    const float *residual;  //  added; NULL: nothing. May be `out`.
    float *out;             //  the tile's first pixel
    size_t row_stride;      //  of residual and out
    size_t rows;            //  the picture may end inside the tile
    size_t columns;
} cpu_tile;

typedef struct cpu_kernels {
    const char *name;  //  of the instruction set
    void (*product)(const cpu_product *product);
    //  From a patch of CPU_PATCH rows to its points.
    void (*tile_in)(const float *patch, size_t row_stride, size_t channels, float *points,
                    size_t point_stride);
    void (*tile_out)(const cpu_tile *tile);
    //  The points of CPU_LANES filters for one input channel: tap t of filter i at
    //  [i * stride + t]. Filters past `count` are zero.
    void (*filter)(const float *taps, size_t stride, size_t count, float *points,
                   size_t point_stride);
    //  out = (x - shift) * scale + offset, each [channels]; then SiLU if asked for. `out`
    //  may be `x`.
    void (*scale)(const float *x, size_t pixels, size_t channels,
                  const float *coefficient, bool silu, float *out);
    void (*silu)(const float *x, size_t count, float *out);
    void (*relu)(const float *x, size_t count, float *out);
    void (*add)(const float *x, const float *y, size_t count, float *out);
    //  Every pixel becomes `bias`.
    void (*fill)(const float *bias, size_t pixels, size_t channels, float *out);
    //  Per channel the mean of at most CPU_RUN pixels and the sum of squared distances
    //  from it.
    void (*moments)(const float *x, size_t pixels, size_t channels, float *mean,
                    float *squares);
    //  Pixel by pixel: x * root / max(|x|, epsilon) * weight.
    void (*rms)(const float *x, size_t pixels, size_t channels, float root, float epsilon,
                const float *weight, float *out);
    //  One block of one row of scores: turns s into exp(s * scale - max) where max grows
    //  to the largest of this block and *max, adds their sum to *sum, and gives the
    //  factor that brings sums of earlier blocks to the new max.
    float (*softmax)(float *scores, size_t count, float scale, float *max, float *sum);
    void (*multiply)(float *x, size_t count, float factor);
} cpu_kernels;

extern const cpu_kernels cpu_kernels_plain;
extern const cpu_kernels cpu_kernels_avx2;
extern const cpu_kernels cpu_kernels_avx512;

//  The best this processor has, or the named one ("plain", "AVX2", "AVX-512") if it has
//  it; else NULL.
const cpu_kernels *cpu_kernels_find(const char *name);

//  `channels` filled up.
static inline size_t cpu_padded(size_t channels)
{
    return (channels + CPU_LANES - 1) / CPU_LANES * CPU_LANES;
}

//  Panels that `columns` take.
static inline size_t cpu_panels(size_t columns)
{
    return (columns + CPU_PANEL - 1) / CPU_PANEL;
}

#endif
