//  kernels_body.h - the kernels, for the instruction set that the including file is
//  compiled for (see the Makefile)
//
//  KERNELS names the table; LANES are the floats of a vector register: 16 where there are
//  32 such registers, 8 or 4 where there are 16.

#include "decoder/vae/cpu/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(LANES * 4), may_alias));
typedef int32_t marks __attribute__((vector_size(LANES * 4), may_alias));

#define LOAD(p)     (*(const lanes *)(const void *)(p))
#define STORE(p, v) (*(lanes *)(void *)(p) = (v))

//  `a` where `mark` is set, else `b`.
#define SELECT(mark, a, b) ((lanes)(((marks)(a) & (mark)) | ((marks)(b) & ~(mark))))

//  ---- matrix product --------------------------------------------------------------

//  A block of rows by two vectors of columns: its sums stay in registers while the depth
//  is walked. A macro, because only distinct variables are sure to be registers. The rows
//  are reached from one pointer for every three of them: an address holds a base and one
//  or two times a stride.
#define AT0       p0[0]
#define AT1       p0[stride]
#define AT2       p0[2 * stride]
#define AT3       p1[0]
#define AT4       p1[stride]
#define AT5       p1[2 * stride]
#define AT6       p2[0]
#define AT7       p2[stride]
#define AT8       p2[2 * stride]
#define AT9       p3[0]
#define AT10      p3[stride]
#define AT11      p3[2 * stride]
#define AT12      p4[0]
#define AT13      p4[stride]
#define ROWS1(X)  X(0)
#define ROWS2(X)  X(0) X(1)
#define ROWS4(X)  X(0) X(1) X(2) X(3)
#define ROWS6(X)  ROWS4(X) X(4) X(5)
#define ROWS8(X)  ROWS6(X) X(6) X(7)
#define ROWS14(X) ROWS8(X) X(8) X(9) X(10) X(11) X(12) X(13)

#define SUMS(r) lanes x##r = {0}, y##r = {0};
#define TAKE(r) x##r = LOAD(c + r * c_stride), y##r = LOAD(c + r * c_stride + LANES);
#define STEP(r) x##r += left * AT##r, y##r += right * AT##r;
#define GIVE(r) STORE(c + r * c_stride, x##r), STORE(c + r * c_stride + LANES, y##r);
//  The weights come from far: they are asked for AHEAD floats before they are used.
enum { AHEAD = 32 * CPU_PANEL };
#if LANES == 16
#define FETCH __builtin_prefetch(b + AHEAD), __builtin_prefetch(b + AHEAD + LANES);
#else
#define FETCH __builtin_prefetch(b + AHEAD);
#endif
#define BOTH           FETCH const lanes left = LOAD(b), right = LOAD(b + LANES);
#define NARROW_SUMS(r) lanes x##r = {0};
#define NARROW_TAKE(r) x##r = LOAD(c + r * c_stride);
#define NARROW_STEP(r) x##r += left * AT##r;
#define NARROW_GIVE(r) STORE(c + r * c_stride, x##r);
#define ONE            FETCH const lanes left = LOAD(b);

#define BLOCK(name, ROWS, SUM, TAKE_IN, COLUMNS, ADD, GIVE_OUT)                    \
    static void name(const float *a, size_t stride, const float *b, size_t depth,  \
                     float *c, size_t c_stride, bool add)                          \
    {                                                                              \
        const float *p0 = a, *p1 = a + 3 * stride, *p2 = a + 6 * stride,           \
                    *p3 = a + 9 * stride, *p4 = a + 12 * stride;                   \
        ROWS(SUM)                                                                  \
        if (add) {                                                                 \
            ROWS(TAKE_IN)                                                          \
        }                                                                          \
        for (const float *end = b + depth * CPU_PANEL; b != end; b += CPU_PANEL) { \
            COLUMNS                                                                \
            ROWS(ADD)                                                              \
            p0++, p1++, p2++, p3++, p4++;                                          \
        }                                                                          \
        ROWS(GIVE_OUT)                                                             \
        (void)p0, (void)p1, (void)p2, (void)p3, (void)p4;                          \
    }

typedef void (*block)(const float *a, size_t stride, const float *b, size_t depth,
                      float *c, size_t c_stride, bool add);

