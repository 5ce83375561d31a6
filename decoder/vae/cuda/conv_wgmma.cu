//  The fused convolution on the tensor cores of sm_90.
//
//  A block keeps one multiprocessor busy and goes from tile to tile: 16 x 16 pixels, 128
//  channels of the result. Its warps share the work out:
//
//    bringing     four warps: pixels of the tile and of the ring around it, 64 channels at
//                 a time, normalised and activated on the way, to a slab in shared memory
//    multiplying  two warpgroups, each eight rows of the tile: all taps of the kernel read
//                 the same slab, each from another row on, because a matrix may start
//                 anywhere; the copy engine brings the weights, tap after tap
//    storing      two warps: the residual to shared memory before the tile is done, the
//                 result from there to where it belongs, and the mean and the spread of
//                 every four channels for the norm that follows

#include "decoder/vae/cuda/element.cuh"
#include "decoder/vae/cuda/fused.cuh"
#include "decoder/vae/cuda/hopper.cuh"

namespace {

enum {
    SLABS = 2,
    SLAB_BYTES = (HALO * HALO * ROW_BYTES + 1023) / 1024 * 1024,
    STAGES = 5,
    GROUP = 128,  //  threads of a warpgroup
    MULTIPLIERS = 2 * GROUP,
    BRINGERS = GROUP,
    STORERS = GROUP / 2,  //  of the last warpgroup; a third warp brings the weights
    THREADS = MULTIPLIERS + BRINGERS + GROUP,
    PIXELS_A_PASS = BRINGERS / LANES_A_ROW,
    //  Registers of a thread: 16 warps start with 128 each.
    MULTIPLIER_REGISTERS = 168,
    BRINGER_REGISTERS = 112,
    STORER_REGISTERS = 64,
    ROWS_A_PASS = PIXELS_A_PASS / SIDE,
    SLAB_PASSES = (HALO * HALO + PIXELS_A_PASS - 1) / PIXELS_A_PASS,
    HALF_PIXELS = SIDE * SIDE / 2,
    VECTORS = WIDTH / LANES,  //  of a pixel of the result
    RESULT_BYTES = HALF_PIXELS * WIDTH * 2
};

//  Barriers lie in the room that a slab leaves.
enum {
    SLAB_FULL,
    SLAB_EMPTY = SLAB_FULL + SLABS,
    WEIGHT_FULL = SLAB_EMPTY + SLABS,
    WEIGHT_EMPTY = WEIGHT_FULL + STAGES,
    RESULT_EMPTY = WEIGHT_EMPTY + STAGES,
    RESULT_FULL = RESULT_EMPTY + 2,
    BARRIERS = RESULT_FULL + 2
};

struct slab_room {
    unsigned char pixels[HALO * HALO * ROW_BYTES];
    unsigned long long rest[(SLAB_BYTES - HALO * HALO * ROW_BYTES) / 8];
};

struct shared_memory {
    slab_room slab[SLABS];
    unsigned char weight[STAGES][TAP_BYTES];
    unsigned char result[2][RESULT_BYTES];  //  of each half; before that the residual
    moments parts[STORERS / 32][WIDTH / 4];
};

__device__ __forceinline__ uint32_t barrier_at(shared_memory &s, int which)
{
    return shared_address(&s.slab[0].rest[which]);
}

__device__ __forceinline__ float *part_pixels(shared_memory &s)
{
    return reinterpret_cast<float *>(s.slab[1].rest);
}

//  Counts through a ring; the parity of the round.
template <int COUNT>
struct ring {
    int at = 0;
    uint32_t parity = 0;
    __device__ void next()
    {
        if (++at < COUNT) return;
        at = 0;
        parity ^= 1;
    }
};

//  ---- bringing pixels ---------------------------------------------------------------

//  A square of pixels of a value, some of them perhaps outside of the picture.
template <typename T>
struct square {
    const T *x;     //  its first pixel, which may be outside
    const T *safe;  //  somewhere inside
    int channels, row_step;
    int top, left, height, width;  //  the square's place; the picture's size
};

template <typename T>
__device__ __forceinline__ square<T> square_of(const T *x, int channels,
                                               const fused_work<T> &work, int top, int left)
{
    const long long first = (long long)top * work.width + left;
    return square<T>{x + first * channels, x,    channels,    work.width * channels,
                     top,                  left, work.height, work.width};
}

//  Where 16 bytes of a pixel of the slab lie: exchanged by the pixel's number.
__device__ __forceinline__ int slab_at(int pixel, int lane)
{
    return pixel * ROW_BYTES + ((lane ^ (pixel & 7)) << 4);
}

//  Asks for the thread's pixels of the slab, every 16th; one bit for each that there is.
//  Their places in the slab are 16 rows apart, so the exchange of columns is always the
//  same.
template <typename T>
__device__ __forceinline__ unsigned ask_for_slab(const square<T> &from, uint32_t slab,
                                                 int thread)
{
    const int first = thread / LANES_A_ROW, lane = thread % LANES_A_ROW;
    const int end = from.left + HALO, wrap = from.row_step - HALO * from.channels;
    int y = from.top + first / HALO, x = from.left + first % HALO;
    const T *at = from.x + first / HALO * from.row_step + first % HALO * from.channels;
    unsigned there = 0;
    slab += slab_at(first, lane);
#pragma unroll
    for (int i = 0; i < SLAB_PASSES; i++) {
        const bool is = (unsigned)y < (unsigned)from.height &&
                        (unsigned)x < (unsigned)from.width;
        if (i < SLAB_PASSES - 1 || first + i * PIXELS_A_PASS < HALO * HALO) {
            copy_16(slab + i * PIXELS_A_PASS * ROW_BYTES, is ? at : from.safe, is);
            there |= (unsigned)is << i;
        }
        y += PIXELS_A_PASS / HALO;
        x += PIXELS_A_PASS % HALO;
        at += from.row_step * (PIXELS_A_PASS / HALO) +
              PIXELS_A_PASS % HALO * from.channels;
        if (x >= end) {
            x -= HALO;
            y++;
            at += wrap;
        }
    }
    return there;
}

//  The same without the ring.
template <typename T>
__device__ __forceinline__ void ask_for_tile(const square<T> &from, uint32_t slab,
                                             int thread)
{
    const int first = thread / LANES_A_ROW, lane = thread % LANES_A_ROW;
    const int row = first / SIDE, column = first % SIDE;
    const bool inside = from.left + column < from.width;
    const T *at = from.x + row * from.row_step + column * from.channels;
#pragma unroll 4
    for (int i = 0; i < SIDE; i += ROWS_A_PASS, at += ROWS_A_PASS * from.row_step) {
        const bool is = inside && from.top + row + i < from.height;
        copy_16(slab + slab_at((row + i + 1) * HALO + column + 1, lane),
                is ? at : from.safe, is);
    }
}

//  2^x and 1/x, one instruction each; volatile, so that they stay in the order in which
//  they are written: the compiler's own has each wait for the one before.
__device__ __forceinline__ float exponential(float x)
{
    float power;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
__device__ __forceinline__ float inverse(float x)
{
    float part;
    asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(part) : "f"(x));
    return part;
}

//  Norm and activation of vectors, each step for all of their values so that none waits
//  for another. Two share one division: 1 / a = b / (a b). Where a b is infinite both are 0.
template <typename T, int COUNT>
__device__ __forceinline__ void prepare_vectors(unsigned char *at, unsigned there,
                                                const gpu_pair (&pairs)[LANES])
{
    float v[COUNT][LANES], e[COUNT][LANES];
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        load8(reinterpret_cast<const T *>(at + i * PIXELS_A_PASS * ROW_BYTES), v[i]);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
        for (int k = 0; k < LANES; k++) {
            v[i][k] = fmaf(v[i][k], pairs[k].scale, pairs[k].offset);
            e[i][k] = exponential(fminf(v[i][k] * -1.4426950408889634F, 126.0F));
        }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
        for (int k = 0; k < LANES; k += 2) {
            e[i][k] += 1.0F;
            e[i][k + 1] += 1.0F;
            const float both = inverse(e[i][k] * e[i][k + 1]);
            const float first = v[i][k] * e[i][k + 1];
            v[i][k + 1] *= e[i][k] * both;
            v[i][k] = first * both;
        }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (there >> i & 1)
            store8(reinterpret_cast<T *>(at + i * PIXELS_A_PASS * ROW_BYTES), v[i]);
}

//  All that this thread has brought; what is outside stays 0.
template <typename T>
__device__ __forceinline__ void prepare(unsigned char *slab, unsigned there,
                                        const gpu_pair (&pairs)[LANES], int thread)
{
    slab += slab_at(thread / LANES_A_ROW, thread % LANES_A_ROW);
#pragma unroll 1
    for (; there; there >>= 2, slab += 2 * PIXELS_A_PASS * ROW_BYTES)
        prepare_vectors<T, 2>(slab, there, pairs);
}

//  In this order: before what is waited for afterwards.
__device__ __forceinline__ void read_pairs(const gpu_pair *pairs, gpu_pair (&out)[LANES])
{
#pragma unroll
    for (int i = 0; i < LANES; i += 2)
        asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(out[i].scale), "=f"(out[i].offset), "=f"(out[i + 1].scale),
                       "=f"(out[i + 1].offset)
                     : "l"(pairs + i)
                     : "memory");
}

