//  wgmma_multiply.cuh - the fused convolution's warps that multiply

#ifndef LUNA_DECODER_VAE_CUDA_WGMMA_MULTIPLY_CUH
#define LUNA_DECODER_VAE_CUDA_WGMMA_MULTIPLY_CUH

#include "decoder/vae/cuda/wgmma_shared.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

//  One tap: 64 channels of two squares of 8 x 8 pixels.
template <typename T>
__device__ __forceinline__ void multiply(float (&left)[64], float (&right)[64],
                                         uint32_t pixels, uint32_t weight, int add)
{
    const uint64_t a = matrix_at(pixels, HALO * ROW_BYTES);
    const uint64_t b = matrix_at(weight, 8 * ROW_BYTES);
#pragma unroll
    for (int k = 0; k < CHUNK / 16; k++) {  //  16 channels are 32 bytes
        product(left, a + 2 * k, b + 2 * k, add || k > 0, T());
        product(right, a + 2 * k + 8 * ROW_BYTES / 16, b + 2 * k, add || k > 0, T());
    }
}

//  What the products that are under way still read.
struct in_use {
    int stage = -1;
    int slab = -1;
};

struct multiplier {
    ring<SLABS> slab;
    ring<STAGES> stage;
    in_use last;
    int half, thread;
};

__device__ __forceinline__ void let_go(shared_memory &s, multiplier &m)
{
    if (m.thread == 0 && m.last.stage >= 0)
        barrier_arrive(barrier_at(s, WEIGHT_EMPTY + m.last.stage));
    if (m.thread == 0 && m.last.slab >= 0)
        barrier_arrive(barrier_at(s, SLAB_EMPTY + m.last.slab));
    m.last = in_use();
}

//  All taps of one chunk of channels, from the slab's pixel `first` on.
template <typename T, int TAPS>
__device__ __forceinline__ void multiply_chunk(shared_memory &s, multiplier &m,
                                               float (&left)[64], float (&right)[64],
                                               int first, int &add)
{
    constexpr int across = TAPS == 9 ? 3 : TAPS == 4 ? 2 : 1;
    const uint32_t slab = shared_address(s.slab[m.slab.at].pixels) + first * ROW_BYTES;
    barrier_wait(barrier_at(s, SLAB_FULL + m.slab.at), m.slab.parity);
#pragma unroll 1
    for (int tap = 0; tap < TAPS; tap++) {
        const int row = tap / across, column = tap - row * across;
        barrier_wait(barrier_at(s, WEIGHT_FULL + m.stage.at), m.stage.parity);
        products_fence();
        multiply<T>(left, right, slab + (row * HALO + column) * ROW_BYTES,
                    shared_address(s.weight[m.stage.at]), add);
        products_commit();
        products_wait<1>();
        let_go(s, m);
        m.last.stage = m.stage.at;
        m.stage.next();
        add = 1;
    }
    m.last.slab = m.slab.at;
    m.slab.next();
}

template <typename T, int TAPS>
__device__ __forceinline__ void multiply_tile(const fused_work<T> &work, shared_memory &s,
                                              multiplier &m, float (&left)[64],
                                              float (&right)[64], const tile_place &at)
{
    int add = 0;
    const int corner = (8 * m.half + at.row) * HALO + at.column;
    const int centre = (8 * m.half + 1) * HALO + 1;
#pragma unroll 1
    for (int c = 0; c < work.chunks; c++)
        multiply_chunk<T, TAPS>(s, m, left, right, corner, add);
#pragma unroll 1
    for (int c = 0; c < work.beside_chunks; c++)
        multiply_chunk<T, 1>(s, m, left, right, centre, add);
    products_wait<0>();
    let_go(s, m);
}

//  Eight channels of a thread: column 8 j + 2 q + e of 32 is channel 8 q + 2 j + e.
template <typename T>
__device__ __forceinline__ void finish_vector(const float (&sum)[64], int run, int low,
                                              const float4 (&bias)[2], bool residual,
                                              unsigned char *at)
{
    float more[LANES] = {bias[0].x, bias[0].y, bias[0].z, bias[0].w,
                         bias[1].x, bias[1].y, bias[1].z, bias[1].w};
    float v[LANES];
    vector<T> out;
    if (residual) {
        out.at = *reinterpret_cast<const words *>(at);
        out.to(v);
#pragma unroll
        for (int k = 0; k < LANES; k++) more[k] += v[k];
    }
#pragma unroll
    for (int k = 0; k < LANES; k++)
        v[k] = sum[4 * (4 * run + k / 2) + 2 * low + k % 2] + more[k];
    out.from(v);
    *reinterpret_cast<words *>(at) = out.at;
}

//  The sums of a half with bias and residual, in shared memory.
template <typename T>
__device__ __forceinline__ void finish_half(const fused_work<T> &work, shared_memory &s,
                                            const float (&left)[64],
                                            const float (&right)[64],
                                            const tile_place &at, int half, int thread)
{
    const int warp = thread / 32, lane = thread % 32;
    const bool residual = work.residual != NULL;
#pragma unroll
    for (int run = 0; run < 4; run++) {
        const int v = 4 * run + lane % 4;
        const float4 *from =
            reinterpret_cast<const float4 *>(work.bias + at.channel + v * LANES);
        const float4 bias[2] = {__ldg(from), __ldg(from + 1)};
#pragma unroll
        for (int low = 0; low < 2; low++) {
            const int pixel = (2 * warp + low) * SIDE + lane / 4;
            finish_vector<T>(left, run, low, bias, residual,
                             s.result[half] + result_at(pixel, v));
            finish_vector<T>(right, run, low, bias, residual,
                             s.result[half] + result_at(pixel + 8, v));
        }
    }
}

template <typename T, int TAPS>
__device__ void multiply_tiles(const fused_work<T> &work, shared_memory &s, int half,
                               int thread)
{
    multiplier m;
    uint32_t round = 0;
    m.half = half;
    m.thread = thread;
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x, round ^= 1) {
        float left[64], right[64];
        const tile_place at = place_of<WIDTH>(work, t);
        multiply_tile<T, TAPS>(work, s, m, left, right, at);
        barrier_wait(barrier_at(s, RESULT_EMPTY + half), round);
        finish_half(work, s, left, right, at, half, thread);
        barrier_arrive(barrier_at(s, RESULT_FULL + half));
    }
}

#endif

#endif