#define FULL(name, ROWS) BLOCK(name, ROWS, SUMS, TAKE, BOTH, STEP, GIVE)
#define NARROW(name, ROWS) \
    BLOCK(name, ROWS, NARROW_SUMS, NARROW_TAKE, ONE, NARROW_STEP, NARROW_GIVE)

FULL(block_6, ROWS6)
FULL(block_4, ROWS4)
FULL(block_2, ROWS2)
FULL(block_1, ROWS1)
#if LANES == 16
FULL(block_14, ROWS14)
FULL(block_8, ROWS8)
NARROW(narrow_14, ROWS14)
NARROW(narrow_8, ROWS8)
NARROW(narrow_6, ROWS6)
NARROW(narrow_4, ROWS4)
NARROW(narrow_2, ROWS2)
NARROW(narrow_1, ROWS1)
#else
#define narrow_6 NULL
#define narrow_4 NULL
#define narrow_2 NULL
#define narrow_1 NULL
#endif

typedef struct sized_block {
    size_t rows;
    block full;    //  2 * LANES columns
    block narrow;  //  LANES columns: where that is all that is left of CPU_LANES
} sized_block;

//  The largest first; the last takes one row.
static const sized_block blocks[] = {
#if LANES == 16
    {14, block_14, narrow_14}, {8, block_8, narrow_8},
#endif
    {6, block_6, narrow_6},    {4, block_4, narrow_4},
    {2, block_2, narrow_2},    {1, block_1, narrow_1},
};

//  All rows of one block of columns.
static void product_columns(const cpu_product *p, size_t column, bool narrow)
{
    const sized_block *kind = blocks;
    const float *b = p->b + column / CPU_PANEL * p->panel_stride + column % CPU_PANEL;
    for (size_t row = 0; row < p->rows; row += kind->rows) {
        while (p->rows - row < kind->rows) kind++;
        const block run = narrow ? kind->narrow : kind->full;
        run(p->a + row * p->a_stride, p->a_stride, b, p->depth,
            p->c + row * p->c_stride + column, p->c_stride, p->add);
    }
}

//  So many rows that they stay in the cache while the panels pass by.
enum { ROWS_AT_ONCE = 112 };

static void product(const cpu_product *whole)
{
    cpu_product part = *whole;
    for (size_t row = 0; row < whole->rows; row += ROWS_AT_ONCE) {
        const size_t left = whole->rows - row;
        part.rows = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
        part.a = whole->a + row * whole->a_stride;
        part.c = whole->c + row * whole->c_stride;
        size_t column = 0;
        for (; column + 2 * LANES <= whole->columns; column += 2 * LANES)
            product_columns(&part, column, false);
        if (column < whole->columns) product_columns(&part, column, true);
    }
}

//  ---- Winograd --------------------------------------------------------------------

static inline void patch_line(const lanes d[CPU_PATCH], lanes out[CPU_PATCH])
{
    const lanes a = d[4] - 4.0F * d[2], b = d[3] - 4.0F * d[1];
    const lanes e = d[4] - d[2], f = 2.0F * (d[3] - d[1]);
    out[0] = 4.0F * d[0] - 5.0F * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = e + f;
    out[4] = e - f;
    out[5] = 4.0F * d[1] - 5.0F * d[3] + d[5];
}

static void tile_in(const float *patch, size_t row_stride, size_t channels, float *points,
                    size_t point_stride)
{
    for (size_t k = 0; k < channels; k += LANES) {
        lanes half[CPU_PATCH][CPU_PATCH];
        for (size_t x = 0; x < CPU_PATCH; x++) {
            lanes line[CPU_PATCH];
            for (size_t y = 0; y < CPU_PATCH; y++)
                line[y] = LOAD(patch + y * row_stride + x * channels + k);
            patch_line(line, half[x]);
        }
        for (size_t y = 0; y < CPU_PATCH; y++) {
            lanes line[CPU_PATCH], out[CPU_PATCH];
            for (size_t x = 0; x < CPU_PATCH; x++) line[x] = half[x][y];
            patch_line(line, out);
            for (size_t x = 0; x < CPU_PATCH; x++)
                STORE(points + (y * CPU_PATCH + x) * point_stride + k, out[x]);
        }
    }
}

