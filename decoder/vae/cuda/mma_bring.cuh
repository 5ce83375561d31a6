//  mma_bring.cuh - the portable fused convolution: bringing pixels and weights

#ifndef LUNA_DECODER_VAE_CUDA_MMA_BRING_CUH
#define LUNA_DECODER_VAE_CUDA_MMA_BRING_CUH

#include "decoder/vae/cuda/mma_shared.cuh"
#include "decoder/vae/cuda/prepare.cuh"

//  A thread's share of every slab: one vector of every third row.
struct share {
    int x, y;      //  its first pixel; may be outside
    int vector;    //  of the slice
    int slot;      //  in the slab
    bool columns;  //  it has one, and it is in the picture
};

template <typename T>
__device__ __forceinline__ share share_of(const fused_work<T> &work, const tile_place &at)
{
    const int row = threadIdx.x / ROW_VECTORS, rest = threadIdx.x % ROW_VECTORS;
    const int column = rest / SLICE_VECTORS, vector = rest % SLICE_VECTORS;
    const int x = at.x - 1 + column;
    return share{x, at.y - 1 + row, vector,
                 row * SLAB_ROW_BYTES + slice_at(column, vector),
                 row < ROWS_AT_ONCE && (unsigned)x < (unsigned)work.width};
}

__device__ __forceinline__ bool has_share()
{
    return threadIdx.x < ROWS_AT_ONCE * ROW_VECTORS;
}

template <typename T>
__device__ __forceinline__ bool is_inside(const fused_work<T> &work, const share &mine,
                                          int i)
{
    return mine.columns && (unsigned)(mine.y + i * ROWS_AT_ONCE) < (unsigned)work.height;
}

//  A slice of channels as this thread reads it.
template <typename T>
struct slice {
    const T *x;             //  the first vector of its share; perhaps outside
    int step;               //  values from one to the next
    const gpu_pair *pairs;  //  of its channels; NULL: as they are
};

template <typename T>
__device__ __forceinline__ slice<T> slice_of(const fused_work<T> &work, const share &mine,
                                             int s)
{
    const int more = s - 2 * work.chunks;
    const T *x = more < 0 ? work.x + s * SLICE : work.beside + more * SLICE;
    const int channels = more < 0 ? work.channels : work.beside_channels;
    const long long first = (long long)mine.y * work.width + mine.x;
    const bool as_it_is = more >= 0 || !work.pairs;
    return slice<T>{x + first * channels + mine.vector * LANES,
                    ROWS_AT_ONCE * work.width * channels,
                    as_it_is ? NULL : work.pairs + s * SLICE + mine.vector * LANES};
}

//  Asks for the i-th vector; zeros where there is no picture.
template <typename T>
__device__ __forceinline__ void ask_for_piece(const fused_work<T> &work,
                                              const slice<T> &from, const share &mine,
                                              unsigned char *slab, int i)
{
    const bool is = is_inside(work, mine, i);
    if (has_share())
        copy_16(shared_address(slab) + mine.slot + i * ROWS_AT_ONCE * SLAB_ROW_BYTES,
                is ? from.x + (long long)i * from.step : work.x, is);
}

//  Normalises it in place, once it is there.
template <typename T>
__device__ __forceinline__ void prepare_piece(const fused_work<T> &work,
                                              const gpu_pair *pairs, const share &mine,
                                              unsigned char *slab, int i)
{
    gpu_pair halves[LANES];
    if (!is_inside(work, mine, i)) return;
    read_halves(pairs, halves);
    prepare_vectors<T, 1, 0>(slab + mine.slot + i * ROWS_AT_ONCE * SLAB_ROW_BYTES, 1,
                             halves);
}

//  A thread's vector of a tap's weights: half of the rows of a block and of its columns.
//  In the other half of the columns bit 6 of its place is changed.
enum { OTHER_HALF = SLICE_BYTES };

__device__ __forceinline__ int tap_from(int first_row)
{
    const int row = threadIdx.x / SLICE_VECTORS, v = threadIdx.x % SLICE_VECTORS;
    return (first_row + row) * ROW_BYTES + (v ^ row % LANES_A_ROW) * 16;
}

__device__ __forceinline__ int tap_to()
{
    return slice_at(threadIdx.x / SLICE_VECTORS, threadIdx.x % SLICE_VECTORS);
}

#endif
