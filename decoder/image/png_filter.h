//  png_filter.h - PNG's filters over whole pictures
//
//  Formula source: PNG (third edition), section 9; the choice by row: section 12.7. Pure;
//  thread-safe. The Makefile compiles this file with -O3: its loops become vectors.

#ifndef LUNA_IMAGE_PNG_FILTER_H
#define LUNA_IMAGE_PNG_FILTER_H

#include "decoder/image/encode.h"

typedef enum luna_png_filtering {
    LUNA_PNG_UNFILTERED,
    LUNA_PNG_BY_ROW  //  of all five the one whose bytes, signed, have the least sum
} luna_png_filtering;

//  Bytes of the filtered rows, a filter byte before each.
size_t luna_png_filtered_bytes(const luna_pixels *pixels);

//  Writes them to `out`. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_png_filter(const luna_pixels *pixels, luna_png_filtering how,
                                       uint8_t *out);

#endif
