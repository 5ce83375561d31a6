//  selftest.h - a decode whose result is known, before a device is trusted with pictures
//
//  Two random pictures of a tiny decoder that has every part of a large one, on the
//  device and in plain C. On a GPU every kind of kernel takes its part, the fused ones
//  too, which are otherwise for large pictures (luna_vae_options.trial). It finds: a
//  driver or libraries that do not go with each other or with the card, kernels that are
//  not in this build, memory or arithmetic that gives something else than it should, or
//  something else each time. What it costs beside the loading of the device's libraries:
//  about 0.1 s.

#ifndef LUNA_DECODER_VAE_SELFTEST_H
#define LUNA_DECODER_VAE_SELFTEST_H

#include "decoder/vae/vae.h"

//  Latents of its pictures: low, for plain C does them too; wider at the end than a tile
//  of the fused convolution.
enum { LUNA_SELFTEST_HEIGHT = 2, LUNA_SELFTEST_WIDTH = 9 };

typedef struct luna_selftest_result {
    double distance_db;  //  of the pixels from plain C's; infinite when they are equal
    double needed_db;
    double open_ms;    //  libraries, driver, handles
    double decode_ms;  //  plans, weights, the first decode
    double again_ms;   //  the same once more
} luna_selftest_result;

//  LUNA_DEVICE when the pixels are wrong or not the same each time, or the device failed;
//  LUNA_NO_MEMORY when it is full; what luna_vae_open says.
LUNA_MUST_USE luna_err luna_selftest(const char *device, luna_vae_precision precision,
                                     luna_selftest_result *out);

#endif
