//  Group norm's second half, where the value's own maker has left its statistics.
//
//  All it does is wait: for the kernel before, for memory, for the sums of other threads.
//  So the parts of a group lie next to each other and are asked for all at once.

#include "decoder/vae/cuda/norm_end.cuh"

enum { MERGERS = 512, AT_ONCE = 8 };

//  Pixels of one square of those that a kernel before has left.
__device__ static float part_pixels(const gpu_parts &parts, int part)
{
    const int columns = (parts.width + GPU_PART_SIDE - 1) / GPU_PART_SIDE;
    const int square = parts.folded ? part / 4 : part, row = square / columns;
    const int down = parts.height - row * GPU_PART_SIDE;
    const int across = parts.width - (square - row * columns) * GPU_PART_SIDE;
    return (float)(min(down, (int)GPU_PART_SIDE) * min(across, (int)GPU_PART_SIDE));
}

//  One block a group, whose runs of channels lie one after the other. WHOLE: no square is
//  cut off by the picture's border.
template <bool WHOLE>
__global__ void __launch_bounds__(MERGERS)
    pairs_of_parts(gpu_parts parts, int count, int each, const moments *left,
                   group_work work)
{
    const int g = blockIdx.x;
    distances mine = {};
    left += (size_t)g * each;
    for (int first = threadIdx.x; first < each; first += AT_ONCE * MERGERS) {
        moments m[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (first + k * MERGERS < each) m[k] = left[first + k * MERGERS];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (first + k * MERGERS < each)
                add_part(mine, m[k],
                         WHOLE ? (float)(GPU_PART_SIDE * GPU_PART_SIDE)
                               : part_pixels(parts, (first + k * MERGERS) % count),
                         work.share);
    }
    leave_pairs<MERGERS>(mine, g, work);
}

extern "C" cudaError_t gpu_norm_pairs_of_parts(const gpu_norm *norm,
                                               const gpu_parts *parts,
                                               const gpu_moments *left, gpu_pair *pairs,
                                               cudaStream_t stream)
{
    const group_work work = group_work_of(norm, GPU_PART_CHANNELS, pairs);
    const int count = (int)gpu_part_count(parts);
    const int each = count * (work.width / GPU_PART_CHANNELS);
    const bool whole =
        parts->height % GPU_PART_SIDE == 0 && parts->width % GPU_PART_SIDE == 0;
    if (whole)
        pairs_of_parts<true>
            <<<norm->groups, MERGERS, 0, stream>>>(*parts, count, each, left, work);
    else
        pairs_of_parts<false>
            <<<norm->groups, MERGERS, 0, stream>>>(*parts, count, each, left, work);
    return cudaGetLastError();
}
