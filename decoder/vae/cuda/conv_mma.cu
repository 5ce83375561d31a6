//  The fused convolution on the tensor cores of sm_80 and up.
//
//  A block makes one tile: 16 x 16 pixels, 64 channels of the result. It goes through the
//  channels of x by slices of 32 and in each of them through the taps of the kernel. A
//  slice's pixels, with the ring around them, are normalised and activated once and lie
//  in a slab in shared memory where every tap reads them, each from another pixel on.
//
//  All warps do the same: at each tap they ask for the next tap's weights and for some of
//  the next slice's pixels, multiply, and normalise what the tap before has asked for. Two
//  blocks share a multiprocessor, so that one's products hide what the other waits for.
//
//  mma_bring.cuh, mma_multiply.cuh and mma_store.cuh hold the parts, mma_shared.cuh the
//  sizes, fused.cuh how the work is cut.

#include "decoder/vae/cuda/mma_bring.cuh"
#include "decoder/vae/cuda/mma_multiply.cuh"
#include "decoder/vae/cuda/mma_store.cuh"

namespace {

#if __CUDA_ARCH__ >= 800

//  A thread's way through a tile's slices and taps.
template <typename T>
struct way {
    tile_place at;
    share mine;
    int row, channel;     //  the warp's, in the tile
    const char *weights;  //  this thread's vector of slice 0, tap 0
    int slices, stage;    //  stage: where the tap at hand has its weights
    int lane;
};

template <typename T>
__device__ __forceinline__ way<T> way_of(const fused_work<T> &work)
{
    way<T> w = {};
    const warp_place warp = warp_of(threadIdx.x);
    w.at = place_of<TILE_WIDTH>(work, blockIdx.x);
    w.mine = share_of(work, w.at);
    w.row = warp.row;
    w.channel = warp.channel;
    w.weights = weights_of(work, w.at) + tap_from(w.at.channel % WIDTH);
    w.slices = 2 * (work.chunks + work.beside_chunks);
    w.lane = threadIdx.x % 32;
    return w;
}

//  Slice s, tap by tap; each slice beside has one.
template <typename T, int TAPS>
__device__ __forceinline__ void ask_for_tap(const fused_work<T> &work, const way<T> &w,
                                            shared_memory &m, int s, int tap)
{
    const int chunk = s / 2;
    const int block =
        chunk < work.chunks ? chunk * TAPS + tap : work.chunks * (TAPS - 1) + chunk;
    const char *from = w.weights + (size_t)block * TAP_BYTES;
    const uintptr_t other = s % 2 ? OTHER_HALF : 0;
    copy_16(shared_address(m.weight[w.stage ^ 1]) + tap_to(),
            reinterpret_cast<const char *>(reinterpret_cast<uintptr_t>(from) ^ other),
            true);
}

//  All at once: the first slice, and those beside, which have but one tap.
template <typename T>
__device__ __forceinline__ void ask_for_slab(const fused_work<T> &work, const way<T> &w,
                                             shared_memory &m, int s)
{
    const slice<T> from = slice_of(work, w.mine, s);
#pragma unroll 1
    for (int i = 0; i < PIECES; i++) ask_for_piece(work, from, w.mine, m.slab[s % 2], i);
}

template <typename T, int TAPS, bool NORM>
__device__ __forceinline__ void bring_first(const fused_work<T> &work, way<T> &w,
                                            shared_memory &m)
{
    w.stage = 1;
    ask_for_slab(work, w, m, 0);
    ask_for_tap<T, TAPS>(work, w, m, 0, 0);
    w.stage = 0;
    copies_wait();
    const gpu_pair *pairs = slice_of(work, w.mine, 0).pairs;
#pragma unroll 1
    for (int i = 0; i < (NORM ? PIECES : 0); i++)
        prepare_piece(work, pairs, w.mine, m.slab[0], i);
}

//  This lane's pixel and weights of a tap (row, column) of slice s.
template <typename T, bool HALF>
__device__ __forceinline__ void multiply(const way<T> &w, shared_memory &m,
                                         warp_sums &sums, int s, int row, int column)
{
    const uint32_t pixels = shared_address(m.slab[s % 2]) +
                            (w.row + row) * SLAB_ROW_BYTES + lane_pixel(column, w.lane);
    multiply_tap<T, HALF>(sums, pixels,
                          shared_address(m.weight[w.stage]) +
                              lane_weight(w.channel, w.lane));
}

//  A slice with all its taps; meanwhile the next comes.
template <typename T, int TAPS, bool NORM, bool HALF>
__device__ __forceinline__ void multiply_slice(const fused_work<T> &work, way<T> &w,
                                               shared_memory &m, warp_sums &sums, int s)
{
    constexpr int across = TAPS == 9 ? 3 : 2;
    constexpr int at_once = (PIECES + TAPS - 2) / (TAPS - 1);
    const bool more = s + 1 < w.slices;
    const slice<T> next = slice_of(work, w.mine, s + 1);
    unsigned char *room = m.slab[(s + 1) % 2];
#pragma unroll 1
    for (int tap = 0; tap < TAPS; tap++, w.stage ^= 1) {
        const bool last = tap == TAPS - 1;
        copies_wait();
        __syncthreads();
        if (!last || more)
            ask_for_tap<T, TAPS>(work, w, m, s + last, last ? 0 : tap + 1);
#pragma unroll
        for (int i = 0; i < at_once; i++)
            if (more && tap * at_once + i < PIECES)
                ask_for_piece(work, next, w.mine, room, tap * at_once + i);
        multiply<T, HALF>(w, m, sums, s, w.at.row + tap / across,
                          w.at.column + tap % across);
#pragma unroll
        for (int i = 0; i < at_once; i++)
            if (NORM && more && next.pairs && tap > 0 && (tap - 1) * at_once + i < PIECES)
                prepare_piece(work, next.pairs, w.mine, room, (tap - 1) * at_once + i);
    }
}

template <typename T, int TAPS, bool HALF>
__device__ __forceinline__ void multiply_beside(const fused_work<T> &work, way<T> &w,
                                                shared_memory &m, warp_sums &sums, int s)
{
    copies_wait();
    __syncthreads();
    if (s + 1 < w.slices) {
        ask_for_tap<T, TAPS>(work, w, m, s + 1, 0);
        ask_for_slab(work, w, m, s + 1);
    }
    multiply<T, HALF>(w, m, sums, s, 1, 1);
    w.stage ^= 1;
}

#endif

template <typename T, int TAPS, bool NORM, bool HALF>
__global__ void __launch_bounds__(THREADS, 2)
    conv_mma(const __grid_constant__ fused_work<T> work)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) unsigned char memory[];
    shared_memory &m = *reinterpret_cast<shared_memory *>(memory);
    const int mine = 2 * work.chunks;
    way<T> w = way_of(work);
    warp_sums sums = {};
    bring_first<T, TAPS, NORM>(work, w, m);