static inline void tile_line(const lanes m[CPU_PATCH], lanes out[CPU_TILE])
{
    const lanes a = m[1] + m[2], b = m[1] - m[2];
    const lanes c = m[3] + m[4], d = m[3] - m[4];
    out[0] = m[0] + a + c;
    out[1] = b + 2.0F * d;
    out[2] = a + 4.0F * c;
    out[3] = b + 8.0F * d + m[5];
}

static inline void tile_rows(const cpu_tile *t, size_t k, lanes half[][CPU_TILE])
{
    const lanes bias = LOAD(t->bias + k);
    for (size_t y = 0; y < t->rows; y++) {
        lanes line[CPU_PATCH], out[CPU_TILE];
        const size_t at = y * t->row_stride + k;
        for (size_t x = 0; x < CPU_PATCH; x++) line[x] = half[x][y];
        tile_line(line, out);
        for (size_t x = 0; x < t->columns; x++) {
            const size_t here = at + x * t->channels;
            out[x] += bias;
            if (t->residual) out[x] += LOAD(t->residual + here);
            STORE(t->out + here, out[x]);
        }
    }
}

static void tile_out(const cpu_tile *t)
{
    for (size_t k = 0; k < t->channels; k += LANES) {
        lanes half[CPU_PATCH][CPU_TILE];
        for (size_t x = 0; x < CPU_PATCH; x++) {
            lanes line[CPU_PATCH];
            for (size_t y = 0; y < CPU_PATCH; y++)
                line[y] = LOAD(t->points + (y * CPU_PATCH + x) * t->point_stride + k);
            tile_line(line, half[x]);
        }
        tile_rows(t, k, half);
    }
}

static inline void filter_line(const lanes g[3], lanes out[CPU_PATCH])
{
    const lanes a = -(g[0] + g[2]) / 6.0F, b = g[1] / 6.0F;
    const lanes c = g[0] / 24.0F + g[2] / 6.0F, d = g[1] / 12.0F;
    out[0] = g[0] / 4.0F;
    out[1] = a - b;
    out[2] = a + b;
    out[3] = c + d;
    out[4] = c - d;
    out[5] = g[2];
}

static inline void filter_lanes(const float *taps, size_t stride, size_t count,
                                float *points, size_t point_stride)
{
    lanes half[3][CPU_PATCH];
    for (size_t x = 0; x < 3; x++) {
        lanes g[3] = {{0}};
        for (size_t y = 0; y < 3; y++)
            for (size_t i = 0; i < count; i++) g[y][i] = taps[i * stride + y * 3 + x];
        filter_line(g, half[x]);
    }
    for (size_t y = 0; y < CPU_PATCH; y++) {
        lanes out[CPU_PATCH];
        const lanes g[3] = {half[0][y], half[1][y], half[2][y]};
        filter_line(g, out);
        for (size_t x = 0; x < CPU_PATCH; x++)
            STORE(points + (y * CPU_PATCH + x) * point_stride, out[x]);
    }
}

static void filter(const float *taps, size_t stride, size_t count, float *points,
                   size_t point_stride)
{
    for (size_t i = 0; i < CPU_LANES; i += LANES) {
        const size_t left = count > i ? count - i : 0;
        filter_lanes(taps + i * stride, stride, left < LANES ? left : LANES, points + i,
                     point_stride);
    }
}

//  ---- pixel by pixel --------------------------------------------------------------

//  exp to within two units in the last place, between 2^-126 and 2^127; NaN stays NaN.
//  Coefficients of Cephes' expf.
static inline lanes exponential(lanes x)
{
    const lanes low = (lanes){0} - 87.33F, high = (lanes){0} + 88.0F;
    x = SELECT(x < low, low, x);
    x = SELECT(x > high, high, x);
    const lanes round = (lanes){0} + 12582912.0F;  //  1.5 * 2^23: drops the fraction
    const lanes n = (x * 1.44269504F + round) - round;
    const lanes r = x - n * 0.693359375F + n * 2.12194440e-4F;
    lanes y = r * 1.9875691500e-4F + 1.3981999507e-3F;
    y = y * r + 8.3334519073e-3F;
    y = y * r + 4.1665795894e-2F;
    y = y * r + 1.6666665459e-1F;
    y = y * r + 5.0000001201e-1F;
    y = y * (r * r) + r + 1.0F;
    const marks power = (__builtin_convertvector(n, marks) + 127) << 23;
    return y * (lanes)power;
}

