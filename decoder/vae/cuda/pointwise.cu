//  What is done to each value by itself: one read, one write, at the memory's speed.

#include "decoder/vae/cuda/element.cuh"

enum { UNROLL = 4 };  //  loads on their way before the first is used

//  A thread keeps to one vector of channels, so its pairs stay in registers.
template <typename T, gpu_act ACT>
__global__ void __launch_bounds__(1024)
    apply(const T *x, T *y, const gpu_pair *pairs, int slots, int rows, size_t pixels)
{
    const int slot = threadIdx.x % slots, row = threadIdx.x / slots;
    const size_t stride = (size_t)gridDim.x * rows;
    const size_t room = (size_t)slots * LANES;
    gpu_pair pair[LANES];
#pragma unroll
    for (int k = 0; k < LANES; k++) {
        const gpu_pair plain = {1.0F, 0.0F};
        pair[k] = pairs ? pairs[slot * LANES + k] : plain;
    }
    x += slot * LANES;
    y += slot * LANES;
    for (size_t p = blockIdx.x * (size_t)rows + row; p < pixels; p += UNROLL * stride) {
        vector<T> in[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (p + u * stride < pixels) in[u].read(x + (p + u * stride) * room);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            float v[LANES];
            in[u].to(v);
#pragma unroll
            for (int k = 0; k < LANES; k++) v[k] = apply_pair<ACT>(v[k], pair[k]);
            in[u].from(v);
            if (p + u * stride < pixels) in[u].write(y + (p + u * stride) * room);
        }
    }
}

template <typename T, gpu_act ACT>
__global__ void add(const T *x, const T *z, const float *bias, T *y, int slots,
                    size_t count)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        float a[LANES], b[LANES];
        load8(x + i * LANES, a);
        if (z) load8(z + i * LANES, b);
#pragma unroll
        for (int k = 0; k < LANES; k++) {
            float sum = a[k];
            if (bias) sum += bias[i % slots * LANES + k];
            if (z) sum += b[k];
            a[k] = activate<ACT>(sum);
        }
        store8(y + i * LANES, a);
    }
}

//  The bits of floats that are not negative are in the order of the floats.
template <typename T>
__global__ void largest(const T *x, size_t count, unsigned int *found)
{
    float most = 0.0F;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        float v[LANES];
        load8(x + i * LANES, v);
#pragma unroll
        for (int k = 0; k < LANES; k++)
            most = isfinite(v[k]) ? fmaxf(most, fabsf(v[k])) : INFINITY;
    }
    atomicMax(found, __float_as_uint(most));
}

template <typename T>
__global__ void fill(T *x, size_t count)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        unsigned int h = (unsigned int)i * 2654435761u + 12345u;
        h = (h ^ (h >> 15)) * 2246822519u;
        h = (h ^ (h >> 13)) * 3266489917u;
        x[i] = T((float)(int)(h ^ (h >> 16)) * 0x1p-31F);
    }
}

template <typename T>
static void apply_to(const gpu_extent *e, const gpu_pair *pairs, gpu_act act, const T *x,
                     T *y, cudaStream_t stream)
{
    const tiling t = tile_channels(e->channels);
    const size_t pixels = gpu_pixels(e);
    const unsigned int blocks = blocks_for(pixels, (size_t)t.rows * UNROLL);
    FOR_ACT(act, ACT,
            apply<T, ACT>
            <<<blocks, t.threads, 0, stream>>>(x, y, pairs, t.slots, t.rows, pixels));
}

extern "C" cudaError_t gpu_apply(const gpu_extent *e, const gpu_pair *pairs, gpu_act act,
                                 const void *x, void *y, cudaStream_t stream)
{
    FOR_TYPE(
        e->type, T,
        apply_to(e, pairs, act, static_cast<const T *>(x), static_cast<T *>(y), stream));
    return cudaGetLastError();
}

template <typename T>
static void add_to(const gpu_extent *e, const T *x, const T *z, const float *bias,
                   gpu_act act, T *y, cudaStream_t stream)
{
    const int slots = tile_channels(e->channels).slots;
    const size_t count = gpu_pixels(e) * slots;
    const unsigned int blocks = blocks_for(count, 256);
    if (act == GPU_RELU)
        add<T, GPU_RELU><<<blocks, 256, 0, stream>>>(x, z, bias, y, slots, count);
    else
        add<T, GPU_LINEAR><<<blocks, 256, 0, stream>>>(x, z, bias, y, slots, count);
}

extern "C" cudaError_t gpu_add(const gpu_extent *e, const void *x, const void *z,
                               const float *bias, gpu_act act, void *y,
                               cudaStream_t stream)
{
    FOR_TYPE(e->type, T,
             add_to(e, static_cast<const T *>(x), static_cast<const T *>(z), bias, act,
                    static_cast<T *>(y), stream));
    return cudaGetLastError();
}

extern "C" cudaError_t gpu_largest(const gpu_extent *e, const void *x, float *found,
                                   cudaStream_t stream)
{
    const size_t count = gpu_pixels(e) * tile_channels(e->channels).slots;
    unsigned int *bits = reinterpret_cast<unsigned int *>(found);
    FOR_TYPE(e->type, T,
             largest<T><<<blocks_for(count, 256), 256, 0, stream>>>(
                 static_cast<const T *>(x), count, bits));
    return cudaGetLastError();
}

extern "C" cudaError_t gpu_fill(gpu_type type, void *x, size_t count, cudaStream_t stream)
{
    FOR_TYPE(type, T,
             fill<T>
             <<<blocks_for(count, 256), 256, 0, stream>>>(static_cast<T *>(x), count));
    return cudaGetLastError();
}
