//  special.cuh - decoder/vae/cuda/special.cuh for lanes

#ifndef LUNA_DECODER_VAE_CUDA_SPECIAL_CUH
#define LUNA_DECODER_VAE_CUDA_SPECIAL_CUH

#include "decoder/vae/cuda/kernels.h"

inline float power_of_two(float x)
{
    return exp2f(x);
}
inline float inverse(float x)
{
    return 1.0F / x;
}
inline float tangent(float x)
{
    return tanhf(x);
}
inline void read_two(const gpu_pair *from, gpu_pair &first, gpu_pair &second)
{
    first = from[0];
    second = from[1];
}
inline void read_past(const void *from, unsigned int (&w)[4])
{
    memcpy(w, from, sizeof w);
}

#endif
