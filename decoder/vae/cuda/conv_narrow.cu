//  The convolution of tiny decoders on the tensor cores of sm_90: 3 x 3 from 64 channels
//  to 64, with bias, residual and ReLU; or with the nearest 2 x 2 before it.
//
//  All weights stay in shared memory. A block goes from tile to tile, 16 x 16 pixels, of
//  which the copy engine brings the pixels with the ring around them. Two warpgroups
//  multiply, each eight rows of the tile; as their sums end up at different times, the
//  tensor cores work for one while the other adds the rest and has the copy engine take
//  its half away.
//
//  Enlarged 2 x 2, each pixel makes four results by 2 x 2 taps of their own. Weights for
//  all four have no room; a block makes the two of one row.

#include "decoder/vae/cuda/boxes.cuh"
#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/hopper.cuh"

namespace {

enum {
    CHANNELS = GPU_NARROW_CHANNELS,
    SIDE = 16,
    HALO = SIDE + 2,
    ROW_BYTES = CHANNELS * 2,  //  a pixel, a row of weights
    TAP_BYTES = CHANNELS * ROW_BYTES,
    TAPS_MOST = 9,
    GROUP = 128,  //  threads of a warpgroup
    HALVES = 2,
    THREADS = HALVES * GROUP + 32,  //  one warp brings
    SLABS = 2,
    SLAB_BYTES = HALO * HALO * ROW_BYTES,
    SLAB_ROOM = (SLAB_BYTES + 1023) / 1024 * 1024,
    HALF_ROWS = SIDE / HALVES,
    HALF_BYTES = HALF_ROWS * SIDE * ROW_BYTES,
    RESULTS = 2,        //  of a half: one comes or goes while the other is made
    RUN = CHANNELS / 4  //  a thread's channels of a pixel
};

enum {
    WEIGHT_FULL,
    SLAB_FULL,
    SLAB_EMPTY = SLAB_FULL + SLABS,
    RESIDUAL_FULL = SLAB_EMPTY + SLABS,  //  [half][result]
    BARRIERS = RESIDUAL_FULL + HALVES * RESULTS
};

struct shared_memory {
    unsigned char slab[SLABS][SLAB_ROOM];
    unsigned char weight[TAPS_MOST][TAP_BYTES];
    unsigned char result[HALVES][RESULTS][HALF_BYTES];
    unsigned long long barrier[BARRIERS];
};

struct narrow_work {
    const char *weight;  //  gpu_narrow_pack
    const float *bias;
    bool residual;
    float least;         //  of a result: 0 or -infinity
    int columns, tiles;  //  tiles a row of the picture; all
};

//  What differs when x is enlarged.
template <bool FOLDED>
struct kind {
    enum {
        GROW = FOLDED ? 2 : 1,
        ACROSS = FOLDED ? 2 : 3,  //  taps of a row
        TAPS = ACROSS * ACROSS,
        PASSES = GROW,  //  results of a slab
        BLOCKS = GROW,  //  that share a slab's results out
        WEIGHT_BYTES = PASSES * TAPS * TAP_BYTES
    };
};

static_assert(kind<true>::WEIGHT_BYTES <= TAPS_MOST * TAP_BYTES, "the weights have room");

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ uint32_t barrier_at(shared_memory &s, int which)
{
    return shared_address(&s.barrier[which]);
}

__device__ void start_barriers(shared_memory &s)
{
    for (int i = 0; i < BARRIERS; i++) barrier_init(barrier_at(s, i), 1);
    for (int i = 0; i < SLABS; i++) barrier_init(barrier_at(s, SLAB_EMPTY + i), HALVES);
    barrier_init_done();
}

//  A block's way from tile to tile.
template <bool FOLDED>
struct way {
    int tile, step;
    int row;  //  of the two that a pixel becomes
    __device__ way()
        : tile(blockIdx.x / kind<FOLDED>::BLOCKS),
          step(gridDim.x / kind<FOLDED>::BLOCKS),
          row(blockIdx.x % kind<FOLDED>::BLOCKS)
    {
    }
};

__device__ __forceinline__ int top_of(const narrow_work &work, int tile)
{
    return tile / work.columns * SIDE;
}

__device__ __forceinline__ int left_of(const narrow_work &work, int tile)
{
    return tile % work.columns * SIDE;
}

//  ---- bringing: one thread -----------------------------------------------------------

template <bool FOLDED>
__device__ void bring(const narrow_work &work, const CUtensorMap &x, shared_memory &s)
{
    enum { BYTES = kind<FOLDED>::WEIGHT_BYTES };
    ring<SLABS> slab;
    way<FOLDED> at;
    barrier_expect(barrier_at(s, WEIGHT_FULL), BYTES);
    bulk_copy(shared_address(s.weight), work.weight + at.row * BYTES, BYTES,
              barrier_at(s, WEIGHT_FULL));
    for (; at.tile < work.tiles; at.tile += at.step, slab.next()) {
        const uint32_t full = barrier_at(s, SLAB_FULL + slab.at);
        barrier_wait(barrier_at(s, SLAB_EMPTY + slab.at), slab.parity ^ 1);
        barrier_expect(full, SLAB_BYTES);
        box_copy(shared_address(s.slab[slab.at]), &x, 0, left_of(work, at.tile) - 1,
                 top_of(work, at.tile) - 1, full);
    }
}

//  ---- multiplying: two warpgroups ----------------------------------------------------

//  Of two squares of 8 x 8 pixels.
struct half_sums {
    float left[32], right[32];
};

struct multiplier {
    int half, thread;
    float bias[RUN];
    ring<SLABS> slab;
    ring<RESULTS> result;
};

//  `pixels`: the first that the first tap meets.
template <typename T, bool FOLDED>
__device__ __forceinline__ void multiply(half_sums &sums, uint32_t pixels,
                                         uint32_t weights)
{
    enum { ACROSS = kind<FOLDED>::ACROSS };
    products_fence();
#pragma unroll
    for (int tap = 0; tap < kind<FOLDED>::TAPS; tap++) {
        const int skip = tap / ACROSS * HALO + tap % ACROSS;
        const uint64_t a = matrix_at(pixels + skip * ROW_BYTES, HALO * ROW_BYTES);
        const uint64_t b = matrix_at(weights + tap * TAP_BYTES, 8 * ROW_BYTES);
#pragma unroll
        for (int k = 0; k < CHANNELS / 16; k++) {  //  16 channels are 32 bytes
            const int add = tap > 0 || k > 0;
            product(sums.left, a + 2 * k, b + 2 * k, add, T());
            product(sums.right, a + 2 * k + 8 * ROW_BYTES / 16, b + 2 * k, add, T());
        }
    }
    products_commit();
    products_wait<0>();
    hold(sums.left);
    hold(sums.right);
}

//  A thread's channels of one pixel, sixteen next to each other (conv_narrow.c); of the
//  half's pixels this is number `pixel`.
template <typename T>
__device__ __forceinline__ void finish_pixel(const narrow_work &work, const multiplier &m,
                                             const float (&sum)[32], int low,
                                             unsigned char *half, int pixel)
{
    const int run = m.thread % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float v[LANES];
        T *at = reinterpret_cast<T *>(half + pixel * ROW_BYTES +
                                      (((run + i) ^ (pixel & 7)) << 4));
#pragma unroll
        for (int k = 0; k < LANES; k++)
            v[k] = sum[4 * (4 * i + k / 2) + 2 * low + k % 2] + m.bias[LANES * i + k];
        if (work.residual) {
            float more[LANES];
            load8(at, more);
#pragma unroll
            for (int k = 0; k < LANES; k++) v[k] += more[k];
        }
        //  Not a maximum: that would hide what is not a number.
#pragma unroll
        for (int k = 0; k < LANES; k++) v[k] = v[k] < work.least ? work.least : v[k];
        store8(at, v);
    }
}

