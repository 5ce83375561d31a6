//  quality.h - does a picture show anything? The quality gate's two measures
//
//  Both are 0 for an even area and at most 1, of the luma 0.299 R + 0.587 G + 0.114 B:
//    variance      its variance on the scale 0 to 255, over 3000; pictures have 2000 to
//                  8000, blank ones next to none
//    edge density  the mean difference of neighbours, across and down, on the scale 0 to
//                  1, over 0.05; detailed pictures have 0.02 to 0.08, blurred ones 0.005
//  Formula source: Luna Multi Saver, which meant these scales (it compared 0 to 1 pixels
//  with the first one, so that every picture was rejected). Pure; thread-safe.

#ifndef LUNA_IMAGE_QUALITY_H
#define LUNA_IMAGE_QUALITY_H

#include "decoder/image/encode.h"

typedef struct luna_quality {
    double variance;
    double edge_density;
} luna_quality;

//  Measures RGB or RGBA pixels, of 16 bits the upper 8; alpha does not count. About 5 ms
//  a megapixel.
luna_quality luna_image_quality(const luna_pixels *pixels);

#endif
