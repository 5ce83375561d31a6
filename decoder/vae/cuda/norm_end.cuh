//  norm_end.cuh - a group norm's end: from the moments of a group's parts, each of them
//  with its own mean, to the pairs that gpu_apply takes
//
//  One block a group. A thread sums up its parts' distances from the first of them: no
//  cancellation, however far the mean is from zero, and nothing but floats, for many
//  cards have few units for double. The threads' sums are merged in double, in an order
//  that depends on nothing (as Chan, Golub and LeVeque, "Updating formulae and a pairwise
//  algorithm for computing sample variances", 1979).

#ifndef LUNA_DECODER_VAE_CUDA_NORM_END_CUH
#define LUNA_DECODER_VAE_CUDA_NORM_END_CUH

#include "decoder/vae/cuda/kernels.h"

typedef gpu_moments moments;

//  What the end of a norm is given.
struct group_work {
    int groups;
    int width;    //  channels of a group
    int room;     //  pairs to leave, those of the channels and zeros
    float share;  //  1 / channels of a part
    double each;  //  1 / pixels of a group's parts
    float epsilon;
    const float *weight, *bias, *pending;
    gpu_pair *pairs;
};

//  `part_channels`: of which one part is, a group's or fewer.
static inline group_work group_work_of(const gpu_norm *norm, int part_channels,
                                       gpu_pair *pairs)
{
    const int width = norm->from.channels / norm->groups;
    const double pixels = (double)gpu_pixels(&norm->from) * (width / part_channels);
    group_work work = {};
    work.groups = norm->groups;
    work.width = width;
    work.room = (int)gpu_room((size_t)norm->from.channels);
    work.share = 1.0F / (float)part_channels;
    work.each = 1.0 / pixels;
    work.epsilon = norm->epsilon;
    work.weight = norm->weight;
    work.bias = norm->bias;
    work.pending = norm->pending;
    work.pairs = pairs;
    return work;
}

//  Some parts of a group, by pixels: the distances of their means from the first one's,
//  and the squares about that one, of the mean channel.
struct distances {
    float pivot, pixels, sum, squares;
};

//  Pixels, not values, are counted: a float holds them.
__device__ __forceinline__ void add_part(distances &d, const moments &part, float pixels,
                                         float share)
{
    if (d.pixels == 0.0F) d.pivot = part.mean;
    const float off = part.mean - d.pivot;
    d.pixels += pixels;
    d.sum = fmaf(pixels, off, d.sum);
    d.squares += fmaf(pixels * off, off, part.squares * share);
}

//  Sums of values and of their squares, of the mean channel.
struct totals {
    double sum, squares;
};

__device__ __forceinline__ totals totals_of(const distances &d)
{
    if (d.pixels == 0.0F) return totals{0.0, 0.0};
    const float off = d.sum / d.pixels;
    const double mean = (double)d.pivot + off, pixels = d.pixels;
    return totals{pixels * mean, fmaf(-d.sum, off, d.squares) + pixels * mean * mean};
}

__device__ __forceinline__ totals sum_of_warp(totals t)
{
#pragma unroll
    for (int off = 16; off > 0; off /= 2) {
        t.sum += __shfl_xor_sync(0xffffffffu, t.sum, off);
        t.squares += __shfl_xor_sync(0xffffffffu, t.squares, off);
    }
    return t;
}

//  The sums over the block's threads, for the first warp.
template <int THREADS>
__device__ __forceinline__ totals sum_of_block(totals t)
{
    constexpr int WARPS = THREADS / 32;
    __shared__ totals part[WARPS];
    t = sum_of_warp(t);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = t;
    __syncthreads();
    if (threadIdx.x >= 32) return t;
    return sum_of_warp(threadIdx.x < WARPS ? part[threadIdx.x] : totals{0.0, 0.0});
}

//  The pairs of group g from what its block's threads have summed. A variance that is no
//  number makes pairs that are none: it must be seen at the end, not hidden.
template <int THREADS>
__device__ __forceinline__ void leave_pairs(const distances &mine, int g,
                                            const group_work &work)
{
    const totals all = sum_of_block<THREADS>(totals_of(mine));
    if (threadIdx.x >= 32) return;
    const double mean = all.sum * work.each;
    const double variance = all.squares * work.each - mean * mean;
    const float spread = sqrtf(fmaxf((float)variance, 0.0F) + work.epsilon);
    const float scale = isfinite(variance) ? 1.0F / spread : NAN;
    for (int i = threadIdx.x; i < work.width; i += 32) {
        const int c = g * work.width + i;
        const double before = work.pending ? work.pending[c] : 0.0F;
        const float to = scale * work.weight[c];
        work.pairs[c] = gpu_pair{to, (float)(work.bias[c] + (before - mean) * to)};
    }
    //  Channels that are only room.
    for (int c = work.groups * work.width + threadIdx.x; g == 0 && c < work.room; c += 32)
        work.pairs[c] = gpu_pair{0.0F, 0.0F};
}

#endif
