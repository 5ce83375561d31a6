//  pixels.h - from a decoder's own output to what a saver or a node wants
//
//  The steps and their order are ComfyUI's, in float, so that the bytes agree even where
//  a value falls exactly between two: a TAESD output is first brought to [-1, 1], every
//  output to [0, 1] by (x + 1) / 2, clamped, multiplied by 255 and cut off.

#ifndef LUNA_DECODER_VAE_PIXELS_H
#define LUNA_DECODER_VAE_PIXELS_H

#include "decoder/vae/vae.h"

typedef enum luna_pixels_range {
    LUNA_RANGE_SIGNED,  //  nominally [-1, 1]: KL, Wan
    LUNA_RANGE_UNIT     //  nominally [0, 1]: TAESD
} luna_pixels_range;

//  One value in [0, 1].
float luna_pixel_unit(float value, luna_pixels_range range);

//  One byte of a value in [0, 1].
uint8_t luna_pixel_byte(float unit, luna_pixels_rule rule);

//  One picture, planar float `from` of shape [channels, height, width], to `to` in the
//  target's format and rule; target->data and target->bytes are not looked at.
void luna_pixels_convert(const float *from, const luna_vae_shape *shape,
                         luna_pixels_range range, const luna_vae_target *target,
                         void *to);

#endif