#pragma unroll 1
    for (int s = 0; s < mine; s++)
        multiply_slice<T, TAPS, NORM, HALF>(work, w, m, sums, s);
#pragma unroll 1
    for (int s = mine; s < w.slices; s++)
        multiply_beside<T, TAPS, HALF>(work, w, m, sums, s);
    const warp_place warp = {w.row, w.channel};
    spread spreads[2] = {};
    store_sums<T, TAPS>(work, w.at, warp, sums, w.lane, spreads);
    if (!work.parts) return;
    __syncthreads();
    leave_moments(work, w.at, warp, spreads, w.lane,
                  *reinterpret_cast<counted(*)[WARPS_DOWN][RUNS]>(memory));
#else
    __trap();
#endif
}

template <typename T, int TAPS, bool NORM, bool HALF>
cudaError_t start(const fused_work<T> &work, cudaStream_t stream)
{
    const cudaError_t error = cudaFuncSetAttribute(
        conv_mma<T, TAPS, NORM, HALF>, cudaFuncAttributeMaxDynamicSharedMemorySize,
        (int)sizeof(shared_memory));
    if (error != cudaSuccess) return error;
    conv_mma<T, TAPS, NORM, HALF>
        <<<work.tiles, THREADS, sizeof(shared_memory), stream>>>(work);
    return cudaGetLastError();
}

template <typename T, bool HALF>
cudaError_t start_for(const gpu_fused_args *args, const void *x, void *y,
                      cudaStream_t stream)
{
    const fused_work<T> work = work_of<TILE_WIDTH, T>(args, x, y);
    if (args->folded)
        return args->pairs ? start<T, 4, true, HALF>(work, stream)
                           : start<T, 4, false, HALF>(work, stream);
    return args->pairs ? start<T, 9, true, HALF>(work, stream)
                       : start<T, 9, false, HALF>(work, stream);
}

}  //  namespace

extern "C" cudaError_t gpu_conv_mma(const gpu_fused_args *args, const void *x, void *y,
                                    bool half_sums, cudaStream_t stream)
{
    if (args->from.type == GPU_BF16)
        return start_for<__nv_bfloat16, false>(args, x, y, stream);
    if (half_sums) return start_for<__half, true>(args, x, y, stream);
    return start_for<__half, false>(args, x, y, stream);
}
