//  timing.h - trying out in the arena which of several ways is the fastest

#ifndef LUNA_DECODER_VAE_CUDA_TIMING_H
#define LUNA_DECODER_VAE_CUDA_TIMING_H

#include "decoder/vae/cuda/gpu.h"

//  Takes of the arena what a trial needs, one after the other. Without a base it only
//  counts: the same calls say how large the arena must be.
typedef struct gpu_shelf {
    uint8_t *base;
    size_t used;
} gpu_shelf;

//  NULL when it only counts.
void *gpu_shelf_take(gpu_shelf *shelf, size_t bytes);

typedef struct gpu_clock {
    cudaEvent_t start;
    cudaEvent_t stop;
} gpu_clock;

LUNA_MUST_USE luna_err gpu_clock_open(gpu_clock *clock);
//  Also one that did not open, or all zeros.
void gpu_clock_close(gpu_clock *clock);

//  Starts the work on the device's stream once.
typedef luna_err gpu_work(const void *what);

//  *ms: of one of `runs` runs, one right behind the other.
LUNA_MUST_USE luna_err gpu_clock_runs(const gpu_device *device, const gpu_clock *clock,
                                      gpu_work *work, const void *what, int runs,
                                      float *ms);

#endif
