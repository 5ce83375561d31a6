//  wgmma_bring.cuh - the fused convolution's warps that bring pixels, and the thread that
//  brings weights

#ifndef LUNA_DECODER_VAE_CUDA_WGMMA_BRING_CUH
#define LUNA_DECODER_VAE_CUDA_WGMMA_BRING_CUH

#include "decoder/vae/cuda/prepare.cuh"
#include "decoder/vae/cuda/wgmma_shared.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

//  A square of pixels of a value, some of them perhaps outside of the picture.
template <typename T>
struct square {
    const T *x;     //  its first pixel, which may be outside
    const T *safe;  //  somewhere inside
    int channels, row_step;
    int top, left, height, width;  //  the square's place; the picture's size
};

template <typename T>
__device__ __forceinline__ square<T> square_of(const T *x, int channels,
                                               const fused_work<T> &work, int top,
                                               int left)
{
    const long long first = (long long)top * work.width + left;
    return square<T>{x + first * channels,  x,         channels,
                     work.width * channels, top,       left,
                     work.height,           work.width};
}

//  Where 16 bytes of a pixel of the slab lie: exchanged by the pixel's number.
__device__ __forceinline__ int slab_at(int pixel, int lane)
{
    return pixel * ROW_BYTES + ((lane ^ (pixel & 7)) << 4);
}

//  Asks for the thread's pixels of the slab, every 16th; one bit for each that there is.
//  Their places in the slab are 16 rows apart, so the exchange of columns is always the
//  same.
template <typename T>
__device__ __forceinline__ unsigned ask_for_slab(const square<T> &from, uint32_t slab,
                                                 int thread)
{
    const int first = thread / LANES_A_ROW, lane = thread % LANES_A_ROW;
    const int end = from.left + HALO, wrap = from.row_step - HALO * from.channels;
    int y = from.top + first / HALO, x = from.left + first % HALO;
    const T *at = from.x + first / HALO * from.row_step + first % HALO * from.channels;
    unsigned there = 0;
    slab += slab_at(first, lane);
#pragma unroll
    for (int i = 0; i < SLAB_PASSES; i++) {
        const bool is =
            (unsigned)y < (unsigned)from.height && (unsigned)x < (unsigned)from.width;
        if (i < SLAB_PASSES - 1 || first + i * PIXELS_A_PASS < HALO * HALO) {
            copy_16(slab + i * PIXELS_A_PASS * ROW_BYTES, is ? at : from.safe, is);
            there |= (unsigned)is << i;
        }
        y += PIXELS_A_PASS / HALO;
        x += PIXELS_A_PASS % HALO;
        at +=
            from.row_step * (PIXELS_A_PASS / HALO) + PIXELS_A_PASS % HALO * from.channels;
        if (x >= end) {
            x -= HALO;
            y++;
            at += wrap;
        }
    }
    return there;
}

//  The same without the ring.
template <typename T>
__device__ __forceinline__ void ask_for_tile(const square<T> &from, uint32_t slab,
                                             int thread)
{
    const int first = thread / LANES_A_ROW, lane = thread % LANES_A_ROW;
    const int row = first / SIDE, column = first % SIDE;
    const bool inside = from.left + column < from.width;
    const T *at = from.x + row * from.row_step + column * from.channels;
#pragma unroll 4
    for (int i = 0; i < SIDE; i += ROWS_A_PASS, at += ROWS_A_PASS * from.row_step) {
        const bool is = inside && from.top + row + i < from.height;
        copy_16(slab + slab_at((row + i + 1) * HALO + column + 1, lane),
                is ? at : from.safe, is);
    }
}

//  All that this thread has brought; what is outside stays 0.
template <typename T>
__device__ __forceinline__ void prepare(unsigned char *slab, unsigned there,
                                        const gpu_pair (&pairs)[LANES], int thread)
{
    slab += slab_at(thread / LANES_A_ROW, thread % LANES_A_ROW);
#pragma unroll 1
    for (; there; there >>= 2, slab += 2 * PIXELS_A_PASS * ROW_BYTES)
        prepare_vectors<T, 2, PIXELS_A_PASS * ROW_BYTES>(slab, there, pairs);
}

template <typename T, bool NORM>
__device__ __forceinline__ void bring_chunk(const square<T> &from, const gpu_pair *pairs,
                                            shared_memory &s, const ring<SLABS> &slab,
                                            int thread)
{
    gpu_pair mine[LANES];
    if (NORM) read_halves(pairs + thread % LANES_A_ROW * LANES, mine);
    barrier_wait(barrier_at(s, SLAB_EMPTY + slab.at), slab.parity ^ 1);
    const unsigned there =
        ask_for_slab(from, shared_address(s.slab[slab.at].pixels), thread);
    copies_wait();
    if (NORM) prepare<T>(s.slab[slab.at].pixels, there, mine, thread);
    proxy_fence();
    barrier_arrive(barrier_at(s, SLAB_FULL + slab.at));
}

template <typename T>
__device__ __forceinline__ void bring_beside(const square<T> &from, shared_memory &s,
                                             const ring<SLABS> &slab, int thread)
{
    barrier_wait(barrier_at(s, SLAB_EMPTY + slab.at), slab.parity ^ 1);
    ask_for_tile(from, shared_address(s.slab[slab.at].pixels), thread);
    copies_wait();
    proxy_fence();
    barrier_arrive(barrier_at(s, SLAB_FULL + slab.at));
}

template <typename T, bool NORM>
__device__ void bring_tiles(const fused_work<T> &work, shared_memory &s, int thread)
{
    ring<SLABS> slab;
    const int skip = thread % LANES_A_ROW * LANES;
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x) {
        const tile_place at = place_of<WIDTH>(work, t);
        square<T> from =
            square_of(work.x + skip, work.channels, work, at.y - 1, at.x - 1);
        for (int c = 0; c < work.chunks; c++, slab.next(), from.x += CHUNK)
            bring_chunk<T, NORM>(from, work.pairs + c * CHUNK, s, slab, thread);
        if (work.beside_chunks == 0) continue;
        from = square_of(work.beside + skip, work.beside_channels, work, at.y, at.x);
        for (int c = 0; c < work.beside_chunks; c++, slab.next(), from.x += CHUNK)
            bring_beside(from, s, slab, thread);
    }
}

//  One thread: it asks the copy engine for tap after tap.
template <typename T>
__device__ void bring_weights(const fused_work<T> &work, shared_memory &s)
{
    ring<STAGES> stage;
    const int taps = taps_of(work);
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x) {
        const char *from = weights_of(work, place_of<WIDTH>(work, t));
        for (int i = 0; i < taps; i++, from += TAP_BYTES, stage.next()) {
            const uint32_t full = barrier_at(s, WEIGHT_FULL + stage.at);
            barrier_wait(barrier_at(s, WEIGHT_EMPTY + stage.at), stage.parity ^ 1);
            barrier_expect(full, TAP_BYTES);
            bulk_copy(shared_address(s.weight[stage.at]), from, TAP_BYTES, full);
        }
    }
}

#endif

#endif
