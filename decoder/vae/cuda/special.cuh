//  special.cuh - single instructions of the card for which C++ has no word

#ifndef LUNA_DECODER_VAE_CUDA_SPECIAL_CUH
#define LUNA_DECODER_VAE_CUDA_SPECIAL_CUH

#include "decoder/vae/cuda/kernels.h"

//  2^x and 1/x, to about the last two bits.
__device__ __forceinline__ float power_of_two(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
__device__ __forceinline__ float inverse(float x)
{
    float part;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(part) : "f"(x));
    return part;
}

//  tanh(x) to 2^-11. Volatile, so that several stay in the order in which they are
//  written: the compiler's own has each wait for the one before.
__device__ __forceinline__ float tangent(float x)
{
    float t;
    asm volatile("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x));
    return t;
}

//  Two pairs, read here: before what is waited for afterwards.
__device__ __forceinline__ void read_two(const gpu_pair *from, gpu_pair &first,
                                         gpu_pair &second)
{
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(first.scale), "=f"(first.offset), "=f"(second.scale),
                   "=f"(second.offset)
                 : "l"(from)
                 : "memory");
}

//  16 bytes, read once, by this thread alone, and soon the rest of the line by it too.
__device__ __forceinline__ void read_past(const void *from, unsigned int (&w)[4])
{
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                 : "l"(from));
}

#endif
