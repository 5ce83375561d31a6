//  The fused convolution on the tensor cores of sm_90.
//
//  A block keeps one multiprocessor busy and goes from tile to tile: 16 x 16 pixels, 128
//  channels of the result. Its warps share the work out:
//
//  - bringing, four warps: pixels of the tile and of the ring around it, 64 channels
//    at a time, normalised and activated on the way, to a slab in shared memory;
//  - multiplying, two warpgroups, each eight rows of the tile: all taps of the kernel
//    read the same slab, each from another row on, because a matrix may start
//    anywhere; one thread has the copy engine bring the weights, tap after tap;
//  - storing, two warps: the residual to shared memory before the tile is done, the
//    result from there to where it belongs, and the mean and the spread of every four
//    channels for the norm that follows.
//
//  They are in wgmma_bring.cuh, wgmma_multiply.cuh and wgmma_store.cuh; what they share
//  is in wgmma_shared.cuh, how the work is cut in fused.cuh.

#include "decoder/vae/cuda/wgmma_bring.cuh"
#include "decoder/vae/cuda/wgmma_multiply.cuh"
#include "decoder/vae/cuda/wgmma_store.cuh"

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ void start_barriers(shared_memory &s)
{
    for (int i = 0; i < SLABS; i++) {
        barrier_init(barrier_at(s, SLAB_FULL + i), BRINGERS);
        barrier_init(barrier_at(s, SLAB_EMPTY + i), 2);
    }
    for (int i = 0; i < STAGES; i++) {
        barrier_init(barrier_at(s, WEIGHT_FULL + i), 1);
        barrier_init(barrier_at(s, WEIGHT_EMPTY + i), 2);
    }
    for (int i = 0; i < 2; i++) {
        barrier_init(barrier_at(s, RESULT_EMPTY + i), STORERS);
        barrier_init(barrier_at(s, RESULT_FULL + i), GROUP);
    }
    barrier_init_done();
}

#endif

template <typename T, int TAPS, bool NORM>
__global__ void __launch_bounds__(THREADS, 1)
    conv_wgmma(const __grid_constant__ fused_work<T> work)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    shared_memory &s = *reinterpret_cast<shared_memory *>(memory);
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    if (threadIdx.x == 0) start_barriers(s);
    __syncthreads();
    if (group < 2) {
        take_registers<MULTIPLIER_REGISTERS>();
        multiply_tiles<T, TAPS>(work, s, group, thread);
    } else if (group == 2) {
        give_registers<BRINGER_REGISTERS>();
        bring_tiles<T, NORM>(work, s, thread);
    } else {
        give_registers<STORER_REGISTERS>();
        if (thread < STORERS)
            store_tiles<T, TAPS>(work, s, thread);
        else if (thread == STORERS)
            bring_weights(work, s);
    }
#else
    __trap();
#endif
}

template <typename T, int TAPS, bool NORM>
cudaError_t start(const fused_work<T> &work, int blocks, cudaStream_t stream)
{
    const cudaError_t error = cudaFuncSetAttribute(
        conv_wgmma<T, TAPS, NORM>, cudaFuncAttributeMaxDynamicSharedMemorySize,
        (int)sizeof(shared_memory));
    if (error != cudaSuccess) return error;
    conv_wgmma<T, TAPS, NORM><<<blocks, THREADS, sizeof(shared_memory), stream>>>(work);
    return cudaGetLastError();
}

template <typename T>
cudaError_t start_for(const gpu_fused_args *args, const void *x, void *y, int blocks,
                      cudaStream_t stream)
{
    const fused_work<T> work = work_of<WIDTH, T>(args, x, y);
    if (work.tiles < blocks) blocks = work.tiles;
    if (args->folded)
        return args->pairs ? start<T, 4, true>(work, blocks, stream)
                           : start<T, 4, false>(work, blocks, stream);
    return args->pairs ? start<T, 9, true>(work, blocks, stream)
                       : start<T, 9, false>(work, blocks, stream);
}

}  //  namespace

extern "C" cudaError_t gpu_conv_wgmma(const gpu_fused_args *args, const void *x, void *y,
                                      int multiprocessors, cudaStream_t stream)
{
    if (args->from.type == GPU_BF16)
        return start_for<__nv_bfloat16>(args, x, y, multiprocessors, stream);
    return start_for<__half>(args, x, y, multiprocessors, stream);
}
