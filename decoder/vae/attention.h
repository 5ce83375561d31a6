//  attention.h - attention of one image in plain C

#ifndef LUNA_DECODER_VAE_ATTENTION_H
#define LUNA_DECODER_VAE_ATTENTION_H

#include <stddef.h>

//  q, k, v and out are planar, [channels, pixels]. `scratch` has room for `pixels`
//  floats: the weights of one pixel, made anew for each, so that memory does not grow
//  with the square of the picture. `out` must not overlap the rest.
typedef struct luna_attention {
    size_t channels;
    size_t pixels;
    const float *q;
    const float *k;
    const float *v;
} luna_attention;

void luna_attention_run(const luna_attention *attention, float *scratch, float *out);

//  Turns `count` scores into weights that sum to 1: exp(x - largest) over their sum.
void luna_softmax_run(float *values, size_t count);

#endif
