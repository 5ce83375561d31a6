//  random_model.h - decoders with seeded random weights, as safetensors images in memory
//
//  So that a speed can be measured, and a device tried out, without anyone's model.

#ifndef LUNA_DECODER_VAE_RANDOM_MODEL_H
#define LUNA_DECODER_VAE_RANDOM_MODEL_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

//  The smallest KL decoder that has every part of a large one, wide enough for a GPU's
//  fused convolution in each of its forms, and narrow enough for the library's.
#define LUNA_RANDOM_TINY "tiny"

//  A decoder of the family, "sd", "sdxl", "flux" or "taesd" in full size and topology, or
//  LUNA_RANDOM_TINY. The same bytes on every machine. The caller frees *data. LUNA_USAGE
//  for another family, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_random_model(const char *family, void **data, size_t *len);

//  Uniform in (-1, 1), the same sequence from the same *seed on every machine.
float luna_random_float(uint64_t *seed);

#endif
