//  Moving values between layouts.

#include "decoder/vae/cuda/element.cuh"

//  One thread a vector of the result; `place` says where it comes from.
template <typename T>
__global__ void from_planes(const float *planes, T *y, int channels, int slots,
                            size_t pixels)
{
    const size_t count = pixels * slots;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        //  Neighbouring threads read neighbouring pixels of one plane.
        const size_t p = i % pixels;
        const int slot = (int)(i / pixels);
        float v[LANES];
#pragma unroll
        for (int k = 0; k < LANES; k++) {
            const int c = slot * LANES + k;
            v[k] = c < channels ? planes[c * pixels + p] : 0.0F;
        }
        store8(y + (p * slots + slot) * LANES, v);
    }
}

template <typename T>
__global__ void to_planes(const T *x, float *planes, int channels, int slots,
                          size_t pixels)
{
    const size_t count = pixels * slots;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        const size_t p = i % pixels;
        const int slot = (int)(i / pixels);
        float v[LANES];
        load8(x + (p * slots + slot) * LANES, v);
#pragma unroll
        for (int k = 0; k < LANES; k++)
            if (slot * LANES + k < channels)
                planes[(slot * LANES + k) * pixels + p] = v[k];
    }
}

template <typename T>
__global__ void upsample(const T *x, T *y, int slots, int height, int width)
{
    const size_t count = (size_t)height * width * slots;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        const size_t p = i / slots;
        const size_t row = p / width / 2, column = p % width / 2;
        vector<T> v;
        v.read(x + ((row * (width / 2) + column) * slots + i % slots) * LANES);
        v.write(y + i * LANES);
    }
}

//  Channel c at (row, column) comes from channel 4c + 2 (row % 2) + column % 2.
template <typename T>
__global__ void unpack(const T *x, T *y, int channels, int height, int width)
{
    const int room = (channels + 7) / 8 * 8, from_room = (4 * channels + 7) / 8 * 8;
    const size_t count = (size_t)height * width * room;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        const int c = (int)(i % room);
        const size_t p = i / room, row = p / width, column = p % width;
        const size_t from = (row / 2 * (width / 2) + column / 2) * from_room + 4 * c +
                            2 * (row % 2) + column % 2;
        y[i] = c < channels ? x[from] : T(0.0F);
    }
}

extern "C" cudaError_t gpu_from_planes(const gpu_extent *to, const float *planes, void *y,
                                       cudaStream_t stream)
{
    const int slots = tile_channels(to->channels).slots;
    const size_t pixels = gpu_pixels(to);
    FOR_TYPE(to->type, T,
             from_planes<T><<<blocks_for(pixels * slots, 256), 256, 0, stream>>>(
                 planes, static_cast<T *>(y), to->channels, slots, pixels));
    return cudaGetLastError();
}

extern "C" cudaError_t gpu_to_planes(const gpu_extent *from, const void *x, float *planes,
                                     cudaStream_t stream)
{
    const int slots = tile_channels(from->channels).slots;
    const size_t pixels = gpu_pixels(from);
    FOR_TYPE(from->type, T,
             to_planes<T><<<blocks_for(pixels * slots, 256), 256, 0, stream>>>(
                 static_cast<const T *>(x), planes, from->channels, slots, pixels));
    return cudaGetLastError();
}

extern "C" cudaError_t gpu_upsample(const gpu_extent *to, const void *x, void *y,
                                    cudaStream_t stream)
{
    const int slots = tile_channels(to->channels).slots;
    FOR_TYPE(to->type, T,
             upsample<T><<<blocks_for(gpu_pixels(to) * slots, 256), 256, 0, stream>>>(
                 static_cast<const T *>(x), static_cast<T *>(y), slots, to->height,
                 to->width));
    return cudaGetLastError();
}

extern "C" cudaError_t gpu_unpack(const gpu_extent *to, const void *x, void *y,
                                  cudaStream_t stream)
{
    const size_t count = gpu_pixels(to) * gpu_room((size_t)to->channels);
    FOR_TYPE(to->type, T,
             unpack<T><<<blocks_for(count, 256), 256, 0, stream>>>(
                 static_cast<const T *>(x), static_cast<T *>(y), to->channels, to->height,
                 to->width));
    return cudaGetLastError();
}