template <typename T, bool NORM>
__device__ __forceinline__ void bring_chunk(const square<T> &from, const gpu_pair *pairs,
                                            shared_memory &s, const ring<SLABS> &slab,
                                            int thread)
{
    gpu_pair mine[LANES];
    if (NORM) read_pairs(pairs + thread % LANES_A_ROW * LANES, mine);
    barrier_wait(barrier_at(s, SLAB_EMPTY + slab.at), slab.parity ^ 1);
    const unsigned there =
        ask_for_slab(from, shared_address(s.slab[slab.at].pixels), thread);
    copies_wait();
    if (NORM) prepare<T>(s.slab[slab.at].pixels, there, mine, thread);
    proxy_fence();
    barrier_arrive(barrier_at(s, SLAB_FULL + slab.at));
}

template <typename T>
__device__ __forceinline__ void bring_beside(const square<T> &from, shared_memory &s,
                                             const ring<SLABS> &slab, int thread)
{
    barrier_wait(barrier_at(s, SLAB_EMPTY + slab.at), slab.parity ^ 1);
    ask_for_tile(from, shared_address(s.slab[slab.at].pixels), thread);
    copies_wait();
    proxy_fence();
    barrier_arrive(barrier_at(s, SLAB_FULL + slab.at));
}

template <typename T, bool NORM>
__device__ void bring_tiles(const fused_work<T> &work, shared_memory &s, int thread)
{
    ring<SLABS> slab;
    const int skip = thread % LANES_A_ROW * LANES;
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x) {
        const tile_place at = place_of(work, t);
        square<T> from =
            square_of(work.x + skip, work.channels, work, at.y - 1, at.x - 1);
        for (int c = 0; c < work.chunks; c++, slab.next(), from.x += CHUNK)
            bring_chunk<T, NORM>(from, work.pairs + c * CHUNK, s, slab, thread);
        if (work.beside_chunks == 0) continue;
        from = square_of(work.beside + skip, work.beside_channels, work, at.y, at.x);
        for (int c = 0; c < work.beside_chunks; c++, slab.next(), from.x += CHUNK)
            bring_beside(from, s, slab, thread);
    }
}

