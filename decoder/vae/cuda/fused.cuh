//  fused.cuh - how the fused convolution is cut into tiles, and its weights into blocks

#ifndef LUNA_DECODER_VAE_CUDA_FUSED_CUH
#define LUNA_DECODER_VAE_CUDA_FUSED_CUH

#include "decoder/vae/cuda/kernels.h"

enum {
    SIDE = GPU_PART_SIDE,    //  pixels a side of a tile
    HALO = SIDE + 2,         //  with the ring around it
    CHUNK = GPU_FUSED_FROM,  //  channels brought at a time
    WIDTH = GPU_FUSED_TO,    //  channels of the result in a block of weights
    ROW_BYTES = CHUNK * 2,
    LANES_A_ROW = ROW_BYTES / 16,
    TAP_BYTES = WIDTH * ROW_BYTES  //  weights of one tap of one chunk
};

typedef gpu_moments moments;

//  What a kernel is given.
template <typename T>
struct fused_work {
    const T *x, *beside, *residual;
    const gpu_pair *pairs;
    const char *weight;
    const float *bias;
    T *y;
    moments *parts;
    int channels, beside_channels, to_channels;
    int height, width;  //  of x
    int chunks, beside_chunks;
    int columns, tiles;  //  tiles a row of the picture; all
    int across;          //  tiles over the result's channels, each WIDE of them
    int corners;         //  4 when folded, else 1
};

//  One tile: its first pixel of x, its first channel; when folded, which of the four
//  results of a pixel. `part` counts tiles without their channels.
struct tile_place {
    int y, x, channel, row, column, part;
};

template <int WIDE, typename T>
__device__ __forceinline__ tile_place place_of(const fused_work<T> &work, int tile)
{
    const int rest = tile / work.across, corner = rest % work.corners;
    const int at = rest / work.corners, row = at / work.columns;
    return tile_place{row * SIDE,
                      (at - row * work.columns) * SIDE,
                      (tile - rest * work.across) * WIDE,
                      corner / 2,
                      corner % 2,
                      rest};
}

template <typename T>
__device__ __forceinline__ int taps_of(const fused_work<T> &work)
{
    return work.chunks * (work.corners == 4 ? 4 : 9) + work.beside_chunks;
}

//  Blocks of TAP_BYTES lie in the order [corner][128 of the result][chunk][tap], then
//  those beside.
template <typename T>
__device__ __forceinline__ const char *weights_of(const fused_work<T> &work,
                                                  const tile_place &at)
{
    const int corner = 2 * at.row + at.column;
    const int block = corner * (work.to_channels / WIDTH) + at.channel / WIDTH;
    return work.weight + (size_t)block * taps_of(work) * TAP_BYTES;
}

template <int WIDE, typename T>
static fused_work<T> work_of(const gpu_fused_args *args, const void *x, void *y)
{
    fused_work<T> work = {};
    work.x = static_cast<const T *>(x);
    work.beside = static_cast<const T *>(args->beside);
    work.residual = static_cast<const T *>(args->residual);
    work.pairs = args->pairs;
    work.weight = static_cast<const char *>(args->weight);
    work.bias = args->bias;
    work.y = static_cast<T *>(y);
    work.parts = args->parts;
    work.channels = args->from.channels;
    work.beside_channels = args->beside ? args->beside_channels : 0;
    work.to_channels = args->channels;
    work.height = args->from.height;
    work.width = args->from.width;
    work.chunks = work.channels / CHUNK;
    work.beside_chunks = work.beside_channels / CHUNK;
    work.columns = (work.width + SIDE - 1) / SIDE;
    work.across = work.to_channels / WIDE;
    work.corners = args->folded ? 4 : 1;
    const gpu_parts parts = {work.height, work.width, args->folded};
    work.tiles = (int)gpu_part_count(&parts) * work.across;
    return work;
}

#endif
