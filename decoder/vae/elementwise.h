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

//  RMS_NORM and BATCH_NORM_INVERSE on [channels, height, width], planar; weight and bias
//  are [channels]. `out` may be `x`.
void luna_rms_norm_run(const luna_shape *shape, float epsilon, const float *weight,
                       const float *x, float *out);
void luna_batch_norm_inverse_run(const luna_shape *shape, float epsilon,
                                 const float *weight, const float *bias, const float *x,
                                 float *out);

#endif
