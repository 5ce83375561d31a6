//  vae_test.h - shared by the engine's tests: data, random numbers, distances

#ifndef LUNA_TESTS_UNIT_VAE_VAE_TEST_H
#define LUNA_TESTS_UNIT_VAE_VAE_TEST_H

#include "common/file.h"
#include "common/safetensors.h"
#include "decoder/vae/vae.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline const char *data_path(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("LUNA_TEST_DATA"), name);
    return path;
}

//  Uniform in (-1, 1).
static inline float random_float(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (float)((int32_t)(*seed >> 32)) * 0x1p-31F;
}

static inline float *random_floats(uint64_t *seed, size_t count)
{
    float *values = malloc((count ? count : 1) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) values[i] = random_float(seed);
    return values;
}

//  Against a peak of 1; both planar and of `count` values.
static inline double psnr(const float *a, const float *b, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum == 0.0 ? (double)INFINITY : 10.0 * log10((double)count / sum);
}

static inline luna_vae *open_taef2(const char *device)
{
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = device;
    if (luna_vae_open(data_path("taef2_decoder.safetensors"), &options, &vae) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return vae;
}

#endif
