//  encoders.h - one function for each format; luna_image_encode calls them
//
//  Pixels and options were checked. *out is malloc'd; it and *out_len are set on success
//  only. LUNA_BAD_REQUEST: compression or quality out of range. LUNA_NO_MEMORY.
//  LUNA_INTERNAL with the library's own words. Thread-safe.

#ifndef LUNA_IMAGE_ENCODERS_H
#define LUNA_IMAGE_ENCODERS_H

#include "decoder/image/encode.h"

//  Signature, IHDR, IDAT and IEND: nothing else. Rows are filtered by the PNG
//  specification's heuristic (12.7), compressed by libdeflate.
LUNA_MUST_USE luna_err luna_encode_png(const luna_pixels *pixels,
                                       const luna_encode_options *options, uint8_t **out,
                                       size_t *out_len);

//  By libjpeg-turbo: baseline, Huffman tables of the standard.
LUNA_MUST_USE luna_err luna_encode_jpeg(const luna_pixels *pixels,
                                        const luna_encode_options *options, uint8_t **out,
                                        size_t *out_len);

//  By libvips and libwebp.
LUNA_MUST_USE luna_err luna_encode_webp(const luna_pixels *pixels,
                                        const luna_encode_options *options, uint8_t **out,
                                        size_t *out_len);

//  By libvips: AVIF with libheif and libaom, JPEG XL with libjxl. Only when
//  luna_image_can says so.
LUNA_MUST_USE luna_err luna_encode_avif(const luna_pixels *pixels,
                                        const luna_encode_options *options, uint8_t **out,
                                        size_t *out_len);
LUNA_MUST_USE luna_err luna_encode_jxl(const luna_pixels *pixels,
                                       const luna_encode_options *options, uint8_t **out,
                                       size_t *out_len);

//  LUNA_BAD_REQUEST when lossy_quality is out of range.
LUNA_MUST_USE luna_err luna_encode_check_quality(const luna_encode_options *options);

#endif
