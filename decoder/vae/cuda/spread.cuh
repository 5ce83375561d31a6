//  spread.cuh - statistics of values on their way out: near a pivot, then merged by pairs
//  (Chan, Golub, LeVeque 1979)

#ifndef LUNA_DECODER_VAE_CUDA_SPREAD_CUH
#define LUNA_DECODER_VAE_CUDA_SPREAD_CUH

//  Distances of four channels from a value near their mean, and their squares.
struct spread {
    float pivot, sum, squares, count;
};

__device__ __forceinline__ void add_four(spread &s, const float *v)
{
    if (s.count == 0.0F) s.pivot = v[0];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float off = v[k] - s.pivot;
        s.sum += off;
        s.squares = fmaf(off, off, s.squares);
    }
    s.count += 4.0F;
}

//  Mean, sum of squared distances from it, number of values.
struct counted {
    float mean, squares, count;
};

__device__ __forceinline__ counted merge(const counted &a, const counted &b)
{
    const float count = a.count + b.count, off = b.mean - a.mean;
    const float weight = count > 0.0F ? b.count / count : 0.0F;
    return counted{fmaf(off, weight, a.mean),
                   a.squares + b.squares + off * off * weight * a.count, count};
}

__device__ __forceinline__ counted counted_of(const spread &s)
{
    const float off = s.count > 0.0F ? s.sum / s.count : 0.0F;
    return counted{s.pivot + off, fmaxf(s.squares - s.sum * off, 0.0F), s.count};
}

//  With those of the lane that differs in bit `bit`; the lower lane's come first.
__device__ __forceinline__ counted merge_lanes(const counted &mine, int bit, int lane)
{
    const counted other = {__shfl_xor_sync(0xffffffffu, mine.mean, bit),
                           __shfl_xor_sync(0xffffffffu, mine.squares, bit),
                           __shfl_xor_sync(0xffffffffu, mine.count, bit)};
    return lane & bit ? merge(other, mine) : merge(mine, other);
}

#endif
