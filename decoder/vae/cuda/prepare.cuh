//  prepare.cuh - a group norm's second half and SiLU, of vectors that lie in shared memory

#ifndef LUNA_DECODER_VAE_CUDA_PREPARE_CUH
#define LUNA_DECODER_VAE_CUDA_PREPARE_CUH

#include "decoder/vae/cuda/element.cuh"

//  The pairs of x / 2. Read here: before what is waited for afterwards.
__device__ __forceinline__ void read_halves(const gpu_pair *pairs, gpu_pair (&out)[LANES])
{
#pragma unroll
    for (int i = 0; i < LANES; i += 2)
        asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(out[i].scale), "=f"(out[i].offset), "=f"(out[i + 1].scale),
                       "=f"(out[i + 1].offset)
                     : "l"(pairs + i)
                     : "memory");
#pragma unroll
    for (int i = 0; i < LANES; i++) {
        out[i].scale *= 0.5F;
        out[i].offset *= 0.5F;
    }
}

//  Volatile, so that they stay in the order in which they are written: the compiler's own
//  has each wait for the one before.
__device__ __forceinline__ float tangent(float x)
{
    float t;
    asm volatile("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x));
    return t;
}

//  Norm and activation of vectors, each step for all of their values so that none waits
//  for another. With h = x / 2, of which `halves` are the pairs, silu(x) = h + h tanh(h):
//  one instruction of the special kind where exponential and division take two; it is
//  off by 2^-11 at most, less than the rounding to 16 bits.
template <typename T, int COUNT, int STEP_BYTES>
__device__ __forceinline__ void prepare_vectors(unsigned char *at, unsigned there,
                                                const gpu_pair (&halves)[LANES])
{
    float h[COUNT][LANES], t[COUNT][LANES];
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        load8(reinterpret_cast<const T *>(at + i * STEP_BYTES), h[i]);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
        for (int k = 0; k < LANES; k++) {
            h[i][k] = fmaf(h[i][k], halves[k].scale, halves[k].offset);
            t[i][k] = tangent(h[i][k]);
        }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
        for (int k = 0; k < LANES; k++) h[i][k] = fmaf(h[i][k], t[i][k], h[i][k]);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (there >> i & 1)
            store8(reinterpret_cast<T *>(at + i * STEP_BYTES), h[i]);
}

#endif
