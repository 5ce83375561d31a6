//  The last convolution, 3 x 3 to a handful of channels: bound by reading its input, so
//  the norm and the activation before it are applied on the way in, once for each value
//  of a tile and its border. A block makes 8 rows of 32 pixels; a warp one row, as two
//  products of 16 pixels by 8 channels (mma.sync m16n8k16), 16 channels of depth a step.

#include "decoder/vae/cuda/element.cuh"

enum {
    ROWS = 8,
    COLUMNS = 32,
    TILE_ROWS = ROWS + 2,
    TILE_COLUMNS = COLUMNS + 2,
    TILE = TILE_ROWS * TILE_COLUMNS,
    CHUNK = 32,        //  channels in shared memory at a time
    PITCH = CHUNK + 8,  //  spreads the rows that one load reads over the banks
    STEP = 16,
    TAPS = 9,
    THREADS = 32 * ROWS
};

__device__ __forceinline__ void load_matrix(unsigned int (&a)[4], const void *at)
{
    const unsigned int address = (unsigned int)__cvta_generic_to_shared(at);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address));
}

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

//  The tile's next channels, normalised and activated; zeros around the picture.
template <typename T, gpu_act ACT>
__device__ void load_tile(const gpu_last_args &a, const T *x, int room, int first,
                          T (*tile)[PITCH])
{
    const int parts = CHUNK / LANES, part = threadIdx.x % parts;
    const int channel = first + part * LANES;
    const int top = blockIdx.y * ROWS - 1, left = blockIdx.x * COLUMNS - 1;
    gpu_pair pair[LANES];
#pragma unroll
    for (int k = 0; k < LANES; k++) {
        const gpu_pair plain = {1.0F, 0.0F};
        pair[k] = a.pairs && channel < room ? a.pairs[channel + k] : plain;
    }
#pragma unroll 3
    for (int i = threadIdx.x / parts; i < TILE; i += THREADS / parts) {
        const int row = top + i / TILE_COLUMNS, column = left + i % TILE_COLUMNS;
        const bool inside = row >= 0 && row < a.from.height && column >= 0 &&
                            column < a.from.width && channel < room;
        float v[LANES] = {0};
        if (inside) {
            load8(x + ((size_t)row * a.from.width + column) * room + channel, v);
#pragma unroll
            for (int k = 0; k < LANES; k++)
                v[k] = apply_pair<ACT>(v[k], pair[k]);
        }
        store8(&tile[i][part * LANES], v);
    }
}

//  All taps of the channels in shared memory, for this warp's row.
template <typename T>
__device__ void add_chunk(const T (*tile)[PITCH], const uint2 *fragments, int steps,
                          int first_step, float (&sum)[2][4])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        const int at = (warp + tap / 3) * TILE_COLUMNS + tap % 3 + lane % 16;
#pragma unroll
        for (int s = 0; s < CHUNK / STEP; s++) {
            if (first_step + s >= steps) break;
            const uint2 b = __ldg(fragments + (tap * steps + first_step + s) * 32 + lane);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned int m[4];
                load_matrix(m, &tile[at + half * 16][s * STEP + lane / 16 * 8]);
                multiply(sum[half], m, b, T());
            }
        }
    }
}

__device__ void store_row(const gpu_last_args &a, const float (&sum)[2][4], float *planes)
{
    const int lane = threadIdx.x % 32, row = blockIdx.y * ROWS + threadIdx.x / 32;
    const size_t pixels = (size_t)a.from.height * a.from.width;
    for (int i = 0; i < 8; i++) {
        const int half = i / 4, part = i % 4;
        const int column = blockIdx.x * COLUMNS + half * 16 + lane / 4 + part / 2 * 8;
        const int channel = lane % 4 * 2 + part % 2;
        if (row >= a.from.height || column >= a.from.width || channel >= a.channels)
            continue;
        planes[channel * pixels + (size_t)row * a.from.width + column] =
            sum[half][part] + (a.bias ? a.bias[channel] : 0.0F);
    }
}

template <typename T, gpu_act ACT>
__global__ void __launch_bounds__(THREADS)
    conv_last(gpu_last_args a, int room, const T *x, float *planes)
{
    __shared__ __align__(16) T tile[TILE][PITCH];
    const int steps = (room + STEP - 1) / STEP;
    const uint2 *fragments = static_cast<const uint2 *>(a.fragments);
    float sum[2][4] = {};
    for (int first = 0; first < room; first += CHUNK) {
        __syncthreads();
        load_tile<T, ACT>(a, x, room, first, tile);
        __syncthreads();
        add_chunk<T>(tile, fragments, steps, first / STEP, sum);
    }
    store_row(a, sum, planes);
}

static int steps_of(int channels)
{
    return ((int)gpu_room((size_t)channels) + STEP - 1) / STEP;
}

extern "C" size_t gpu_conv_last_bytes(int from_channels)
{
    return (size_t)TAPS * steps_of(from_channels) * 32 * sizeof(uint2);
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

//  Lane l holds, of the result channel l / 4, the depths 2 (l % 4) + {0, 1, 8, 9} of each
//  step (PTX ISA, matrix fragments for mma.m16n8k16).
extern "C" void gpu_conv_last_pack(gpu_type type, const float *weight, int channels,
                                   int from_channels, void *fragments)
{
    const int steps = steps_of(from_channels);
    unsigned short *out = static_cast<unsigned short *>(fragments);
    for (int tap = 0; tap < TAPS; tap++)
        for (int step = 0; step < steps; step++)
            for (int lane = 0; lane < 32; lane++)
                for (int i = 0; i < 4; i++) {
                    const int n = lane / 4;
                    const int k = step * STEP + lane % 4 * 2 + i % 2 + i / 2 * 8;
                    const bool there = n < channels && k < from_channels;
                    *out++ = bits_of(
                        type, there ? weight[(n * from_channels + k) * TAPS + tap] : 0.0F);
                }
}

template <typename T>
static void launch(const gpu_last_args *a, const T *x, float *planes, cudaStream_t stream)
{
    const dim3 grid((a->from.width + COLUMNS - 1) / COLUMNS,
                    (a->from.height + ROWS - 1) / ROWS);
    const int room = (int)gpu_room((size_t)a->from.channels);
    FOR_ACT(a->act, ACT,
            conv_last<T, ACT><<<grid, THREADS, 0, stream>>>(*a, room, x, planes));
}

extern "C" cudaError_t gpu_conv_last(const gpu_last_args *last, const void *x,
                                     float *planes, cudaStream_t stream)
{
    if (last->from.type == GPU_FP32 || last->channels > GPU_LAST_CHANNELS ||
        last->from.height > 65535 * ROWS)
        return cudaErrorInvalidValue;
    if (last->from.type == GPU_FP16)
        launch(last, static_cast<const __half *>(x), planes, stream);
    else
        launch(last, static_cast<const __nv_bfloat16 *>(x), planes, stream);
    return cudaGetLastError();
}
