//  group_norm.h - group normalisation of one image, for CPU backends

#ifndef LUNA_DECODER_VAE_GROUP_NORM_H
#define LUNA_DECODER_VAE_GROUP_NORM_H

#include <stddef.h>

//  Channels lie in blocks of `block`: value (c, p) is at
//  [(c / block) * pixels + p] * block + c % block. So block 1 is planar [C, H, W], block
//  C interleaved [H, W, C]; what is past the last channel of the last block is left
//  alone.
typedef struct luna_group_norm {
    size_t channels;
    size_t groups;  //  divides channels
    size_t pixels;
    size_t block;
    float epsilon;
    const float *weight;  //  [channels]
    const float *bias;
} luna_group_norm;

//  out = (x - mean) / sqrt(variance + epsilon) * weight + bias with mean and variance
//  over a group's channels and all pixels, in double and in two passes: no cancellation
//  however large the mean, and the same result on every run. `out` may be `x`.
void luna_group_norm_run(const luna_group_norm *norm, const float *x, float *out);

#endif
