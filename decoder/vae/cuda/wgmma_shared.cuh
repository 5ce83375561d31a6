//  wgmma_shared.cuh - what the warps of the fused convolution share: their number, shared
//  memory, barriers

#ifndef LUNA_DECODER_VAE_CUDA_WGMMA_SHARED_CUH
#define LUNA_DECODER_VAE_CUDA_WGMMA_SHARED_CUH

#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/fused.cuh"
#include "decoder/vae/cuda/hopper.cuh"

enum {
    SLABS = 2,
    SLAB_BYTES = (HALO * HALO * ROW_BYTES + 1023) / 1024 * 1024,
    STAGES = 5,
    GROUP = 128,  //  threads of a warpgroup
    MULTIPLIERS = 2 * GROUP,
    BRINGERS = GROUP,
    STORERS = GROUP / 2,  //  of the last warpgroup; a third warp brings the weights
    THREADS = MULTIPLIERS + BRINGERS + GROUP,
    PIXELS_A_PASS = BRINGERS / LANES_A_ROW,
    //  Registers of a thread: 16 warps start with 128 each.
    MULTIPLIER_REGISTERS = 168,
    BRINGER_REGISTERS = 112,
    STORER_REGISTERS = 64,
    ROWS_A_PASS = PIXELS_A_PASS / SIDE,
    SLAB_PASSES = (HALO * HALO + PIXELS_A_PASS - 1) / PIXELS_A_PASS,
    HALF_PIXELS = SIDE * SIDE / 2,
    VECTORS = WIDTH / LANES,  //  of a pixel of the result
    RESULT_BYTES = HALF_PIXELS * WIDTH * 2
};

//  Barriers lie in the room that a slab leaves.
enum {
    SLAB_FULL,
    SLAB_EMPTY = SLAB_FULL + SLABS,
    WEIGHT_FULL = SLAB_EMPTY + SLABS,
    WEIGHT_EMPTY = WEIGHT_FULL + STAGES,
    RESULT_EMPTY = WEIGHT_EMPTY + STAGES,
    RESULT_FULL = RESULT_EMPTY + 2,
    BARRIERS = RESULT_FULL + 2
};

struct slab_room {
    unsigned char pixels[HALO * HALO * ROW_BYTES];
    unsigned long long rest[(SLAB_BYTES - HALO * HALO * ROW_BYTES) / 8];
};

static_assert(BARRIERS * 8 <= sizeof(slab_room::rest), "the barriers have room");

struct shared_memory {
    slab_room slab[SLABS];
    unsigned char weight[STAGES][TAP_BYTES];
    unsigned char result[2][RESULT_BYTES];  //  of each half; before that the residual
    moments parts[STORERS / 32][WIDTH / 4];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ uint32_t barrier_at(shared_memory &s, int which)
{
    return shared_address(&s.slab[0].rest[which]);
}

__device__ __forceinline__ float *part_pixels(shared_memory &s)
{
    return reinterpret_cast<float *>(s.slab[1].rest);
}

//  Where vector `v` of a pixel of a half lies; neighbours' are exchanged, for the banks.
__device__ __forceinline__ int result_at(int pixel, int v)
{
    return (pixel * VECTORS + (v ^ (pixel & 1) * 4)) * 16;
}

#endif

#endif
