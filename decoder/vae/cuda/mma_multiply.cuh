//  mma_multiply.cuh - the portable fused convolution: one tap's products

#ifndef LUNA_DECODER_VAE_CUDA_MMA_MULTIPLY_CUH
#define LUNA_DECODER_VAE_CUDA_MMA_MULTIPLY_CUH

#include "decoder/vae/cuda/mma_shared.cuh"
#include "decoder/vae/cuda/tensor.cuh"

//  A warp's sums: of each of its rows of pixels, 32 channels in four columns of eight.
typedef float warp_sums[ROWS_A_WARP][4][4];

//  A warp's place in the tile.
struct warp_place {
    int row, channel;
};

__device__ __forceinline__ warp_place warp_of(int thread)
{
    const int warp = thread / 32;
    return warp_place{warp % WARPS_DOWN * ROWS_A_WARP, warp / WARPS_DOWN * GROUP_WIDTH};
}

//  The second 16 channels of a slice lie where bit 5 of the first 16's place is changed.
enum { SECOND_16 = 32 };

//  32 channels of the result by the slice's 32: [k][column][register]. Of rows 16 apart
//  the exchange is the same.
__device__ __forceinline__ void load_weights(uint32_t (&b)[2][4][2], uint32_t first)
{
#pragma unroll
    for (int k = 0; k < 2; k++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t m[4];
            load_matrices(m, (first ^ k * SECOND_16) + j * 16 * SLICE_BYTES);
            b[k][2 * j][0] = m[0];
            b[k][2 * j][1] = m[1];
            b[k][2 * j + 1][0] = m[2];
            b[k][2 * j + 1][1] = m[3];
        }
}

//  Where this lane's row of the first matrices of weights is in their room.
__device__ __forceinline__ int lane_weight(int channel, int lane)
{
    return slice_at(channel + lane / 16 * 8 + lane % 8, lane / 8 % 2);
}

//  16 pixels of a row by the slice's 32 channels.
__device__ __forceinline__ void load_pixels(uint32_t (&a)[2][4], uint32_t first)
{
#pragma unroll
    for (int k = 0; k < 2; k++) load_matrices(a[k], first ^ k * SECOND_16);
}

//  Where this lane's pixel of a row of the slab is, from its column `column` on.
__device__ __forceinline__ int lane_pixel(int column, int lane)
{
    return slice_at(column + lane % 16, lane / 16);
}

//  HALF: 32 products are summed in 16 bits, then added in 32. Cards for games take half
//  the time for it.
template <typename T, bool HALF>
struct summing {
    static __device__ __forceinline__ void add(float (&sum)[4], const uint32_t (&a)[2][4],
                                               const uint32_t *b0, const uint32_t *b1)
    {
        product(sum, a[0], b0, T());
        product(sum, a[1], b1, T());
    }
};

template <>
struct summing<__half, true> {
    static __device__ __forceinline__ void add(float (&sum)[4], const uint32_t (&a)[2][4],
                                               const uint32_t *b0, const uint32_t *b1)
    {
        uint32_t part[2] = {0, 0};
        product_16(part, a[0], b0);
        product_16(part, a[1], b1);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            __half2 two;
            memcpy(&two, &part[i], 4);
            const float2 f = widen(two);
            sum[2 * i] += f.x;
            sum[2 * i + 1] += f.y;
        }
    }
};

//  pixels: this lane's first, of the warp's first row, as the tap meets it. weight: its
//  row of the weights.
template <typename T, bool HALF>
__device__ __forceinline__ void multiply_tap(warp_sums &sums, uint32_t pixels,
                                             uint32_t weight)
{
    uint32_t b[2][4][2];
    load_weights(b, weight);
#pragma unroll
    for (int row = 0; row < ROWS_A_WARP; row++) {
        uint32_t a[2][4];
        load_pixels(a, pixels + row * SLAB_ROW_BYTES);
#pragma unroll
        for (int j = 0; j < 4; j++)
            summing<T, HALF>::add(sums[row][j], a, b[0][j], b[1][j]);
    }
}

#endif
