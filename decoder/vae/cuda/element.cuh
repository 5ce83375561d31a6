//  element.cuh - eight channels of a value at a time, as float, whatever the type

#ifndef LUNA_DECODER_VAE_CUDA_ELEMENT_CUH
#define LUNA_DECODER_VAE_CUDA_ELEMENT_CUH

#include "decoder/vae/cuda/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { LANES = 8 };  //  channels of a vector

struct alignas(16) words {
    unsigned int w[4];
};

__device__ __forceinline__ float2 widen(__half2 v)
{
    return __half22float2(v);
}
__device__ __forceinline__ float2 widen(__nv_bfloat162 v)
{
    return __bfloat1622float2(v);
}
__device__ __forceinline__ __half2 narrow(float a, float b, __half)
{
    return __floats2half2_rn(a, b);
}
__device__ __forceinline__ __nv_bfloat162 narrow(float a, float b, __nv_bfloat16)
{
    return __floats2bfloat162_rn(a, b);
}

template <typename T>
struct pair_of;
template <>
struct pair_of<__half> {
    typedef __half2 type;
};
template <>
struct pair_of<__nv_bfloat16> {
    typedef __nv_bfloat162 type;
};

//  Eight values as they lie in memory: one 16-byte word, for float two.
template <typename T>
struct vector {
    words at;
    __device__ void read(const T *p)
    {
        at = *reinterpret_cast<const words *>(p);
    }
    __device__ void write(T *p) const
    {
        *reinterpret_cast<words *>(p) = at;
    }
    __device__ void to(float (&v)[LANES]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            typename pair_of<T>::type two;
            memcpy(&two, &at.w[i], 4);
            const float2 f = widen(two);
            v[2 * i] = f.x;
            v[2 * i + 1] = f.y;
        }
    }
    __device__ void from(const float (&v)[LANES])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const typename pair_of<T>::type two = narrow(v[2 * i], v[2 * i + 1], T());
            memcpy(&at.w[i], &two, 4);
        }
    }
};

template <>
struct vector<float> {
    float4 at[2];
    __device__ void read(const float *p)
    {
        at[0] = reinterpret_cast<const float4 *>(p)[0];
        at[1] = reinterpret_cast<const float4 *>(p)[1];
    }
    __device__ void write(float *p) const
    {
        reinterpret_cast<float4 *>(p)[0] = at[0];
        reinterpret_cast<float4 *>(p)[1] = at[1];
    }
    __device__ void to(float (&v)[LANES]) const
    {
        memcpy(v, at, sizeof at);
    }
    __device__ void from(const float (&v)[LANES])
    {
        memcpy(at, v, sizeof at);
    }
};

template <typename T>
__device__ __forceinline__ void load8(const T *p, float (&v)[LANES])
{
    vector<T> x;
    x.read(p);
    x.to(v);
}

template <typename T>
__device__ __forceinline__ void store8(T *p, const float (&v)[LANES])
{
    vector<T> x;
    x.from(v);
    x.write(p);
}

//  x / (1 + exp(-x)) in six instructions. A large -x makes the exponential infinite and
//  the result -0, as it should be; NaN and infinite -x give NaN.
__device__ __forceinline__ float silu(float x)
{
    float power, inverse;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.4426950408889634F));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0F + power));
    return x * inverse;
}

//  Written so that NaN stays NaN: it must be seen at the end, not hidden.
template <gpu_act ACT>
__device__ __forceinline__ float activate(float x)
{
    if (ACT == GPU_RELU) return x < 0.0F ? 0.0F : x;
    if (ACT == GPU_SILU) return silu(x);
    return x;
}

template <gpu_act ACT>
__device__ __forceinline__ float apply_pair(float x, gpu_pair pair)
{
    if (ACT == GPU_TANH) return pair.offset * tanhf(x * pair.scale);
    return activate<ACT>(fmaf(x, pair.scale, pair.offset));
}

//  Calls F<T>(...) for the element type of a value.
#define FOR_TYPE(type, T, ...)       \
    switch (type) {                  \
        case GPU_FP16: {             \
            typedef __half T;        \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        case GPU_BF16: {             \
            typedef __nv_bfloat16 T; \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        default: {                   \
            typedef float T;         \
            __VA_ARGS__;             \
            break;                   \
        }                            \
    }

#define FOR_ACT(act, ACT, ...)                  \
    switch (act) {                              \
        case GPU_RELU: {                        \
            constexpr gpu_act ACT = GPU_RELU;   \
            __VA_ARGS__;                        \
            break;                              \
        }                                       \
        case GPU_SILU: {                        \
            constexpr gpu_act ACT = GPU_SILU;   \
            __VA_ARGS__;                        \
            break;                              \
        }                                       \
        case GPU_TANH: {                        \
            constexpr gpu_act ACT = GPU_TANH;   \
            __VA_ARGS__;                        \
            break;                              \
        }                                       \
        default: {                              \
            constexpr gpu_act ACT = GPU_LINEAR; \
            __VA_ARGS__;                        \
            break;                              \
        }                                       \
    }

//  Blocks that fill the device a few times over, no more than there is work for.
static inline unsigned int blocks_for(size_t work, size_t a_block)
{
    const size_t wanted = (work + a_block - 1) / a_block;
    const size_t most = 132 * 16;
    return (unsigned int)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

//  A block whose threads each keep to one vector of channels: `slots` vectors a pixel,
//  `rows` pixels at a time.
struct tiling {
    int slots;
    int rows;
    int threads;
};

static inline tiling tile_channels(int channels)
{
    const int slots = (int)(gpu_room((size_t)channels) / LANES);
    const int rows = slots >= 256 ? 1 : 256 / slots;
    const tiling t = {slots, rows, slots * rows};
    return t;
}

#endif
