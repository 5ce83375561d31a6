//  encode_vips.h - what the formats that libvips writes have in common

#ifndef LUNA_IMAGE_ENCODE_VIPS_H
#define LUNA_IMAGE_ENCODE_VIPS_H

#include "decoder/image/encoders.h"

#include <vips/vips.h>

//  One of libvips' savers with the options it takes: 0, and *file from g_malloc, or -1.
typedef int luna_vips_save(VipsImage *image, const luna_encode_options *options,
                           void **file, size_t *len);

//  Encodes as encoders.h says.
LUNA_MUST_USE luna_err luna_vips_encode(const luna_pixels *pixels,
                                        const luna_encode_options *options,
                                        luna_vips_save *save, uint8_t **out,
                                        size_t *out_len);

#endif
