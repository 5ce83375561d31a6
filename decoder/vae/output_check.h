//  output_check.h - a picture that is none, and why

#ifndef LUNA_DECODER_VAE_OUTPUT_CHECK_H
#define LUNA_DECODER_VAE_OUTPUT_CHECK_H

#include "decoder/vae/graph.h"
#include "decoder/vae/vae.h"

typedef struct luna_output {
    const float *values;  //  [channels, height, width]
    const luna_vae_shape *shape;
    size_t image;  //  of the batch
} luna_output;

//  LUNA_OVERFLOW when values are NaN or infinite: how many, where the first is, and why:
//  a weight that is so itself, by its name; else a precision too narrow; else, in fp32,
//  latents far from any of this model's. The weights are looked at then only.
LUNA_MUST_USE luna_err luna_output_check(const luna_output *output,
                                         const luna_weights *weights,
                                         luna_vae_precision precision);

//  Adds the why to the latest sentence, of a backend that only saw that values are not
//  finite. LUNA_OVERFLOW.
LUNA_MUST_USE luna_err luna_output_explain(const luna_weights *weights,
                                           luna_vae_precision precision);

#endif