//  ---- bringing weights --------------------------------------------------------------

//  One thread: it asks the copy engine for tap after tap.
template <typename T>
__device__ void bring_weights(const fused_work<T> &work, shared_memory &s)
{
    ring<STAGES> stage;
    const int taps = taps_of(work);
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x) {
        const char *from = weights_of(work, t);
        for (int i = 0; i < taps; i++, from += TAP_BYTES, stage.next()) {
            const uint32_t full = barrier_at(s, WEIGHT_FULL + stage.at);
            barrier_wait(barrier_at(s, WEIGHT_EMPTY + stage.at), stage.parity ^ 1);
            barrier_expect(full, TAP_BYTES);
            bulk_copy(shared_address(s.weight[stage.at]), from, TAP_BYTES, full);
        }
    }
}

//  ---- multiplying -------------------------------------------------------------------

//  One tap: 64 channels of two squares of 8 x 8 pixels.
template <typename T>
__device__ __forceinline__ void multiply(float (&left)[64], float (&right)[64],
                                         uint32_t pixels, uint32_t weight, int add)
{
    const uint64_t a = matrix_at(pixels, HALO * ROW_BYTES);
    const uint64_t b = matrix_at(weight, 8 * ROW_BYTES);
#pragma unroll
    for (int k = 0; k < CHUNK / 16; k++) {  //  16 channels are 32 bytes
        product(left, a + 2 * k, b + 2 * k, add || k > 0, T());
        product(right, a + 2 * k + 8 * ROW_BYTES / 16, b + 2 * k, add || k > 0, T());
    }
}