static inline lanes silu_of(lanes x)
{
    return x / (1.0F + exponential(-x));
}

static void scale(const float *x, size_t pixels, size_t channels,
                  const float *coefficient, bool with_silu, float *out)
{
    const float *gain = coefficient + channels, *offset = gain + channels;
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < channels; k += LANES) {
            const size_t at = p * channels + k;
            lanes y = (LOAD(x + at) - LOAD(coefficient + k)) * LOAD(gain + k) +
                      LOAD(offset + k);
            if (with_silu) y = silu_of(y);
            STORE(out + at, y);
        }
}

static void silu(const float *x, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) STORE(out + i, silu_of(LOAD(x + i)));
}

//  NaN stays NaN: it must be seen at the end, not hidden.
static void relu(const float *x, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) {
        const lanes y = LOAD(x + i), zero = {0};
        STORE(out + i, SELECT(y < zero, zero, y));
    }
}

static void add(const float *x, const float *y, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) STORE(out + i, LOAD(x + i) + LOAD(y + i));
}

static void multiply(float *x, size_t count, float factor)
{
    for (size_t i = 0; i < count; i += LANES) STORE(x + i, LOAD(x + i) * factor);
}

static void fill(const float *bias, size_t pixels, size_t channels, float *out)
{
    for (size_t p = 0; p < pixels; p++)
        memcpy(out + p * channels, bias, channels * sizeof *out);
}

//  Sums of distances from the first pixel: one pass, and nothing to cancel however far
//  the mean is from zero.
static void moments(const float *x, size_t pixels, size_t channels, float *mean,
                    float *squares)
{
    const float share = 1.0F / (float)pixels;
    for (size_t k = 0; k < channels; k += LANES) {
        const lanes first = LOAD(x + k);
        lanes sum = {0}, sum_squares = {0};
        for (size_t p = 1; p < pixels; p++) {
            const lanes off = LOAD(x + p * channels + k) - first;
            sum += off;
            sum_squares += off * off;
        }
        STORE(mean + k, first + sum * share);
        STORE(squares + k, sum_squares - sum * sum * share);
    }
}

static float sum_lanes(lanes v)
{
    float sum = 0.0F;
    for (size_t i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

static void rms(const float *x, size_t pixels, size_t channels, float root, float epsilon,
                const float *weight, float *out)
{
    for (size_t p = 0; p < pixels; p++, x += channels, out += channels) {
        lanes squares = {0};
        for (size_t k = 0; k < channels; k += LANES) squares += LOAD(x + k) * LOAD(x + k);
        const float length = sqrtf(sum_lanes(squares));
        const float factor = root / (length < epsilon ? epsilon : length);
        for (size_t k = 0; k < channels; k += LANES)
            STORE(out + k, LOAD(x + k) * factor * LOAD(weight + k));
    }
}

static float softmax(float *scores, size_t count, float factor, float *max, float *sum)
{
    lanes largest = LOAD(scores), total = {0};
    for (size_t i = LANES; i < count; i += LANES)
        largest = SELECT(LOAD(scores + i) > largest, LOAD(scores + i), largest);
    const float before = *max;
    for (size_t i = 0; i < LANES; i++)
        if (largest[i] * factor > *max) *max = largest[i] * factor;
    for (size_t i = 0; i < count; i += LANES) {
        const lanes weight = exponential(LOAD(scores + i) * factor - *max);
        STORE(scores + i, weight);
        total += weight;
    }
    const float correction = expf(before - *max);
    *sum = *sum * correction + sum_lanes(total);
    return correction;
}

const cpu_kernels KERNELS = {.name = KERNELS_NAME,
                             .product = product,
                             .tile_in = tile_in,
                             .tile_out = tile_out,
                             .filter = filter,
                             .scale = scale,
                             .silu = silu,
                             .relu = relu,
                             .add = add,
                             .fill = fill,
                             .moments = moments,
                             .rms = rms,
                             .softmax = softmax,
                             .multiply = multiply};
