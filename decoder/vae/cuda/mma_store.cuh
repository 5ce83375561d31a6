//  mma_store.cuh - the portable fused convolution: what happens to the sums

#ifndef LUNA_DECODER_VAE_CUDA_MMA_STORE_CUH
#define LUNA_DECODER_VAE_CUDA_MMA_STORE_CUH

#include "decoder/vae/cuda/mma_multiply.cuh"
#include "decoder/vae/cuda/spread.cuh"

//  A lane's eight channels of a pixel: column 8 j + 2 q + e is channel 8 q + 2 j + e.
__device__ __forceinline__ void gather(const float (&sums)[4][4], int low,
                                       const float (&bias)[LANES], float (&v)[LANES])
{
#pragma unroll
    for (int k = 0; k < LANES; k++) v[k] = sums[k / 2][2 * low + k % 2] + bias[k];
}

template <typename T>
__device__ __forceinline__ void store_vector(const fused_work<T> &work, size_t at,
                                             float (&v)[LANES], spread (&sums)[2])
{
    vector<T> out;
    if (work.residual) {
        float more[LANES];
        load8(work.residual + at, more);
#pragma unroll
        for (int k = 0; k < LANES; k++) v[k] += more[k];
    }
    out.from(v);
    out.write(work.y + at);
    out.to(v);
    add_four(sums[0], v);
    add_four(sums[1], v + 4);
}

//  A value of the result: pixel (y, x) of x, folded one of its four.
template <typename T, int TAPS>
__device__ __forceinline__ size_t result_at(const fused_work<T> &work,
                                            const tile_place &at, int y, int x,
                                            int channel)
{
    const int grow = TAPS == 9 ? 1 : 2;
    const size_t row = (size_t)grow * y + at.row, column = (size_t)grow * x + at.column;
    return (row * grow * work.width + column) * work.to_channels + channel;
}

template <typename T, int TAPS>
__device__ __forceinline__ void store_sums(const fused_work<T> &work,
                                           const tile_place &at, const warp_place &warp,
                                           const warp_sums &sums, int lane,
                                           spread (&spreads)[2])
{
    const int channel = at.channel + warp.channel + lane % 4 * LANES;
    float bias[LANES];
#pragma unroll
    for (int k = 0; k < LANES; k++) bias[k] = __ldg(work.bias + channel + k);
#pragma unroll
    for (int row = 0; row < ROWS_A_WARP; row++)
#pragma unroll
        for (int low = 0; low < 2; low++) {
            const int y = at.y + warp.row + row, x = at.x + lane / 4 + 8 * low;
            float v[LANES];
            if (y >= work.height || x >= work.width) continue;
            gather(sums[row], low, bias, v);
            store_vector(work, result_at<T, TAPS>(work, at, y, x, channel), v, spreads);
        }
}

//  Those of the warps one below the other, always in the same order.
template <typename T>
__device__ __forceinline__ void leave_moments(const fused_work<T> &work,
                                              const tile_place &at,
                                              const warp_place &warp,
                                              const spread (&spreads)[2], int lane,
                                              counted (&all)[WARPS_DOWN][RUNS])
{
    const int run = (warp.channel + lane % 4 * LANES) / GPU_PART_CHANNELS;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        counted mine = counted_of(spreads[i]);
        for (int bit = 4; bit < 32; bit *= 2) mine = merge_lanes(mine, bit, lane);
        if (lane < 4) all[warp.row / ROWS_A_WARP][run + i] = mine;
    }
    __syncthreads();
    if (threadIdx.x >= RUNS) return;
    counted sum = {0.0F, 0.0F, 0.0F};
    for (int w = 0; w < WARPS_DOWN; w++) sum = merge(sum, all[w][threadIdx.x]);
    work.parts[(size_t)at.part * (work.to_channels / GPU_PART_CHANNELS) +
               at.channel / GPU_PART_CHANNELS + threadIdx.x] =
        moments{sum.mean, sum.squares};
}

#endif