//  What the products that are under way still read.
struct in_use {
    int stage = -1;
    int slab = -1;
};

struct multiplier {
    ring<SLABS> slab;
    ring<STAGES> stage;
    in_use last;
    int half, thread;
};

__device__ __forceinline__ void let_go(shared_memory &s, multiplier &m)
{
    if (m.thread == 0 && m.last.stage >= 0)
        barrier_arrive(barrier_at(s, WEIGHT_EMPTY + m.last.stage));
    if (m.thread == 0 && m.last.slab >= 0)
        barrier_arrive(barrier_at(s, SLAB_EMPTY + m.last.slab));
    m.last = in_use();
}

//  All taps of one chunk of channels, from the slab's pixel `first` on.
template <typename T, int TAPS>
__device__ __forceinline__ void multiply_chunk(shared_memory &s, multiplier &m,
                                               float (&left)[64], float (&right)[64],
                                               int first, int &add)
{
    constexpr int across = TAPS == 9 ? 3 : TAPS == 4 ? 2 : 1;
    const uint32_t slab = shared_address(s.slab[m.slab.at].pixels) + first * ROW_BYTES;
    barrier_wait(barrier_at(s, SLAB_FULL + m.slab.at), m.slab.parity);
#pragma unroll 1
    for (int tap = 0; tap < TAPS; tap++) {
        const int row = tap / across, column = tap - row * across;
        barrier_wait(barrier_at(s, WEIGHT_FULL + m.stage.at), m.stage.parity);
        products_fence();
        multiply<T>(left, right, slab + (row * HALO + column) * ROW_BYTES,
                    shared_address(s.weight[m.stage.at]), add);
        products_commit();
        products_wait<1>();
        let_go(s, m);
        m.last.stage = m.stage.at;
        m.stage.next();
        add = 1;
    }
    m.last.slab = m.slab.at;
    m.slab.next();
}

template <typename T, int TAPS>
__device__ __forceinline__ void multiply_tile(const fused_work<T> &work, shared_memory &s,
                                              multiplier &m, float (&left)[64],
                                              float (&right)[64], const tile_place &at)
{
    int add = 0;
    const int corner = (8 * m.half + at.row) * HALO + at.column;
    const int centre = (8 * m.half + 1) * HALO + 1;
#pragma unroll 1
    for (int c = 0; c < work.chunks; c++)
        multiply_chunk<T, TAPS>(s, m, left, right, corner, add);
#pragma unroll 1
    for (int c = 0; c < work.beside_chunks; c++)
        multiply_chunk<T, 1>(s, m, left, right, centre, add);
    products_wait<0>();
    let_go(s, m);
}

