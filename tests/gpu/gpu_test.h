//  gpu_test.h - shared by the GPU's tests: random numbers, memory, distances

#ifndef LUNA_TESTS_GPU_GPU_TEST_H
#define LUNA_TESTS_GPU_GPU_TEST_H

#include "decoder/vae/cuda/gpu.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <cmocka.h>

static uint64_t seed;

static inline void fresh_seed(void)
{
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = 1;
    printf("seed %llu\n", (unsigned long long)seed);
}

//  Uniform in (-1, 1).
static inline float random_float(void)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (float)((int32_t)(seed >> 32)) * 0x1p-31F;
}

static inline size_t random_below(size_t most)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (size_t)(seed >> 33) % most;
}

static inline float *floats(size_t count)
{
    float *values = calloc(count ? count : 1, sizeof *values);
    assert_non_null(values);
    return values;
}

static inline float *random_floats(size_t count, float spread, float centre)
{
    float *values = floats(count);
    for (size_t i = 0; i < count; i++) values[i] = centre + spread * random_float();
    return values;
}

static inline void ok(cudaError_t error)
{
    if (error != cudaSuccess) fail_msg("%s", cudaGetErrorString(error));
}

//  Device memory that starts as NaN, so that what nobody wrote shows.
static inline void *device_room(size_t bytes)
{
    void *memory = NULL;
    ok(cudaMalloc(&memory, bytes));
    ok(cudaMemset(memory, 0xff, bytes));
    return memory;
}

static inline void *to_device(const void *data, size_t bytes)
{
    void *memory = device_room(bytes);
    ok(cudaMemcpy(memory, data, bytes, cudaMemcpyHostToDevice));
    return memory;
}

static inline float *from_device(const void *memory, size_t count)
{
    float *values = floats(count);
    ok(cudaDeviceSynchronize());
    ok(cudaMemcpy(values, memory, count * sizeof *values, cudaMemcpyDeviceToHost));
    return values;
}

#endif
