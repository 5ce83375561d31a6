//  Softmax of rows: one block a row, read twice (the second time from the cache), so a
//  row may have any length.

#include "decoder/vae/cuda/element.cuh"

enum { THREADS = 512 };

struct running {
    float most;
    float sum;  //  of exp(x - most)
};

__device__ running merge(running a, running b)
{
    const float most = fmaxf(a.most, b.most);
    //  Both empty: no difference of infinities.
    if (most == -INFINITY) return a;
    return running{most, a.sum * __expf(a.most - most) + b.sum * __expf(b.most - most)};
}

__device__ running reduce(running mine)
{
    __shared__ running part[THREADS / 32];
    for (int off = 16; off > 0; off /= 2)
        mine = merge(mine, running{__shfl_xor_sync(0xffffffffu, mine.most, off),
                                   __shfl_xor_sync(0xffffffffu, mine.sum, off)});
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = part[0];
    for (int i = 1; i < THREADS / 32; i++) mine = merge(mine, part[i]);
    return mine;
}

template <typename S>
__device__ running scan(const S *row, size_t count)
{
    running mine = {-INFINITY, 0.0F};
    const size_t vectors = count / LANES;
#pragma unroll 2
    for (size_t i = threadIdx.x; i < vectors; i += THREADS) {
        float v[LANES];
        load8(row + i * LANES, v);
        float most = v[0];
#pragma unroll
        for (int k = 1; k < LANES; k++) most = fmaxf(most, v[k]);
        if (most > mine.most) {
            mine.sum *= __expf(mine.most - most);
            mine.most = most;
        }
#pragma unroll
        for (int k = 0; k < LANES; k++) mine.sum += __expf(v[k] - mine.most);
    }
    for (size_t i = vectors * LANES + threadIdx.x; i < count; i += THREADS)
        mine = merge(mine, running{float(row[i]), 1.0F});
    return mine;
}

//  Rows start at multiples of `pitch`, itself a multiple of the vector.
template <typename S, typename P>
__global__ void __launch_bounds__(THREADS)
    softmax(const S *from, P *to, size_t count, size_t pitch)
{
    const S *row = from + blockIdx.x * pitch;
    P *out = to + blockIdx.x * pitch;
    const running all = reduce(scan(row, count));
    const float scale = 1.0F / all.sum;
    const size_t vectors = count / LANES;
#pragma unroll 2
    for (size_t i = threadIdx.x; i < vectors; i += THREADS) {
        float v[LANES];
        load8(row + i * LANES, v);
#pragma unroll
        for (int k = 0; k < LANES; k++) v[k] = __expf(v[k] - all.most) * scale;
        store8(out + i * LANES, v);
    }
    for (size_t i = vectors * LANES + threadIdx.x; i < count; i += THREADS)
        out[i] = P(__expf(float(row[i]) - all.most) * scale);
    //  What lies between the end of a row and the next counts for nothing.
    for (size_t i = count + threadIdx.x; i < pitch; i += THREADS) out[i] = P(0.0F);
}

template <typename S, typename P>
static void launch(const void *from, void *to, size_t rows, size_t count,
                   cudaStream_t stream)
{
    softmax<S, P><<<(unsigned int)rows, THREADS, 0, stream>>>(
        static_cast<const S *>(from), static_cast<P *>(to), count, gpu_room(count));
}

extern "C" cudaError_t gpu_softmax(gpu_type from_type, const void *from, gpu_type to_type,
                                   void *to, size_t rows, size_t count,
                                   cudaStream_t stream)
{
    if (from_type == GPU_FP16 && to_type == GPU_FP16)
        launch<__half, __half>(from, to, rows, count, stream);
    else if (from_type == GPU_FP32 && to_type == GPU_BF16)
        launch<float, __nv_bfloat16>(from, to, rows, count, stream);
    else if (from_type == GPU_FP32 && to_type == GPU_FP32)
        launch<float, float>(from, to, rows, count, stream);
    else
        return cudaErrorInvalidValue;
    return cudaGetLastError();
}
