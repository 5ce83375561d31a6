//  The last convolution, 3 x 3 to three or four channels: bound by reading its input, so
//  the norm and the activation before it are applied on the way in.
//
//  A convolution to so few channels is turned round: each pixel of a tile and its border
//  is multiplied once by the weights of all nine taps (a matrix product of pixels by taps
//  and channels, mma.sync m16n8k16), and a result is the sum of nine neighbours'
//  products. Depth is summed in an order in which a thread's eight neighbouring channels
//  are its own operands: what it loads it multiplies, without a way through shared
//  memory.

#include "decoder/vae/cuda/element.cuh"

enum {
    ROWS = 16,
    COLUMNS = 30,
    TILE_ROWS = ROWS + 2,
    TILE_COLUMNS = COLUMNS + 2,
    TILE = TILE_ROWS * TILE_COLUMNS,
    GROUP = 16,  //  pixels of a product
    WARPS = 12,
    THREADS = 32 * WARPS,
    DEPTH = 32,  //  channels at a time: eight for each of a row's four threads
    TAPS = 9,
    COLUMN_TILES = (TAPS * GPU_LAST_CHANNELS + 7) / 8
};

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned int (&a)[4],
                                         uint2 b, __half)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b.x));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b.y));
#endif
}

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned int (&a)[4],
                                         uint2 b, __nv_bfloat16)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
#endif
}

//  The two pixels of a group that a thread loads; NULL outside the picture.
template <typename T>
struct pixels {
    const T *at[2];
};

template <typename T>
__device__ pixels<T> find_pixels(const gpu_last_args &a, const T *x, int room, int group)
{
    pixels<T> p;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = group * GROUP + threadIdx.x % 32 / 4 + half * 8;
        const int row = blockIdx.y * ROWS + i / TILE_COLUMNS - 1;
        const int column = blockIdx.x * COLUMNS + i % TILE_COLUMNS - 1;
        const bool inside =
            row >= 0 && row < a.from.height && column >= 0 && column < a.from.width;
        p.at[half] = inside ? x + ((size_t)row * a.from.width + column) * room : nullptr;
    }
    return p;
}

//  Zeros for what is outside, also of the activation's value there.
template <typename T>
__device__ __forceinline__ void read(const pixels<T> &p, int channel, int room,
                                     vector<T> (&out)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (p.at[half] && channel < room) out[half].read(p.at[half] + channel);
}

template <typename T, gpu_act ACT>
__device__ __forceinline__ void activate_pixel(vector<T> &v, bool inside,
                                               const gpu_pair *pairs)
{
    float f[LANES];
    v.to(f);
#pragma unroll
    for (int k = 0; k < LANES; k++) {
        const gpu_pair plain = {1.0F, 0.0F};
        f[k] = inside ? apply_pair<ACT>(f[k], pairs ? pairs[k] : plain) : 0.0F;
    }
    v.from(f);
}

//  The products of one group of pixels.
template <typename T, gpu_act ACT>
__device__ void multiply_group(const gpu_last_args &a, const T *x, int room, int group,
                               float (&sum)[COLUMN_TILES][4])
{
    const int lane = threadIdx.x % 32, own = lane % 4 * LANES;
    const pixels<T> p = find_pixels(a, x, room, group);
    const uint2 *fragments = static_cast<const uint2 *>(a.fragments) + lane;
    vector<T> now[2], next[2];
    read(p, own, room, next);
    for (int depth = 0; depth < room; depth += DEPTH) {
        const int channel = depth + own;
        const gpu_pair *pairs = a.pairs ? a.pairs + channel : nullptr;
        now[0] = next[0];
        now[1] = next[1];
        read(p, channel + DEPTH, room, next);
        activate_pixel<T, ACT>(now[0], p.at[0] && channel < room, pairs);
        activate_pixel<T, ACT>(now[1], p.at[1] && channel < room, pairs);
#pragma unroll
        for (int step = 0; step < 2; step++) {
            const unsigned int m[4] = {now[0].at.w[2 * step], now[1].at.w[2 * step],
                                       now[0].at.w[2 * step + 1],
                                       now[1].at.w[2 * step + 1]};
#pragma unroll
            for (int t = 0; t < COLUMN_TILES; t++)
                multiply(sum[t], m,
                         __ldg(fragments +
                               ((depth / DEPTH * 2 + step) * COLUMN_TILES + t) * 32),
                         T());
        }
    }
}

__device__ void keep_group(const float (&sum)[COLUMN_TILES][4], int group, int used,
                           float *products)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < COLUMN_TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = t * 8 + lane % 4 * 2 + i % 2;
            const int pixel = group * GROUP + lane / 4 + i / 2 * 8;
            if (column < used) products[pixel * used + column] = sum[t][i];
        }
}

