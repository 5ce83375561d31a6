//  Group norm's statistics, and RMS norm.
//
//  A block takes a run of pixels and sums, for each channel, the distances from one of
//  its own values and their squares: no cancellation, however far the mean is from zero.
//  Its channels are merged to groups, and the groups of all blocks (norm_end.cuh), in one
//  fixed order.

#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/norm_end.cuh"

enum {
    BLOCKS_MAX = 264,
    PIXELS_A_ROW = 16,
    MERGERS = 128,
    PARTS_MAX = 3  //  blocks that a merger takes, at most
};

static int block_count(const gpu_norm *norm)
{
    const tiling t = tile_channels(norm->from.channels);
    const size_t a_block = (size_t)t.rows * PIXELS_A_ROW;
    const size_t wanted = (gpu_pixels(&norm->from) + a_block - 1) / a_block;
    return wanted < BLOCKS_MAX ? (int)wanted : BLOCKS_MAX;
}

//  Pixels that every block but the last ones takes.
static size_t block_pixels(const gpu_norm *norm, int blocks)
{
    return (gpu_pixels(&norm->from) + blocks - 1) / blocks;
}

enum { UNROLL = 16 };  //  loads on their way before the first is used

struct sums {
    float pivot[LANES];
    float sum[LANES];
    float squares[LANES];
};

template <typename T>
__device__ __forceinline__ void add_vector(const vector<T> &in, sums &s)
{
    float v[LANES];
    in.to(v);
#pragma unroll
    for (int k = 0; k < LANES; k++) {
        const float d = v[k] - s.pivot[k];
        s.sum[k] += d;
        s.squares[k] = fmaf(d, d, s.squares[k]);
    }
}

//  Sums of one thread: a vector of channels over every rows-th pixel of the block's run.
template <typename T>
__device__ void sum_run(const T *x, size_t room, size_t count, int row, int rows, sums &s)
{
    size_t p = row;
    for (; p + (UNROLL - 1) * rows < count; p += UNROLL * rows) {
        vector<T> in[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) in[u].read(x + (p + u * rows) * room);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) add_vector(in[u], s);
    }
    for (; p < count; p += rows) {
        vector<T> in;
        in.read(x + p * room);
        add_vector(in, s);
    }
}

//  One channel of the block from its rows' sums, which start at `pivot`.
__device__ moments channel_moments(const float2 *sums, int room, int rows, int channel,
                                   float pivot, float count)
{
    float sum = 0.0F, squares = 0.0F;
    for (int row = 0; row < rows; row++) {
        sum += sums[row * room + channel].x;
        squares += sums[row * room + channel].y;
    }
    const float off = sum / count;
    const moments m = {pivot + off, fmaxf(squares - sum * off, 0.0F)};
    return isfinite(squares) ? m : moments{NAN, NAN};
}

//  Channels of equal weight to one group.
__device__ moments merge_channels(const moments *channel, int width, float count)
{
    float mean = 0.0F, squares = 0.0F;
    for (int i = 0; i < width; i++) mean += channel[i].mean;
    mean /= (float)width;
    for (int i = 0; i < width; i++) {
        const float off = channel[i].mean - mean;
        squares += channel[i].squares + count * off * off;
    }
    return moments{mean, squares};
}

template <typename T>
__global__ void __launch_bounds__(256, 2)
    block_moments(const T *x, size_t pixels, int channels, int groups, int slots,
                  int rows, size_t a_block, const float *pending, moments *out)
{
    extern __shared__ float2 rows_of[];  //  [rows][room], then the channels' moments
    const int room = slots * LANES, width = channels / groups;
    const int slot = threadIdx.x % slots, row = threadIdx.x / slots;
    //  Backwards: what was written last is in the cache still.
    const size_t block = gridDim.x - 1 - blockIdx.x, first = block * a_block;
    moments *channel = reinterpret_cast<moments *>(rows_of + rows * room);
    if (first >= pixels) return;
    const size_t count = pixels - first < a_block ? pixels - first : a_block;
    sums s = {{0}, {0}, {0}};
    x += first * room;
    load8(x + slot * LANES, s.pivot);
    sum_run(x + slot * LANES, room, count, row, rows, s);
#pragma unroll
    for (int k = 0; k < LANES; k++)
        rows_of[row * room + slot * LANES + k] = make_float2(s.sum[k], s.squares[k]);
    __syncthreads();
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        channel[c] = channel_moments(rows_of, room, rows, c, float(x[c]), (float)count);
        if (pending) channel[c].mean += pending[c];
    }
    __syncthreads();
    for (int g = threadIdx.x; g < groups; g += blockDim.x)
        out[block * groups + g] =
            merge_channels(channel + g * width, width, (float)count);
}

