//  conv_plain.h - convolution on planar float in plain C

#ifndef LUNA_DECODER_VAE_CONV_PLAIN_H
#define LUNA_DECODER_VAE_CONV_PLAIN_H

#include "decoder/vae/graph.h"

typedef struct luna_conv {
    luna_shape from;      //  of the input
    size_t channels;      //  of the result
    size_t kernel;        //  odd; stride 1, kernel / 2 zeros around
    const float *weight;  //  as luna_conv_pack leaves it
    const float *bias;    //  [channels] or NULL
} luna_conv;

//  Floats that the packed weights take.
size_t luna_conv_packed_count(size_t channels, size_t from_channels, size_t kernel);

//  From the file's [out, in, kernel, kernel] to [out / 8][in][kernel][kernel][8], the
//  last group filled up with zeros. `packed` must be aligned to 32 bytes.
void luna_conv_pack(const float *weight, size_t channels, size_t from_channels,
                    size_t kernel, float *packed);

//  Floats of working memory that a run needs: the input with its border of zeros.
size_t luna_conv_scratch_count(const luna_shape *from, size_t kernel);

//  `scratch` and `out` must not overlap `x`.
void luna_conv_run(const luna_conv *conv, const float *x, float *scratch, float *out);

#endif