//  Where vector `v` of a pixel of a half lies; neighbours' are exchanged, for the banks.
__device__ __forceinline__ int result_at(int pixel, int v)
{
    return (pixel * VECTORS + (v ^ (pixel & 1) * 4)) * 16;
}

//  Eight channels of a thread: column 8 j + 2 q + e of 32 is channel 8 q + 2 j + e.
template <typename T>
__device__ __forceinline__ void finish_vector(const float (&sum)[64], int run, int low,
                                              const float4 (&bias)[2], bool residual,
                                              unsigned char *at)
{
    float more[LANES] = {bias[0].x, bias[0].y, bias[0].z, bias[0].w,
                         bias[1].x, bias[1].y, bias[1].z, bias[1].w};
    float v[LANES];
    vector<T> out;
    if (residual) {
        out.at = *reinterpret_cast<const words *>(at);
        out.to(v);
#pragma unroll
        for (int k = 0; k < LANES; k++) more[k] += v[k];
    }
#pragma unroll
    for (int k = 0; k < LANES; k++)
        v[k] = sum[4 * (4 * run + k / 2) + 2 * low + k % 2] + more[k];
    out.from(v);
    *reinterpret_cast<words *>(at) = out.at;
}

//  The sums of a half with bias and residual, in shared memory.
template <typename T>
__device__ __forceinline__ void finish_half(const fused_work<T> &work, shared_memory &s,
                                            const float (&left)[64],
                                            const float (&right)[64],
                                            const tile_place &at, int half, int thread)
{
    const int warp = thread / 32, lane = thread % 32;
    const bool residual = work.residual != NULL;
#pragma unroll
    for (int run = 0; run < 4; run++) {
        const int v = 4 * run + lane % 4;
        const float4 *from =
            reinterpret_cast<const float4 *>(work.bias + at.channel + v * LANES);
        const float4 bias[2] = {__ldg(from), __ldg(from + 1)};
#pragma unroll
        for (int low = 0; low < 2; low++) {
            const int pixel = (2 * warp + low) * SIDE + lane / 4;
            finish_vector<T>(left, run, low, bias, residual,
                             s.result[half] + result_at(pixel, v));
            finish_vector<T>(right, run, low, bias, residual,
                             s.result[half] + result_at(pixel + 8, v));
        }
    }
}

template <typename T, int TAPS>
__device__ void multiply_tiles(const fused_work<T> &work, shared_memory &s, int half,
                               int thread)
{
    multiplier m;
    uint32_t round = 0;
    m.half = half;
    m.thread = thread;
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x, round ^= 1) {
        float left[64], right[64];
        const tile_place at = place_of(work, t);
        multiply_tile<T, TAPS>(work, s, m, left, right, at);
        barrier_wait(barrier_at(s, RESULT_EMPTY + half), round);
        finish_half(work, s, left, right, at, half, thread);
        barrier_arrive(barrier_at(s, RESULT_FULL + half));
    }
}

//  ---- storing -----------------------------------------------------------------------

//  A half tile's place in the result.
struct half_place {
    size_t first;               //  value of its first pixel
    int row_step, column_step;  //  from pixel to pixel of x
    int rows, columns;          //  that are in the picture
};

template <typename T, int TAPS>
__device__ __forceinline__ half_place half_of(const fused_work<T> &work,
                                              const tile_place &at, int half)
{
    const int grow = TAPS == 9 ? 1 : 2, y = at.y + 8 * half;
    const int width = grow * work.width;
    half_place h;
    h.first = ((size_t)(grow * y + at.row) * width + grow * at.x + at.column) *
                  work.to_channels +
              at.channel;
    h.row_step = grow * width * work.to_channels;
    h.column_step = grow * work.to_channels;
    h.rows = work.height - y;
    h.columns = work.width - at.x;
    return h;
}

//  Distances of four channels from a value near their mean, and their squares.
struct spread {
    float pivot, sum, squares, count;
};

