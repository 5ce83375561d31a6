//  elementwise.h - the simple operators on planar float, for CPU backends

#ifndef LUNA_DECODER_VAE_ELEMENTWISE_H
#define LUNA_DECODER_VAE_ELEMENTWISE_H

#include "decoder/vae/graph.h"

//  RELU, SILU, TANH_CLAMP, AFFINE. `out` may be `x`.
void luna_elementwise_run(const luna_node *node, const float *x, size_t count,
                          float *out);

//  UNPACK and UPSAMPLE: [channels, height, width] of the result, planar.
void luna_unpack_run(const luna_shape *result, const float *x, float *out);
void luna_upsample_run(const luna_shape *result, const float *x, float *out);

#endif
