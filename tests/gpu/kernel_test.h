//  kernel_test.h - shared by the kernels' tests. Every kernel is held against its
//  definition in double, on fresh random input, in every type, with channel counts that
//  fill no vector and sizes that fill no tile.

#ifndef LUNA_TESTS_GPU_KERNEL_TEST_H
#define LUNA_TESTS_GPU_KERNEL_TEST_H

#include "gpu_test.h"

static const gpu_type types[] = {GPU_FP16, GPU_BF16, GPU_FP32};
static const char *const type_names[] = {"fp16", "bf16", "fp32"};

//  One value both ways: planar floats as the device holds them, rounded to its type.
typedef struct subject {
    gpu_extent extent;
    size_t count;   //  channels * pixels
    float *values;  //  planar
    void *device;
} subject;

static inline subject new_subject(gpu_type type, int channels, int height, int width,
                                  float spread, float centre)
{
    subject s = {.extent = {type, channels, height, width}};
    s.count = gpu_pixels(&s.extent) * (size_t)channels;
    float *planes = random_floats(s.count, spread, centre);
    float *there = to_device(planes, s.count * sizeof *planes);
    float *back = device_room(s.count * sizeof *planes);
    s.device = device_room(gpu_bytes(&s.extent));
    ok(gpu_from_planes(&s.extent, there, s.device, NULL));
    ok(gpu_to_planes(&s.extent, s.device, back, NULL));
    s.values = from_device(back, s.count);
    const double digits = type == GPU_FP32 ? 0.0 : type == GPU_FP16 ? 0x1p-11 : 0x1p-8;
    for (size_t i = 0; i < s.count; i++)
        if (!(fabs(s.values[i] - planes[i]) <= digits * fabs(planes[i]) + 1e-7))
            fail_msg("%s: %g came back as %g", type_names[type], (double)planes[i],
                     (double)s.values[i]);
    ok(cudaFree(there));
    ok(cudaFree(back));
    free(planes);
    return s;
}

static inline void free_subject(subject *s)
{
    ok(cudaFree(s->device));
    free(s->values);
}

static inline float *planes_of(const gpu_extent *e, const void *device)
{
    const size_t count = gpu_pixels(e) * (size_t)e->channels;
    float *planes = device_room(count * sizeof *planes);
    ok(gpu_to_planes(e, device, planes, NULL));
    float *values = from_device(planes, count);
    ok(cudaFree(planes));
    return values;
}

static inline double tolerance(gpu_type type)
{
    return type == GPU_FP32 ? 2e-5 : type == GPU_FP16 ? 1.5e-3 : 1.2e-2;
}

//  Within the type's rounding of the largest value.
static inline void compare(const char *what, const gpu_extent *e, const float *is,
                           const double *wanted)
{
    const size_t count = gpu_pixels(e) * (size_t)e->channels;
    double scale = 1.0;
    for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs(wanted[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)is[i] - wanted[i]) <= tolerance(e->type) * scale))
            fail_msg("%s %s %dx%dx%d: value %zu is %.7g, not %.7g", what,
                     type_names[e->type], e->channels, e->height, e->width, i,
                     (double)is[i], wanted[i]);
}

static inline void compare_device(const char *what, const gpu_extent *e,
                                  const void *device, const double *wanted)
{
    float *is = planes_of(e, device);
    compare(what, e, is, wanted);
    free(is);
}

static inline double *doubles(size_t count)
{
    double *values = calloc(count ? count : 1, sizeof *values);
    assert_non_null(values);
    return values;
}

//  What is only room must stay 0: the next convolution reads it.
static inline void check_room(const gpu_extent *e, const void *device)
{
    gpu_extent whole = *e;
    whole.channels = (int)gpu_room((size_t)e->channels);
    float *all = planes_of(&whole, device);
    const size_t pixels = gpu_pixels(e);
    for (size_t i = (size_t)e->channels * pixels; i < (size_t)whole.channels * pixels;
         i++)
        if (all[i] != 0.0F)
            fail_msg("room of channel %zu is %g", i / pixels, (double)all[i]);
    free(all);
}

static inline double act_of(gpu_act act, double x)
{
    if (act == GPU_RELU) return x > 0.0 ? x : 0.0;
    if (act == GPU_SILU) return x / (1.0 + exp(-x));
    return x;
}

static inline gpu_pair *random_pairs(int channels, gpu_pair **device)
{
    const size_t room = gpu_room((size_t)channels);
    gpu_pair *pairs = calloc(room, sizeof *pairs);
    assert_non_null(pairs);
    for (int c = 0; c < channels; c++)
        pairs[c] = (gpu_pair){random_float(), random_float()};
    *device = to_device(pairs, room * sizeof *pairs);
    return pairs;
}

//  x[pixel's neighbour] with zeros around.
static inline double tap(const float *x, const gpu_extent *e, int channel, int row,
                         int column)
{
    if (row < 0 || row >= e->height || column < 0 || column >= e->width) return 0.0;
    return x[((size_t)channel * (size_t)e->height + (size_t)row) * (size_t)e->width +
             (size_t)column];
}

static inline void conv_definition(const float *x, const gpu_extent *e,
                                   const float *weight, int out, int k, double *wanted)
{
    for (int o = 0; o < out; o++)
        for (int row = 0; row < e->height; row++)
            for (int column = 0; column < e->width; column++) {
                double sum = 0.0;
                for (int i = 0; i < e->channels; i++)
                    for (int t = 0; t < k * k; t++)
                        sum += (double)weight[(o * e->channels + i) * k * k + t] *
                               tap(x, e, i, row + t / k - k / 2, column + t % k - k / 2);
                *wanted++ = sum;
            }
}

//  A weight as the device holds it: rounded to its type.
static inline float *rounded_weight(gpu_type type, size_t count, float spread)
{
    subject w = new_subject(type, 1, 1, (int)count, spread, 0.0F);
    float *values = w.values;
    ok(cudaFree(w.device));
    return values;
}

#endif
