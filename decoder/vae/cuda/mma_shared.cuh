//  mma_shared.cuh - how the portable fused convolution shares its tile out to warps, and
//  its shared memory

#ifndef LUNA_DECODER_VAE_CUDA_MMA_SHARED_CUH
#define LUNA_DECODER_VAE_CUDA_MMA_SHARED_CUH

#include "decoder/vae/cuda/copies.cuh"
#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/fused.cuh"

enum {
    TILE_WIDTH = GPU_FUSED_TO_MMA,  //  channels of the result in a tile
    SLICE = CHUNK / 2,              //  channels brought at a time
    SLICE_BYTES = SLICE * 2,        //  of a pixel, of a row of weights
    SLICE_VECTORS = SLICE_BYTES / 16,
    ROWS_A_WARP = 4,   //  of the tile's pixels, each one matrix of 16 rows
    GROUP_WIDTH = 32,  //  channels of the result in the packed order (conv_fused.c)
    WARPS_DOWN = SIDE / ROWS_A_WARP,
    WARPS_ACROSS = TILE_WIDTH / GROUP_WIDTH,
    WARPS = WARPS_DOWN * WARPS_ACROSS,
    THREADS = 32 * WARPS,
    RUNS = TILE_WIDTH / GPU_PART_CHANNELS,
    ROW_VECTORS = HALO * SLICE_VECTORS,  //  of a row of the slab
    ROWS_AT_ONCE = THREADS / ROW_VECTORS,
    PIECES = HALO / ROWS_AT_ONCE,  //  of a slab, a thread's
    SLAB_ROW_BYTES = HALO * SLICE_BYTES
};

//  Two blocks of this go into the 100 KiB of a multiprocessor of sm_86, 89 and 120.
struct shared_memory {
    unsigned char slab[2][HALO * SLAB_ROW_BYTES];
    unsigned char weight[2][TILE_WIDTH * SLICE_BYTES];
};

static_assert(2 * (sizeof(shared_memory) + 1024) <= 100 * 1024, "two blocks have room");
static_assert(THREADS == TILE_WIDTH * SLICE_VECTORS, "a thread brings a vector of a tap");
static_assert(PIECES * ROWS_AT_ONCE == HALO, "all rows are brought");

//  Where 16 bytes of a column of the slab, or of a row of weights, lie: exchanged so that
//  eight of them from any on meet all banks. Rows of the slab start at bank 0.
__device__ __forceinline__ int slice_at(int column, int vector)
{
    return column * SLICE_BYTES + ((vector ^ (column >> 1)) & (SLICE_VECTORS - 1)) * 16;
}

#endif
