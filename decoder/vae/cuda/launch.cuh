//  launch.cuh - kernels that start before the one ahead of them in the stream has ended
//
//  Where the card can (9.0 up), such a kernel's start costs no time of its own: its blocks
//  take their places as soon as there are some, and wait there.

#ifndef LUNA_DECODER_VAE_CUDA_LAUNCH_CUH
#define LUNA_DECODER_VAE_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

//  Until what was ahead in the stream has ended. Every thread of an early kernel calls it
//  before it reads what others wrote, and before it writes what others read or wrote.
__device__ __forceinline__ void wait_for_stream()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

//  The next kernel may start, when it is an early one, once all blocks have called this.
__device__ __forceinline__ void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static inline bool starts_early()
{
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
}

//  Starts an early kernel.
template <typename... Parameters, typename... Arguments>
static cudaError_t launch_early(void (*kernel)(Parameters...), dim3 blocks, int threads,
                                size_t shared, cudaStream_t stream,
                                Arguments... arguments)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = dim3((unsigned int)threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = starts_early() ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

#endif
