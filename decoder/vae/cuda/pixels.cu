//  The decoder's output to what a saver or a node wants; see decoder/vae/pixels.h.

#include "decoder/vae/cuda/kernels.h"

__device__ static float unit_of(float value, bool unit)
{
    const float wide = unit ? (value - 0.5F) * 2.0F : value;
    const float in = (wide + 1.0F) / 2.0F;
    return in < 0.0F ? 0.0F : in > 1.0F ? 1.0F : in;
}

__device__ static uint8_t byte_of(float unit, bool round)
{
    const float value = 255.0F * unit;
    return (uint8_t)(round ? rintf(value) : value);
}

__global__ void convert(gpu_pixel_args a, const float *planes, void *to, int *bad)
{
    const size_t count = a.pixels * a.channels;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        const bool mixed = a.interleaved || a.bytes;
        const size_t from = mixed ? i % a.channels * a.pixels + i / a.channels : i;
        const float value = planes[from];
        if (!isfinite(value)) *bad = 1;
        const float out = a.raw ? value : unit_of(value, a.unit);
        if (a.bytes)
            static_cast<uint8_t *>(to)[i] = byte_of(out, a.round);
        else
            static_cast<float *>(to)[i] = out;
    }
}

extern "C" cudaError_t gpu_pixels_convert(const gpu_pixel_args *args, const float *planes,
                                          void *to, int *bad, cudaStream_t stream)
{
    const size_t count = args->pixels * args->channels;
    const size_t wanted = (count + 255) / 256, most = 132 * 16;
    convert<<<(unsigned int)(wanted < most ? wanted : most), 256, 0, stream>>>(
        *args, planes, to, bad);
    return cudaGetLastError();
}
