//  The last convolution, 3 x 3 to at most three channels: bound by reading its input, so
//  the norm and the activation before it are applied on the way in.
//
//  A convolution to so few channels is turned round: each pixel is multiplied once by the
//  weights of all nine taps (a matrix product of taps and channels by pixels, mma.sync
//  m16n8k16), and a result is the sum of nine pixels' products. A warp goes down a strip
//  of 32 pixels: what a row's pixels add to the results above, beside and below them are
//  three sums of the product, and each row goes on adding where the row before has left
//  off. So only a row's three columns are summed by hand. Depth is taken in an order in
//  which a thread's eight neighbouring channels are its own operands: what it loads it
//  multiplies, without a way through shared memory. It is memory that is waited for: a
//  thread has the next 64 channels of four pixels on their way, whole lines of 128 bytes.

#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/tensor.cuh"

enum {
    STRIP = 32,           //  pixels across
    RESULTS = STRIP - 2,  //  of a strip's row
    EIGHTS = STRIP / 8,   //  pixels of a product
    WARPS = 4,            //  of a block
    THREADS = 32 * WARPS,
    BLOCKS = 3,  //  of a multiprocessor
    DEPTH = 32,  //  channels: eight for each of a pixel's four threads
    DEPTHS = 2,  //  on their way at once
    LINE = DEPTHS * DEPTH,
    STEPS = 2,  //  products of a depth
    TAPS = 9,
    SUMS = 3 * GPU_LAST_CHANNELS,  //  of a row: columns by channels
    PITCH = STRIP + 8              //  floats; lets eight sums be written at a time
};

//  Sums of eight pixels: [half][element] of rows 0..7 and 8..15 of two products. Half h
//  is the weights' row h of the first eight sums, half 3 of the ninth in its row h.
typedef float halves[4][2];

template <typename T>
__device__ __forceinline__ void multiply(float (&top)[2], float (&low)[2], const uint4 &a,
                                         unsigned int b0, unsigned int b1)
{
    const uint32_t weights[4] = {a.x, a.y, a.z, a.w}, pixels[2] = {b0, b1};
    float sum[4] = {top[0], top[1], low[0], low[1]};
    product(sum, weights, pixels, T());
    top[0] = sum[0];
    top[1] = sum[1];
    low[0] = sum[2];
    low[1] = sum[3];
}

//  How the picture is cut.
struct last_work {
    int room, lines;
    int strips, runs;  //  across; of rows, down
    int rows;          //  of a run
};

//  What a block keeps in shared memory.
struct last_shared {
    const uint4 *weight;  //  [depth][step][product][lane]
    const float4 *pairs;  //  [depth][two channels][thread of a pixel]
    float *sums;          //  of the warp: [sum][PITCH]
};

//  A strip's pixels on their way: what a thread reads next.
template <typename T>
struct cursor {
    const T *at;  //  its channels of the strip's pixel lane / 4
    int row, line;
    unsigned int inside;  //  a bit for each of its pixels that is in the picture
};

template <typename T>
__device__ __forceinline__ vector<T> read(const cursor<T> &c, const last_work &work,
                                          int height, int depth, int i)
{
    vector<T> v;
    v.at = words{{0, 0, 0, 0}};
    const int channel = c.line * LINE + depth * DEPTH + (int)threadIdx.x % 4 * LANES;
    if ((unsigned)c.row < (unsigned)height && (c.inside >> i & 1) && channel < work.room)
        read_past(c.at + (size_t)i * 8 * work.room + depth * DEPTH, v.at.w);
    return v;
}

template <typename T>
__device__ __forceinline__ void move_on(cursor<T> &c, const last_work &work, int width)
{
    c.at += LINE;
    if (++c.line < work.lines) return;
    c.line = 0;
    c.row++;
    c.at += (long long)width * work.room - work.lines * LINE;
}

