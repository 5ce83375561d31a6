//  attention.cuh - how attention is cut into tiles, and where its weights lie
//
//  Two kernels. The first multiplies queries by keys and stores the weights of the
//  softmax as powers of two of the scores, relative to the largest score that the row had
//  had so far, rounded up to a whole power. The second multiplies the weights by the
//  values; it knows the row's largest score of all, and what the weights of a tile are to
//  be multiplied by for it, again a power of two: nothing is rounded by it.
//
//  Weights lie as the tensor cores' threads hold them, both those that make them and
//  those that read them: 64 rows by 16 keys are 2 KiB, 16 bytes a thread.

#ifndef LUNA_DECODER_VAE_CUDA_ATTENTION_CUH
#define LUNA_DECODER_VAE_CUDA_ATTENTION_CUH

#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/hopper.cuh"

#include <cuda.h>

enum {
    GROUP = 128,  //  threads of a warpgroup
    THREADS = 3 * GROUP,
    CHANNELS = GPU_ATTENTION_CHANNELS,
    GROUP_ROWS = 64,              //  of a warpgroup's tile
    BLOCK_ROWS = 2 * GROUP_ROWS,  //  two warpgroups multiply
    PAIR_ROWS = 2 * BLOCK_ROWS,   //  two blocks are a cluster
    TILE_KEYS = 128,
    SEGMENTS = 4,  //  of the keys: a block's part of a row
    LINE = 64,     //  values of 128 bytes, one row of a matrix in shared memory
    LINE_BYTES = 128,
    STEP = 16,  //  keys of one product of the second kernel
    STEP_BYTES = GROUP_ROWS * STEP * 2,
    //  Registers of a thread: 12 warps start with 168 each.
    MULTIPLIER_REGISTERS = 240,
    BRINGER_REGISTERS = 24,
    RELEASES = 2 * GROUP / 32  //  a block's warps that let go of what was brought
};

//  Weights are stored times 2^7 and multiplied by up to 2^8 later: in fp16, where a value
//  of less than 2^-14 loses bits, this leaves the most to small ones in both places.
enum { STORED_EXPONENT = 7, LATER_EXPONENT = 8 };

struct attention_work {
    int tokens;
    int pitch;        //  of a token of y
    int first, rows;  //  of this chunk
    int blocks;       //  of PAIR_ROWS
    int tiles;        //  of TILE_KEYS
    int segments;
    int first_tile[SEGMENTS + 1];  //  of each, and the end of the last
    float scale;                   //  from a product to a power of two
    unsigned char *weights;        //  [GROUP_ROWS][STEP][STEP_BYTES]
    float *most;                   //  [tile][row]
    float *sums;                   //  [segment][row]
    void *y;
};

static inline __host__ __device__ int padded_rows(const attention_work &w)
{
    return w.blocks * PAIR_ROWS;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

//  The weights of 64 rows from a tile on.
__device__ __forceinline__ unsigned char *weights_at(const attention_work &w, int group,
                                                     int tile)
{
    const size_t steps = (size_t)w.tiles * (TILE_KEYS / STEP);
    return w.weights + (group * steps + (size_t)tile * (TILE_KEYS / STEP)) * STEP_BYTES;
}

//  2^x in one instruction; volatile, so that they stay in the order in which they are
//  written: the compiler's own has each wait for the one before.
__device__ __forceinline__ float exponential(float x)
{
    float power;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

//  One warp has read something that the copy engine brought to both blocks of a cluster.
__device__ __forceinline__ void let_go_of_both(uint32_t barrier, int lane, int rank)
{
    __syncwarp();
    if (lane == 0) barrier_arrive(barrier);
    if (lane == 1) barrier_arrive_at(barrier, rank ^ 1);
}

#endif

#endif