template <typename T>
__device__ __forceinline__ void finish(const narrow_work &work, const multiplier &m,
                                       const half_sums &sums, unsigned char *half)
{
    const int warp = m.thread / 32, column = m.thread % 32 / 4;
#pragma unroll
    for (int low = 0; low < 2; low++) {
        const int pixel = (2 * warp + low) * SIDE + column;
        finish_pixel<T>(work, m, sums.left, low, half, pixel);
        finish_pixel<T>(work, m, sums.right, low, half, pixel + SIDE / 2);
    }
}

//  The threads of one half.
__device__ __forceinline__ void half_sync(int half)
{
    asm volatile("bar.sync %0, 128;" ::"r"(half + 1) : "memory");
}

//  Where a half of a tile's results lies: channel, column and row of the four that a
//  pixel becomes, pixel.
__device__ __forceinline__ box_place place_of(const narrow_work &work, int tile, int half,
                                              int row, int column)
{
    return box_place{
        {0, column, left_of(work, tile), row, top_of(work, tile) + half * HALF_ROWS}};
}

//  One thread of a half.
__device__ __forceinline__ void ask_for_residual(const narrow_work &work,
                                                 const CUtensorMap &residual,
                                                 shared_memory &s, int half, int result,
                                                 int tile)
{
    if (!work.residual || tile >= work.tiles) return;
    const uint32_t full = barrier_at(s, RESIDUAL_FULL + half * RESULTS + result);
    barrier_expect(full, HALF_BYTES);
    box_copy(shared_address(s.result[half][result]), &residual,
             place_of(work, tile, half, 0, 0), full);
}