//  The pairs are those of x / 2 for SiLU; see prepare.cuh.
template <gpu_act ACT>
__device__ __forceinline__ void activate_all(float (&v)[LANES], const float4 (&pairs)[4])
{
    float t[LANES];
#pragma unroll
    for (int k = 0; k < LANES; k += 2) {
        v[k] = fmaf(v[k], pairs[k / 2].x, pairs[k / 2].y);
        v[k + 1] = fmaf(v[k + 1], pairs[k / 2].z, pairs[k / 2].w);
    }
#pragma unroll
    for (int k = 0; k < LANES; k++)
        if (ACT == GPU_SILU) t[k] = tangent(v[k]);
#pragma unroll
    for (int k = 0; k < LANES; k++)
        v[k] = ACT == GPU_SILU ? fmaf(v[k], t[k], v[k]) : activate<ACT>(v[k]);
}

//  Around the picture there are zeros, whatever the activation makes of 0.
template <typename T, gpu_act ACT>
__device__ __forceinline__ void prepare(vector<T> &v, const float4 (&pairs)[4],
                                        bool inside)
{
    float f[LANES];
    v.to(f);
    activate_all<ACT>(f, pairs);
    v.from(f);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (!inside) v.at.w[i] = 0;
}

//  A depth's weights and pairs, and what they are for: its vectors give way to the next.
template <typename T, gpu_act ACT, bool PLAIN>
__device__ __forceinline__ void multiply_depth(const last_work &work,
                                               const last_shared &s, int height,
                                               int depth, int part, const cursor<T> &c,
                                               vector<T> (&next)[EIGHTS],
                                               halves (&sum)[EIGHTS])
{
    const int lane = threadIdx.x % 32;
    uint4 a[STEPS][2];
    float4 pairs[4];
#pragma unroll
    for (int i = 0; i < 2 * STEPS; i++)
        a[i / 2][i % 2] = s.weight[(depth * 2 * STEPS + i) * 32 + lane];
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (!PLAIN) pairs[i] = s.pairs[(depth * 4 + i) * 4 + lane % 4];
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        vector<T> now = next[i];
        next[i] = read(c, work, height, part, i);
        if (!PLAIN) prepare<T, ACT>(now, pairs, c.inside >> i & 1);
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int p = 0; p < 2; p++)
                multiply<T>(sum[i][2 * p], sum[i][2 * p + 1], a[step][p],
                            now.at.w[2 * step], now.at.w[2 * step + 1]);
    }
}

//  Adds a row's products; `next` holds its first line, and then that of the next row.
template <typename T, gpu_act ACT, bool PLAIN>
__device__ __forceinline__ void multiply_row(const last_work &work, const last_shared &s,
                                             int height, int width, cursor<T> &c,
                                             vector<T> (&next)[DEPTHS][EIGHTS],
                                             halves (&sum)[EIGHTS])
{
#pragma unroll 1
    for (int line = 0; line < work.lines; line++) {
        move_on(c, work, width);
#pragma unroll
        for (int part = 0; part < DEPTHS; part++)
            multiply_depth<T, ACT, PLAIN>(work, s, height, line * DEPTHS + part, part, c,
                                          next[part], sum);
    }
}

//  The results of one row of a strip, whose sums are complete.
__device__ __forceinline__ void leave_row(const gpu_last_args &a, const last_shared &s,
                                          const halves (&sum)[EIGHTS], int strip, int row,
                                          float *planes)
{
    const int lane = threadIdx.x % 32, line = lane / 4;
    const size_t area = (size_t)a.from.height * a.from.width;
    const int x = strip * RESULTS + lane - 1;
    float *to = s.sums + line * PITCH + lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        *reinterpret_cast<float2 *>(to + 8 * i) = make_float2(sum[i][2][0], sum[i][2][1]);
        if (line == 2)  //  the ninth sum
            *reinterpret_cast<float2 *>(to + (SUMS - 1 - 2) * PITCH + 8 * i) =
                make_float2(sum[i][3][0], sum[i][3][1]);
    }
    __syncwarp();
    if (lane < 1 || lane > RESULTS || x >= a.from.width) return;
#pragma unroll
    for (int c = 0; c < GPU_LAST_CHANNELS; c++) {
        if (c >= a.channels) break;
        float out = a.bias ? a.bias[c] : 0.0F;
#pragma unroll
        for (int k = 0; k < 3; k++)
            out += s.sums[(k * a.channels + c) * PITCH + lane - 1 + k];
        planes[c * area + (size_t)row * a.from.width + x] = out;
    }
}

