//  latents.h - looking at latents before they cost anything

#ifndef LUNA_DECODER_VAE_LATENTS_H
#define LUNA_DECODER_VAE_LATENTS_H

#include "decoder/vae/vae.h"

//  LUNA_BAD_LATENT when images first .. first + count - 1 hold values that are NaN or
//  infinite as float: the sentence tells how many and the place of the first.
LUNA_MUST_USE luna_err luna_latents_check(const luna_vae_latents *latents, size_t first,
                                          size_t count);

//  Image `index` as float [channels, height, width].
LUNA_MUST_USE luna_err luna_latents_read(const luna_vae_latents *latents, size_t index,
                                         float *out);

//  How many of `count` values are NaN or infinite; *first is the first one's index.
size_t luna_count_not_finite(const float *values, size_t count, size_t *first);

#endif