//  From the sums to the result, in memory.
template <typename T, bool FOLDED>
__device__ __forceinline__ void leave(const narrow_work &work, const CUtensorMap &y,
                                      const CUtensorMap &residual, shared_memory &s,
                                      multiplier &m, const half_sums &sums,
                                      const way<FOLDED> &at, int column)
{
    unsigned char *half = s.result[m.half][m.result.at];
    //  The thread that stores has seen the one before in this place go.
    half_sync(m.half);
    if (work.residual)
        barrier_wait(barrier_at(s, RESIDUAL_FULL + m.half * RESULTS + m.result.at),
                     m.result.parity);
    finish<T>(work, m, sums, half);
    proxy_fence();
    half_sync(m.half);
    if (m.thread == 0) {
        box_store(&y, place_of(work, at.tile, m.half, at.row, column),
                  shared_address(half));
        boxes_commit();
        boxes_read<RESULTS - 1>();
        ask_for_residual(work, residual, s, m.half, m.result.at ^ 1, at.tile + at.step);
    }
    m.result.next();
}

__device__ __forceinline__ void start_multiplier(const narrow_work &work, int half,
                                                 int thread, multiplier &m)
{
    m.half = half;
    m.thread = thread;
#pragma unroll
    for (int k = 0; k < RUN; k++)
        m.bias[k] = work.bias ? __ldg(work.bias + thread % 4 * RUN + k) : 0.0F;
}

template <typename T, bool FOLDED>
__device__ void multiply_tiles(const narrow_work &work, const CUtensorMap &y,
                               const CUtensorMap &residual, shared_memory &s, int half,
                               int thread)
{
    enum { PASSES = kind<FOLDED>::PASSES, TAPS = kind<FOLDED>::TAPS };
    multiplier m;
    way<FOLDED> at;
    start_multiplier(work, half, thread, m);
    if (thread == 0) ask_for_residual(work, residual, s, half, 0, at.tile);
    barrier_wait(barrier_at(s, WEIGHT_FULL), 0);
    for (; at.tile < work.tiles; at.tile += at.step, m.slab.next()) {
        const int first = (half * HALF_ROWS + at.row) * HALO;
        const uint32_t slab = shared_address(s.slab[m.slab.at]) + first * ROW_BYTES;
        barrier_wait(barrier_at(s, SLAB_FULL + m.slab.at), m.slab.parity);
#pragma unroll
        for (int column = 0; column < PASSES; column++) {
            half_sums sums;
            multiply<T, FOLDED>(sums, slab + column * ROW_BYTES,
                                shared_address(s.weight[column * TAPS]));
            if (column == PASSES - 1 && thread == 0)
                barrier_arrive(barrier_at(s, SLAB_EMPTY + m.slab.at));
            leave<T, FOLDED>(work, y, residual, s, m, sums, at, column);
        }
    }
    if (thread == 0) boxes_stored();
}

#endif