//  What a row has added to the results beside it is what the next adds to from above, and
//  so on.
__device__ __forceinline__ void pass_down(halves (&sum)[EIGHTS])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < EIGHTS; i++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            sum[i][2][k] = sum[i][1][k];
            sum[i][1][k] = sum[i][0][k];
            sum[i][0][k] = 0.0F;
            const float above = __shfl_up_sync(0xffffffffu, sum[i][3][k], 4);
            sum[i][3][k] = lane < 4 ? 0.0F : above;
        }
}

template <typename T>
__device__ __forceinline__ cursor<T> cursor_of(const gpu_last_args &a,
                                               const last_work &work, const T *x,
                                               int strip, int row)
{
    const int lane = threadIdx.x % 32;
    const int column = strip * RESULTS - 1 + lane / 4;
    cursor<T> c = {
        x + ((long long)row * a.from.width + column) * work.room + lane % 4 * LANES, row,
        0, 0};
#pragma unroll
    for (int i = 0; i < EIGHTS; i++)
        c.inside |= (unsigned)((unsigned)(column + 8 * i) < (unsigned)a.from.width) << i;
    return c;
}

//  One run of rows of one strip.
template <typename T, gpu_act ACT, bool PLAIN>
__device__ void convolve_run(const gpu_last_args &a, const last_work &work,
                             const last_shared &s, int strip, int first, int end,
                             const T *x, float *planes)
{
    halves sum[EIGHTS] = {};
    vector<T> next[DEPTHS][EIGHTS];
    cursor<T> c = cursor_of(a, work, x, strip, first > 0 ? first - 1 : 0);
#pragma unroll
    for (int part = 0; part < DEPTHS; part++)
#pragma unroll
        for (int i = 0; i < EIGHTS; i++)
            next[part][i] = read(c, work, a.from.height, part, i);
#pragma unroll 1
    for (int row = c.row; row <= end; row++) {
        if (row < a.from.height)
            multiply_row<T, ACT, PLAIN>(work, s, a.from.height, a.from.width, c, next,
                                        sum);
        if (row > first) leave_row(a, s, sum, strip, row - 1, planes);
        pass_down(sum);
    }
}

template <gpu_act ACT>
__device__ __forceinline__ void fill_pairs(const gpu_last_args &a, const last_work &work,
                                           float4 *out)
{
    gpu_pair *pairs = reinterpret_cast<gpu_pair *>(out);
    for (int i = threadIdx.x; i < work.lines * LINE; i += THREADS) {
        const int own = i % LANES, at = (i / DEPTH * 4 + own / 2) * 4 + i % DEPTH / LANES;
        gpu_pair pair = {i < work.room ? 1.0F : 0.0F, 0.0F};
        if (a.pairs && i < work.room) pair = a.pairs[i];
        if (ACT == GPU_SILU) pair = gpu_pair{0.5F * pair.scale, 0.5F * pair.offset};
        pairs[at * 2 + own % 2] = pair;
    }
}

template <typename T, gpu_act ACT, bool PLAIN>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    conv_last(gpu_last_args a, last_work work, const T *x, float *planes)
{
    extern __shared__ uint4 memory[];
    const int warp = threadIdx.x / 32, weights = work.lines * DEPTHS * STEPS * 2 * 32;
    float4 *pairs = reinterpret_cast<float4 *>(memory + weights);
    const last_shared s = {
        memory, pairs,
        reinterpret_cast<float *>(pairs + work.lines * LINE / 2) + warp * SUMS * PITCH};
    for (int i = threadIdx.x; i < weights; i += THREADS)
        memory[i] = static_cast<const uint4 *>(a.fragments)[i];
    fill_pairs<ACT>(a, work, pairs);
    __syncthreads();
    const int item = blockIdx.x * WARPS + warp, run = item / work.strips;
    if (run >= work.runs) return;
    const int first = run * work.rows, end = min(first + work.rows, a.from.height);
    convolve_run<T, ACT, PLAIN>(a, work, s, item - run * work.strips, first, end, x,
                                planes);
}

static int lines_of(int channels)
{
    return (channels + LINE - 1) / LINE;
}