template <typename T>
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

//  A storer has eight channels of every fourth pixel.
enum { PIXELS_A_STORE = STORERS / VECTORS };

template <typename T>
__device__ __forceinline__ void store_half(const fused_work<T> &work, shared_memory &s,
                                           const half_place &h, int half, int thread,
                                           spread (&sums)[2])
{
    const int v = thread % VECTORS, first = thread / VECTORS;
    T *to = work.y + h.first + v * LANES + first * h.column_step;
    const unsigned char *from = s.result[half] + result_at(first, v);
#pragma unroll 1
    for (int row = 0; row < 8 && row < h.rows; row++, to += h.row_step) {
#pragma unroll
        for (int x = 0; x < SIDE; x += PIXELS_A_STORE, from += PIXELS_A_STORE * VECTORS * 16) {
            vector<T> out;
            float value[LANES];
            if (first + x >= h.columns) continue;
            out.at = *reinterpret_cast<const words *>(from);
            out.write(to + x * h.column_step);
            out.to(value);
            add_four<T>(sums[0], value);
            add_four<T>(sums[1], value + 4);
        }
    }
}

template <typename T>
__device__ __forceinline__ void ask_for_residual(const fused_work<T> &work,
                                                 shared_memory &s, const half_place &h,
                                                 int half, int thread)
{
    const int v = thread % VECTORS, first = thread / VECTORS;
    const T *from = work.residual + h.first + v * LANES + first * h.column_step;
    uint32_t to = shared_address(s.result[half]) + result_at(first, v);
#pragma unroll 1
    for (int row = 0; row < 8; row++, from += h.row_step) {
#pragma unroll
        for (int x = 0; x < SIDE; x += PIXELS_A_STORE, to += PIXELS_A_STORE * VECTORS * 16) {
            const bool is = row < h.rows && first + x < h.columns;
            copy_16(to, is ? from + x * h.column_step : work.residual, is);
        }
    }
}

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

//  The four storers of the same channels to one part, always in the same order.
template <typename T>
__device__ __forceinline__ void leave_moments(const fused_work<T> &work, shared_memory &s,
                                              const spread (&sums)[2],
                                              const tile_place &at, int thread)
{
    const int warp = thread / 32, lane = thread % 32;
    float count = 0.0F;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        counted mine = counted_of(sums[i]), other;
        other.mean = __shfl_xor_sync(0xffffffffu, mine.mean, 16);
        other.squares = __shfl_xor_sync(0xffffffffu, mine.squares, 16);
        other.count = __shfl_xor_sync(0xffffffffu, mine.count, 16);
        mine = lane < 16 ? merge(mine, other) : merge(other, mine);
        count = mine.count;
        if (lane < 16)
            s.parts[warp][2 * lane + i] = moments{mine.mean, mine.squares};
    }
    if (lane == 0) part_pixels(s)[warp] = count;
    asm volatile("bar.sync 1, 64;" ::: "memory");
    for (; thread < WIDTH / 4; thread += STORERS) {
        counted all = {0.0F, 0.0F, 0.0F};
        for (int w = 0; w < STORERS / 32; w++) {
            const moments m = s.parts[w][thread];
            all = merge(all, counted{m.mean, m.squares, part_pixels(s)[w]});
        }
        work.parts[(size_t)at.part * (work.to_channels / 4) + at.channel / 4 + thread] =
            moments{all.mean, all.squares};
    }
    asm volatile("bar.sync 1, 64;" ::: "memory");
}

template <typename T, int TAPS>
__device__ __forceinline__ void make_ready(const fused_work<T> &work, shared_memory &s,
                                           int tile, int half, int thread)
{
    if (work.residual && tile < work.tiles)
        ask_for_residual(work, s, half_of<T, TAPS>(work, place_of(work, tile), half), half,
                         thread);
    copies_arrive(barrier_at(s, RESULT_EMPTY + half));
}

