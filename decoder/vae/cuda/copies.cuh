//  copies.cuh - copies to shared memory that a thread does not wait for: sm_80 and up

#ifndef LUNA_DECODER_VAE_CUDA_COPIES_CUH
#define LUNA_DECODER_VAE_CUDA_COPIES_CUH

#include <stdint.h>

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

//  16 bytes, or as many zeros when they are not there; of each thread by itself.
__device__ __forceinline__ void copy_16(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

//  Until all copies of this thread are there, for itself to see.
__device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

#endif