extern "C" size_t gpu_conv_last_bytes(int from_channels)
{
    return (size_t)lines_of(from_channels) * DEPTHS * STEPS * 2 * 32 * sizeof(uint4);
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

//  The weight in line `line` of half `half`, for channel k; 0 where there is none.
static float weight_at(const float *weight, int channels, int from_channels, int half,
                       int line, int k)
{
    const int row = half < 3 ? half : line, sum = half < 3 ? line : SUMS - 1;
    if (row > 2 || sum >= 3 * channels || k >= from_channels) return 0.0F;
    const int column = sum / channels, n = sum % channels;
    return weight[(n * from_channels + k) * TAPS + row * 3 + column];
}

//  Lane l holds, of lines l / 4 and 8 + l / 4 of each product, four depths of each step
//  (PTX ISA, matrix fragments for mma.m16n8k16): in our order the channels 8 (l % 4) + 4
//  step + {0, 1, 2, 3} of each 32.
extern "C" void gpu_conv_last_pack(gpu_type type, const float *weight, int channels,
                                   int from_channels, void *fragments)
{
    unsigned short *out = static_cast<unsigned short *>(fragments);
    for (int step = 0; step < lines_of(from_channels) * DEPTHS * STEPS; step++)
        for (int product = 0; product < 2; product++)
            for (int lane = 0; lane < 32; lane++)
                for (int i = 0; i < 8; i++) {
                    const int half = 2 * product + i / 2 % 2;
                    const int k = step / STEPS * DEPTH + lane % 4 * LANES +
                                  step % STEPS * 4 + i / 4 * 2 + i % 2;
                    *out++ = bits_of(type, weight_at(weight, channels, from_channels,
                                                     half, lane / 4, k));
                }
}

//  Runs as long as give every warp of the card one. Where they end changes no result.
static last_work work_of(const gpu_last_args *a, int multiprocessors)
{
    last_work work;
    const int height = a->from.height, warps = multiprocessors * BLOCKS * WARPS;
    work.room = (int)gpu_room((size_t)a->from.channels);
    work.lines = lines_of(a->from.channels);
    work.strips = (a->from.width + RESULTS - 1) / RESULTS;
    const int runs = warps / work.strips < 1 ? 1 : warps / work.strips;
    work.rows = (height + runs - 1) / runs;
    work.runs = (height + work.rows - 1) / work.rows;
    return work;
}

template <typename T, gpu_act ACT, bool PLAIN>
static cudaError_t launch(const gpu_last_args *a, const T *x, float *planes,
                          int multiprocessors, cudaStream_t stream)
{
    const last_work work = work_of(a, multiprocessors);
    const int blocks = (work.strips * work.runs + WARPS - 1) / WARPS;
    const size_t shared = gpu_conv_last_bytes(a->from.channels) +
                          (size_t)work.lines * LINE * sizeof(gpu_pair) +
                          WARPS * SUMS * PITCH * sizeof(float);
    //  Of very many channels more than a kernel may have unasked.
    const cudaError_t error =
        cudaFuncSetAttribute(conv_last<T, ACT, PLAIN>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error != cudaSuccess) return error;
    conv_last<T, ACT, PLAIN><<<blocks, THREADS, shared, stream>>>(*a, work, x, planes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t choose(const gpu_last_args *a, const T *x, float *planes,
                          int multiprocessors, cudaStream_t stream)
{
    if (a->act == GPU_RELU)
        return launch<T, GPU_RELU, false>(a, x, planes, multiprocessors, stream);
    if (a->act == GPU_SILU)
        return launch<T, GPU_SILU, false>(a, x, planes, multiprocessors, stream);
    if (a->pairs)
        return launch<T, GPU_LINEAR, false>(a, x, planes, multiprocessors, stream);
    return launch<T, GPU_LINEAR, true>(a, x, planes, multiprocessors, stream);
}

extern "C" cudaError_t gpu_conv_last(const gpu_last_args *last, const void *x,
                                     float *planes, int multiprocessors,
                                     cudaStream_t stream)
{
    if (last->from.type == GPU_FP32 || last->channels > GPU_LAST_CHANNELS)
        return cudaErrorInvalidValue;
    if (last->from.type == GPU_FP16)
        return choose(last, static_cast<const __half *>(x), planes, multiprocessors,
                      stream);
    return choose(last, static_cast<const __nv_bfloat16 *>(x), planes, multiprocessors,
                  stream);
}