template <typename T, int TAPS>
__device__ void store_tiles(const fused_work<T> &work, shared_memory &s, int thread)
{
    uint32_t round = 0;
    for (int half = 0; half < 2; half++)
        make_ready<T, TAPS>(work, s, blockIdx.x, half, thread);
    for (int t = blockIdx.x; t < work.tiles; t += gridDim.x, round ^= 1) {
        const tile_place at = place_of(work, t);
        spread sums[2] = {};
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            barrier_wait(barrier_at(s, RESULT_FULL + half), round);
            store_half(work, s, half_of<T, TAPS>(work, at, half), half, thread, sums);
            make_ready<T, TAPS>(work, s, t + (int)gridDim.x, half, thread);
        }
        if (work.parts) leave_moments(work, s, sums, at, thread);
    }
}

//  ---- the kernel --------------------------------------------------------------------

__device__ void start_barriers(shared_memory &s)
{
    for (int i = 0; i < SLABS; i++) {
        barrier_init(barrier_at(s, SLAB_FULL + i), BRINGERS);
        barrier_init(barrier_at(s, SLAB_EMPTY + i), 2);
    }
    for (int i = 0; i < STAGES; i++) {
        barrier_init(barrier_at(s, WEIGHT_FULL + i), 1);
        barrier_init(barrier_at(s, WEIGHT_EMPTY + i), 2);
    }
    for (int i = 0; i < 2; i++) {
        barrier_init(barrier_at(s, RESULT_EMPTY + i), STORERS);
        barrier_init(barrier_at(s, RESULT_FULL + i), GROUP);
    }
    barrier_init_done();
}

template <typename T, int TAPS, bool NORM>
__global__ void __launch_bounds__(THREADS, 1)
    conv_wgmma(const __grid_constant__ fused_work<T> work)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    shared_memory &s = *reinterpret_cast<shared_memory *>(memory);
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    if (threadIdx.x == 0) start_barriers(s);
    __syncthreads();
    if (group < 2) {
        take_registers<MULTIPLIER_REGISTERS>();
        multiply_tiles<T, TAPS>(work, s, group, thread);
    } else if (group == 2) {
        give_registers<BRINGER_REGISTERS>();
        bring_tiles<T, NORM>(work, s, thread);
    } else {
        give_registers<STORER_REGISTERS>();
        if (thread < STORERS)
            store_tiles<T, TAPS>(work, s, thread);
        else if (thread == STORERS)
            bring_weights(work, s);
    }
#else
    __trap();
#endif
}

template <typename T, int TAPS, bool NORM>
cudaError_t start(const fused_work<T> &work, int blocks, cudaStream_t stream)
{
    const cudaError_t error =
        cudaFuncSetAttribute(conv_wgmma<T, TAPS, NORM>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)sizeof(shared_memory));
    if (error != cudaSuccess) return error;
    conv_wgmma<T, TAPS, NORM>
        <<<blocks, THREADS, sizeof(shared_memory), stream>>>(work);
    return cudaGetLastError();
}

template <typename T>
cudaError_t start_for(const gpu_fused_args *args, const void *x, void *y, int blocks,
                      cudaStream_t stream)
{
    const fused_work<T> work = work_of<T>(args, x, y);
    if (work.tiles < blocks) blocks = work.tiles;
    if (args->folded)
        return args->pairs ? start<T, 4, true>(work, blocks, stream)
                           : start<T, 4, false>(work, blocks, stream);
    return args->pairs ? start<T, 9, true>(work, blocks, stream)
                       : start<T, 9, false>(work, blocks, stream);
}

}  //  namespace

extern "C" cudaError_t gpu_conv_wgmma(const gpu_fused_args *args, const void *x, void *y,
                                      int multiprocessors, cudaStream_t stream)
{
    if (args->from.type == GPU_BF16)
        return start_for<__nv_bfloat16>(args, x, y, multiprocessors, stream);
    return start_for<__half>(args, x, y, multiprocessors, stream);
}