//  One block a group, from what the blocks before have left of it.
__global__ void __launch_bounds__(MERGERS)
    group_pairs(const moments *blocks, int block_count, size_t pixels, size_t a_block,
                group_work work)
{
    const int g = blockIdx.x;
    distances mine = {};
#pragma unroll
    for (int i = 0; i < PARTS_MAX; i++) {
        const size_t b = threadIdx.x + i * MERGERS, first = b * a_block;
        if (b >= block_count || first >= pixels) continue;
        const size_t left = pixels - first;
        add_part(mine, blocks[b * work.groups + g],
                 (float)(left < a_block ? left : a_block), work.share);
    }
    leave_pairs<MERGERS>(mine, g, work);
}

//  `lanes` threads a pixel, a power of two.
template <typename T, gpu_act ACT>
__global__ void rms_norm(const T *x, T *y, int channels, int slots, int lanes,
                         size_t pixels, float epsilon, const float *weight)
{
    const int lane = threadIdx.x % lanes;
    const size_t a_block = blockDim.x / lanes, step = gridDim.x * a_block;
    const size_t rounds = (pixels + step - 1) / step;
    size_t p = blockIdx.x * a_block + threadIdx.x / lanes;
    for (size_t round = 0; round < rounds; round++, p += step) {
        float sum = 0.0F, v[LANES];
        for (int s = lane; s < slots && p < pixels; s += lanes) {
            load8(x + (p * slots + s) * LANES, v);
            for (int k = 0; k < LANES; k++)
                if (s * LANES + k < channels) sum = fmaf(v[k], v[k], sum);
        }
        for (int off = lanes / 2; off > 0; off /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, off);
        const float length = sqrtf(sum);
        //  fmaxf would hide a NaN.
        const float scale =
            sqrtf((float)channels) / (length < epsilon ? epsilon : length);
        for (int s = lane; s < slots && p < pixels; s += lanes) {
            load8(x + (p * slots + s) * LANES, v);
            for (int k = 0; k < LANES; k++) {
                const int c = s * LANES + k;
                v[k] = c < channels ? activate<ACT>(v[k] * scale * weight[c]) : 0.0F;
            }
            store8(y + (p * slots + s) * LANES, v);
        }
    }
}

extern "C" size_t gpu_norm_scratch(const gpu_norm *norm)
{
    return (size_t)block_count(norm) * norm->groups * sizeof(moments);
}

extern "C" cudaError_t gpu_norm_pairs(const gpu_norm *norm, const void *x, void *scratch,
                                      gpu_pair *pairs, cudaStream_t stream)
{
    const tiling t = tile_channels(norm->from.channels);
    const size_t pixels = gpu_pixels(&norm->from);
    const int blocks = block_count(norm), room = t.slots * LANES;
    const size_t a_block = block_pixels(norm, blocks);
    const size_t shared = ((size_t)t.rows * room + room) * sizeof(float2);
    moments *partial = static_cast<moments *>(scratch);
    if (t.threads > 256 || shared > 48 * 1024) return cudaErrorInvalidValue;
    FOR_TYPE(norm->from.type, T,
             block_moments<T><<<blocks, t.threads, shared, stream>>>(
                 static_cast<const T *>(x), pixels, norm->from.channels, norm->groups,
                 t.slots, t.rows, a_block, norm->pending, partial));
    const group_work work =
        group_work_of(norm, norm->from.channels / norm->groups, pairs);
    group_pairs<<<norm->groups, MERGERS, 0, stream>>>(partial, blocks, pixels, a_block,
                                                      work);
    return cudaGetLastError();
}

static int lanes_for(int slots)
{
    int lanes = 1;
    while (lanes < slots && lanes < 32) lanes *= 2;
    return lanes;
}

template <typename T>
static void rms_norm_to(const gpu_extent *e, float epsilon, const float *weight,
                        gpu_act act, const T *x, T *y, cudaStream_t stream)
{
    const int slots = tile_channels(e->channels).slots, lanes = lanes_for(slots);
    const size_t pixels = gpu_pixels(e);
    const unsigned int blocks = blocks_for(pixels * lanes, 256);
    if (act == GPU_SILU)
        rms_norm<T, GPU_SILU><<<blocks, 256, 0, stream>>>(x, y, e->channels, slots, lanes,
                                                          pixels, epsilon, weight);
    else if (act == GPU_RELU)
        rms_norm<T, GPU_RELU><<<blocks, 256, 0, stream>>>(x, y, e->channels, slots, lanes,
                                                          pixels, epsilon, weight);
    else
        rms_norm<T, GPU_LINEAR><<<blocks, 256, 0, stream>>>(
            x, y, e->channels, slots, lanes, pixels, epsilon, weight);
}

extern "C" cudaError_t gpu_rms_norm(const gpu_extent *e, float epsilon,
                                    const float *weight, gpu_act act, const void *x,
                                    void *y, cudaStream_t stream)
{
    FOR_TYPE(e->type, T,
             rms_norm_to(e, epsilon, weight, act, static_cast<const T *>(x),
                         static_cast<T *>(y), stream));
    return cudaGetLastError();
}