__device__ void sum_taps(const gpu_last_args &a, const float *products, float *planes)
{
    const int used = TAPS * a.channels;
    const size_t area = (size_t)a.from.height * a.from.width;
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += THREADS) {
        const int row = i / COLUMNS, column = i % COLUMNS;
        const int y = blockIdx.y * ROWS + row, x = blockIdx.x * COLUMNS + column;
        if (y >= a.from.height || x >= a.from.width) continue;
        for (int c = 0; c < a.channels; c++) {
            float sum = a.bias ? a.bias[c] : 0.0F;
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) {
                const int pixel = (row + tap / 3) * TILE_COLUMNS + column + tap % 3;
                sum += products[pixel * used + tap * a.channels + c];
            }
            planes[c * area + (size_t)y * a.from.width + x] = sum;
        }
    }
}

template <typename T, gpu_act ACT>
__global__ void __launch_bounds__(THREADS, 2)
    conv_last(gpu_last_args a, int room, const T *x, float *planes)
{
    extern __shared__ float products[];  //  [TILE][taps x channels]
#pragma unroll 1
    for (int group = threadIdx.x / 32; group < TILE / GROUP; group += WARPS) {
        float sum[COLUMN_TILES][4] = {};
        multiply_group<T, ACT>(a, x, room, group, sum);
        keep_group(sum, group, TAPS * a.channels, products);
    }
    __syncthreads();
    sum_taps(a, products, planes);
}

static int steps_of(int channels)
{
    return ((int)gpu_room((size_t)channels) + DEPTH - 1) / DEPTH * 2;
}

extern "C" size_t gpu_conv_last_bytes(int from_channels)
{
    return (size_t)steps_of(from_channels) * COLUMN_TILES * 32 * sizeof(uint2);
}

static unsigned short bits_of(gpu_type type, float value)
{
    unsigned short bits;
    const __half half = __float2half_rn(value);
    const __nv_bfloat16 brain = __float2bfloat16_rn(value);
    memcpy(&bits, type == GPU_FP16 ? (const void *)&half : (const void *)&brain, 2);
    return bits;
}

extern "C" void gpu_narrow(gpu_type type, float *values, size_t count)
{
    unsigned char *to = reinterpret_cast<unsigned char *>(values);
    for (size_t i = 0; i < count; i++) {
        const unsigned short bits = bits_of(type, values[i]);
        memcpy(to + 2 * i, &bits, 2);
    }
}

//  Lane l holds, of column l / 4 of each tile, four depths of each step (PTX ISA, matrix
//  fragments for mma.m16n8k16): in our order the channels 8 (l % 4) + 4 step + {0, 1, 2,
//  3} of each 32. Columns are taps by channels.
extern "C" void gpu_conv_last_pack(gpu_type type, const float *weight, int channels,
                                   int from_channels, void *fragments)
{
    const int steps = steps_of(from_channels);
    unsigned short *out = static_cast<unsigned short *>(fragments);
    for (int step = 0; step < steps; step++)
        for (int tile = 0; tile < COLUMN_TILES; tile++)
            for (int lane = 0; lane < 32; lane++)
                for (int i = 0; i < 4; i++) {
                    const int column = tile * 8 + lane / 4;
                    const int tap = column / channels, n = column % channels;
                    const int k = step / 2 * DEPTH + lane % 4 * LANES + step % 2 * 4 + i;
                    const bool there = tap < TAPS && k < from_channels;
                    *out++ =
                        bits_of(type, there ? weight[(n * from_channels + k) * TAPS + tap]
                                            : 0.0F);
                }
}

template <typename T, gpu_act ACT>
static cudaError_t launch(const gpu_last_args *a, const T *x, float *planes,
                          cudaStream_t stream)
{
    const dim3 grid((a->from.width + COLUMNS - 1) / COLUMNS,
                    (a->from.height + ROWS - 1) / ROWS);
    const int shared = TILE * TAPS * a->channels * (int)sizeof(float);
    //  More than a kernel may have unasked.
    const cudaError_t error = cudaFuncSetAttribute(
        conv_last<T, ACT>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (error != cudaSuccess) return error;
    conv_last<T, ACT><<<grid, THREADS, shared, stream>>>(
        *a, (int)gpu_room((size_t)a->from.channels), x, planes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t choose(const gpu_last_args *a, const T *x, float *planes,
                          cudaStream_t stream)
{
    if (a->act == GPU_RELU) return launch<T, GPU_RELU>(a, x, planes, stream);
    if (a->act == GPU_SILU) return launch<T, GPU_SILU>(a, x, planes, stream);
    return launch<T, GPU_LINEAR>(a, x, planes, stream);
}

extern "C" cudaError_t gpu_conv_last(const gpu_last_args *last, const void *x,
                                     float *planes, cudaStream_t stream)
{
    if (last->from.type == GPU_FP32 || last->channels > GPU_LAST_CHANNELS ||
        last->from.height > 65535 * ROWS)
        return cudaErrorInvalidValue;
    if (last->from.type == GPU_FP16)
        return choose(last, static_cast<const __half *>(x), planes, stream);
    return choose(last, static_cast<const __nv_bfloat16 *>(x), planes, stream);
}
