//  wgmma_store.cuh - the fused convolution's warps that store

#ifndef LUNA_DECODER_VAE_CUDA_WGMMA_STORE_CUH
#define LUNA_DECODER_VAE_CUDA_WGMMA_STORE_CUH

#include "decoder/vae/cuda/spread.cuh"
#include "decoder/vae/cuda/wgmma_shared.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

//  A half tile's place in the result.
struct half_place {
    size_t first;               //  value of its first pixel
    int row_step, column_step;  //  from pixel to pixel of x
    int rows, columns;          //  that are in the picture
};

template <typename T, int TAPS>
__device__ __forceinline__ half_place half_of(const fused_work<T> &work,
                                              const tile_place &at, int half)
{
    const int grow = TAPS == 9 ? 1 : 2, y = at.y + 8 * half;
    const int width = grow * work.width;
    half_place h;
    h.first = ((size_t)(grow * y + at.row) * width + grow * at.x + at.column) *
                  work.to_channels +
              at.channel;
    h.row_step = grow * width * work.to_channels;
    h.column_step = grow * work.to_channels;
    h.rows = work.height - y;
    h.columns = work.width - at.x;
    return h;
}

//  A storer has eight channels of every fourth pixel.
enum { PIXELS_A_STORE = STORERS / VECTORS };

template <typename T>
__device__ __forceinline__ void store_half(const fused_work<T> &work, shared_memory &s,
                                           const half_place &h, int half, int thread,
                                           spread (&sums)[2])
{
    const int v = thread % VECTORS, first = thread / VECTORS;
    T *to = work.y + h.first + v * LANES + first * h.column_step;
    const unsigned char *from = s.result[half] + result_at(first, v);
#pragma unroll 1
    for (int row = 0; row < 8 && row < h.rows; row++, to += h.row_step) {
#pragma unroll
        for (int x = 0; x < SIDE;
             x += PIXELS_A_STORE, from += PIXELS_A_STORE * VECTORS * 16) {
            vector<T> out;
            float value[LANES];
            if (first + x >= h.columns) continue;
            out.at = *reinterpret_cast<const words *>(from);
            out.write(to + x * h.column_step);
            out.to(value);
            add_four(sums[0], value);
            add_four(sums[1], value + 4);
        }
    }
}

template <typename T>
__device__ __forceinline__ void ask_for_residual(const fused_work<T> &work,
                                                 shared_memory &s, const half_place &h,
                                                 int half, int thread)
{
    const int v = thread % VECTORS, first = thread / VECTORS;
    const T *from = work.residual + h.first + v * LANES + first * h.column_step;
    uint32_t to = shared_address(s.result[half]) + result_at(first, v);
#pragma unroll 1
    for (int row = 0; row < 8; row++, from += h.row_step) {
#pragma unroll
        for (int x = 0; x < SIDE;
             x += PIXELS_A_STORE, to += PIXELS_A_STORE * VECTORS * 16) {
            const bool is = row < h.rows && first + x < h.columns;
            copy_16(to, is ? from + x * h.column_step : work.residual, is);
        }
    }
}

//  The four storers of the same channels to one part, always in the same order.
template <typename T>
__device__ __forceinline__ void leave_moments(const fused_work<T> &work, shared_memory &s,
                                              const spread (&sums)[2],
                                              const tile_place &at, int thread)
{
    const int warp = thread / 32, lane = thread % 32;
    float count = 0.0F;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const counted mine = merge_lanes(counted_of(sums[i]), 16, lane);
        count = mine.count;
        if (lane < 16) s.parts[warp][2 * lane + i] = moments{mine.mean, mine.squares};
    }
    if (lane == 0) part_pixels(s)[warp] = count;
    asm volatile("bar.sync 1, 64;" ::: "memory");
    for (; thread < WIDTH / 4; thread += STORERS) {
        counted all = {0.0F, 0.0F, 0.0F};
        for (int w = 0; w < STORERS / 32; w++) {
            const moments m = s.parts[w][thread];
            all = merge(all, counted{m.mean, m.squares, part_pixels(s)[w]});
        }
        work.parts[(size_t)at.part * (work.to_channels / 4) + at.channel / 4 + thread] =
            moments{all.mean, all.squares};
    }
    asm volatile("bar.sync 1, 64;" ::: "memory");
}

template <typename T, int TAPS>
__device__ __forceinline__ void make_ready(const fused_work<T> &work, shared_memory &s,
                                           int tile, int half, int thread)
{
    if (work.residual && tile < work.tiles)
        ask_for_residual(work, s, half_of<T, TAPS>(work, place_of<WIDTH>(work, tile), half),
                         half, thread);
    copies_arrive(barrier_at(s, RESULT_EMPTY + half));
}

template <typename T, int TAPS>
__device__ void store_tiles(const fused_work<T> &work, shared_memory &s, int thread)
{
    uint32_t round = 0;
    for (int half = 0; half < 2; half++)
        make_ready<T, TAPS>(work, s, blockIdx.x, half, thread);
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x, round ^= 1) {
        const tile_place at = place_of<WIDTH>(work, t);
        spread sums[2] = {};
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            barrier_wait(barrier_at(s, RESULT_FULL + half), round);
            store_half(work, s, half_of<T, TAPS>(work, at, half), half, thread, sums);
            make_ready<T, TAPS>(work, s, t + (int)gridDim.x, half, thread);
        }
        if (work.parts) leave_moments(work, s, sums, at, thread);
    }
}

#endif

#endif
