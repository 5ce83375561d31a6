//  lanes.h - a card made of lanes: the portable kernels on a processor, for machines
//  without a GPU
//
//  Stands before every translated kernel file (`translate`). Each thread of a block is a
//  fiber; which of those that can go on goes on is drawn by lot, and a warp may get far
//  ahead, so that a barrier that is missing shows, sooner or later, as a wrong result.
//  Blocks run one after the other. What a kernel asks to have copied is there when it
//  waits for it, not before. Single instructions of the card are in tensor.cuh,
//  copies.cuh and special.cuh beside this file, which stand in for those of
//  decoder/vae/cuda.

#ifndef LUNA_TESTS_GPU_LANES_H
#define LUNA_TESTS_GPU_LANES_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __launch_bounds__
#undef __shared__
#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__    static
#define __CUDA_ARCH__ 800  //  only now: CUDA's own headers are the host's

#define threadIdx lanes::here.thread
#define blockIdx  lanes::here.block
#define blockDim  lanes::here.block_size
#define gridDim   lanes::here.grid_size

namespace lanes {

enum { WARP = 32, SLOT_BYTES = 64, WINDOW_BYTES = 228 * 1024 };

//  Of the fiber that runs.
struct place {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern place here;

//  Shared memory of the block that runs; its dynamic part starts at 0.
extern unsigned char window[WINDOW_BYTES];

void sync_block();
void sync_warp();

//  What every lane of the warp has put in here, SLOT_BYTES each; good until the lane's
//  next but one.
const unsigned char *put(const void *mine, size_t bytes);

template <typename T>
T of_lane(T mine, int lane)
{
    T other;
    memcpy(&other, put(&mine, sizeof mine) + lane * SLOT_BYTES, sizeof other);
    return other;
}

void ask_for_copy(unsigned char *to, const void *from, size_t bytes, bool there);
void wait_for_copies();

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel);

template <typename... P>
struct launcher {
    void (*kernel)(P...);
    dim3 grid, block;
    size_t shared_bytes;

    template <typename... A>
    void operator()(A... args) const
    {
        run(grid, block, shared_bytes, [&] { kernel(static_cast<P>(args)...); });
    }
};

template <typename... P>
launcher<P...> launch(void (*kernel)(P...), dim3 grid, dim3 block,
                      size_t shared_bytes = 0, cudaStream_t = NULL)
{
    return launcher<P...>{kernel, grid, block, shared_bytes};
}

}  //  namespace lanes

using std::isfinite;
#define __expf expf

template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*)(P...), cudaFuncAttribute, int)
{
    return cudaSuccess;
}

static inline void __syncthreads()
{
    lanes::sync_block();
}
static inline void __syncwarp(unsigned = 0xffffffffu)
{
    lanes::sync_warp();
}
template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int bit)
{
    return lanes::of_lane(value, (int)threadIdx.x % lanes::WARP ^ bit);
}
template <typename T>
static inline T __shfl_up_sync(unsigned, T value, int by)
{
    const int lane = (int)threadIdx.x % lanes::WARP;
    return lanes::of_lane(value, lane < by ? lane : lane - by);
}
template <typename T>
static inline T __ldg(const T *from)
{
    return *from;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline unsigned atomicMax(unsigned *at, unsigned value)
{
    const unsigned before = *at;
    if (value > before) *at = value;
    return before;
}
static inline void __trap()
{
    abort();
}
static inline int min(int a, int b)
{
    return a < b ? a : b;
}
static inline int max(int a, int b)
{
    return a > b ? a : b;
}

#endif