template <typename T, bool FOLDED>
__global__ void __launch_bounds__(THREADS, 1)
    conv_narrow(const __grid_constant__ narrow_work work,
                const __grid_constant__ CUtensorMap x,
                const __grid_constant__ CUtensorMap y,
                const __grid_constant__ CUtensorMap residual)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    shared_memory &s = *reinterpret_cast<shared_memory *>(memory);
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    if (threadIdx.x == 0) start_barriers(s);
    __syncthreads();
    if (group < HALVES)
        multiply_tiles<T, FOLDED>(work, y, residual, s, group, thread);
    else if (thread == 0)
        bring<FOLDED>(work, x, s);
#else
    __trap();
#endif
}

//  ---- the start ----------------------------------------------------------------------

struct maps {
    CUtensorMap x, y, residual;
};

//  Tiles with the ring around them.
cudaError_t map_slabs(const gpu_narrow_args *args, const void *x, CUtensorMap *out)
{
    const cuuint64_t height = args->from.height, width = args->from.width;
    const boxes b = {3,
                     {CHANNELS, width, height},
                     {ROW_BYTES, width * ROW_BYTES},
                     {CHANNELS, HALO, HALO}};
    return map_boxes(args->from.type, x, b, out);
}

//  Halves of tiles, of a value whose pixels are `grow` by `grow` for each of x.
cudaError_t map_halves(const gpu_narrow_args *args, cuuint64_t grow, const void *y,
                       CUtensorMap *out)
{
    const cuuint64_t height = args->from.height, width = args->from.width;
    const cuuint64_t row = grow * width * ROW_BYTES;
    const boxes b = {5,
                     {CHANNELS, grow, width, grow, height},
                     {ROW_BYTES, grow * ROW_BYTES, row, grow * row},
                     {CHANNELS, 1, SIDE, 1, HALF_ROWS}};
    return map_boxes(args->from.type, y, b, out);
}

cudaError_t maps_of(const gpu_narrow_args *args, const void *x, void *y, maps *out)
{
    cudaError_t error = map_slabs(args, x, &out->x);
    if (error == cudaSuccess) error = map_halves(args, args->folded ? 2 : 1, y, &out->y);
    if (error == cudaSuccess)
        error = map_halves(args, 1, args->residual ? args->residual : x, &out->residual);
    return error;
}

narrow_work work_of(const gpu_narrow_args *args)
{
    narrow_work work = {};
    work.weight = static_cast<const char *>(args->weight);
    work.bias = args->bias;
    work.residual = args->residual != NULL;
    work.least = args->relu ? 0.0F : -INFINITY;
    work.columns = (args->from.width + SIDE - 1) / SIDE;
    work.tiles = (args->from.height + SIDE - 1) / SIDE * work.columns;
    return work;
}

template <typename T, bool FOLDED>
cudaError_t start(const narrow_work &work, const maps &m, int multiprocessors,
                  cudaStream_t stream)
{
    enum { BLOCKS = kind<FOLDED>::BLOCKS };
    const int most = multiprocessors / BLOCKS,
              ways = work.tiles < most ? work.tiles : most;
    const cudaError_t error = cudaFuncSetAttribute(
        conv_narrow<T, FOLDED>, cudaFuncAttributeMaxDynamicSharedMemorySize,
        (int)sizeof(shared_memory));
    if (error != cudaSuccess) return error;
    conv_narrow<T, FOLDED><<<ways * BLOCKS, THREADS, sizeof(shared_memory), stream>>>(
        work, m.x, m.y, m.residual);
    return cudaGetLastError();
}

}  //  namespace

extern "C" cudaError_t gpu_conv_narrow(const gpu_narrow_args *args, const void *x,
                                       void *y, int multiprocessors, cudaStream_t stream)
{
    maps m;
    const cudaError_t error = maps_of(args, x, y, &m);
    if (error != cudaSuccess) return error;
    const narrow_work work = work_of(args);
    const bool bf16 = args->from.type == GPU_BF16;
    if (args->folded)
        return bf16 ? start<__nv_bfloat16, true>(work, m, multiprocessors, stream)
                    : start<__half, true>(work, m, multiprocessors, stream);
    return bf16 ? start<__nv_bfloat16, false>(work, m, multiprocessors, stream)
                : start<__half, false>(work, m, multiprocessors, stream);
}
