//  The CPU's kernels, of every instruction set this processor has, against their
//  definitions in double.

#include "vae/vae_test.h"

#if LUNA_VAE_CPU
#include "decoder/vae/cpu/kernels.h"

static uint64_t seed = 20;

static float *new_floats(size_t count)
{
    float *values = aligned_alloc(64, (count * sizeof *values + 63) / 64 * 64);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) values[i] = random_float(&seed);
    return values;
}

static void expect_near(const cpu_kernels *k, const char *what, double got, double wanted,
                        double allowed)
{
    if (!(fabs(got - wanted) <= allowed))
        fail_msg("%s, %s: %.9g, not %.9g", k->name, what, got, wanted);
}

static void check_product(const cpu_kernels *k, size_t rows, size_t depth, size_t columns,
                          bool add)
{
    const size_t a_stride = depth + 16, c_stride = columns + 32;
    const size_t panel_stride = depth * CPU_PANEL + 64;
    float *a = new_floats(rows * a_stride), *c = new_floats(rows * c_stride);
    float *b = new_floats(cpu_panels(columns) * panel_stride);
    float *before = new_floats(rows * c_stride);
    memcpy(before, c, rows * c_stride * sizeof *c);
    const cpu_product product = {a,     a_stride, rows, b,        panel_stride,
                                 depth, columns,  c,    c_stride, add};
    k->product(&product);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < c_stride; j++) {
            double sum = add || j >= columns ? before[i * c_stride + j] : 0.0;
            for (size_t d = 0; d < depth && j < columns; d++)
                sum += (double)a[i * a_stride + d] *
                       b[j / CPU_PANEL * panel_stride + d * CPU_PANEL + j % CPU_PANEL];
            expect_near(k, "product", c[i * c_stride + j], sum, 1e-5);
        }
    free(a);
    free(b);
    free(c);
    free(before);
}

static void products(const cpu_kernels *k)
{
    for (size_t rows = 1; rows <= 30; rows++)
        for (size_t columns = 16; columns <= 80; columns += 16)
            check_product(k, rows, 16 + rows % 3, columns, rows % 2 == 0);
    check_product(k, 250, 5, 48, false);
}

//  The same row, the same bits: alone, or among others at any place.
static void rows_do_not_depend_on_others(const cpu_kernels *k)
{
    enum { ROWS = 29, DEPTH = 40, COLUMNS = 48 };
    float *a = new_floats(ROWS * DEPTH), *b = new_floats(2 * DEPTH * CPU_PANEL);
    float *all = new_floats(ROWS * COLUMNS), *one = new_floats(COLUMNS);
    cpu_product product = {a,     DEPTH,   ROWS, b,       DEPTH * CPU_PANEL,
                           DEPTH, COLUMNS, all,  COLUMNS, false};
    k->product(&product);
    product.rows = 1;
    product.c = one;
    for (size_t i = 0; i < ROWS; i++) {
        product.a = a + i * DEPTH;
        k->product(&product);
        assert_memory_equal(one, all + i * COLUMNS, COLUMNS * sizeof *one);
    }
    free(a);
    free(b);
    free(all);
    free(one);
}

enum { FROM = 16, TO = 32, STRIDE = 8 * FROM, POINT = 48 };

static double direct(const float *patch, const float *taps, size_t y, size_t x, size_t to)
{
    double sum = 0.0;
    for (size_t c = 0; c < FROM; c++)
        for (size_t t = 0; t < 9; t++)
            sum += (double)patch[(y + t / 3) * STRIDE + (x + t % 3) * FROM + c] *
                   taps[(to * FROM + c) * 9 + t];
    return sum;
}

//  One tile from patch to results, with the last filters missing and the tile cut.
static void tiles(const cpu_kernels *k)
{
    enum { COUNT = 27, ROWS = 3, COLUMNS = 2, OUT = 5 * TO };
    float *patch = new_floats(6 * STRIDE), *taps = new_floats(COUNT * FROM * 9);
    float *filters = new_floats(CPU_POINTS * FROM * CPU_PANEL);
    float *in = new_floats(CPU_POINTS * POINT), *out = new_floats(CPU_POINTS * POINT);
    float *bias = new_floats(TO), *residual = new_floats(4 * OUT);
    float *result = new_floats(4 * OUT), *before = new_floats(4 * OUT);
    memcpy(before, result, 4 * OUT * sizeof *result);
    for (size_t c = 0; c < FROM; c++)
        for (size_t i = 0; i < TO; i += CPU_LANES)
            k->filter(taps + (i * FROM + c) * 9, FROM * 9,
                      COUNT - i < CPU_LANES ? COUNT - i : CPU_LANES,
                      filters + c * CPU_PANEL + i, FROM * CPU_PANEL);
    k->tile_in(patch, STRIDE, FROM, in, POINT);
    for (size_t p = 0; p < CPU_POINTS; p++) {
        const cpu_product product = {in + p * POINT,
                                     FROM,
                                     1,
                                     filters + p * FROM * CPU_PANEL,
                                     FROM * CPU_PANEL,
                                     FROM,
                                     TO,
                                     out + p * POINT,
                                     TO,
                                     false};
        k->product(&product);
    }
    const cpu_tile tile = {out, POINT, TO, bias, residual, result, OUT, ROWS, COLUMNS};
    k->tile_out(&tile);
    for (size_t i = 0; i < 4 * OUT; i++) {
        const size_t y = i / OUT, x = i % OUT / TO, to = i % TO;
        double wanted = before[i];
        if (y < ROWS && x < COLUMNS)
            wanted = bias[to] + residual[i] +
                     (to < COUNT ? direct(patch, taps, y, x, to) : 0.0);
        expect_near(k, "tile", result[i], wanted, 3e-5);
    }
    free(patch);
    free(taps);
    free(filters);
    free(in);
    free(out);
    free(bias);
    free(residual);
    free(result);
    free(before);
}

static void activations(const cpu_kernels *k)
{
    enum { COUNT = 4096 };
    float *x = new_floats(COUNT), *y = new_floats(COUNT);
    for (size_t i = 0; i < COUNT; i++) x[i] = ((float)i - COUNT / 2.0F) / 16.0F;
    x[0] = NAN;
    x[1] = -INFINITY;
    k->silu(x, COUNT, y);
    assert_true(isnan(y[0]));
    for (size_t i = 2; i < COUNT; i++)
        expect_near(k, "silu", y[i], x[i] / (1.0 + exp(-(double)x[i])),
                    3e-7 * fmax(1.0, fabs((double)x[i])));
    k->relu(x, COUNT, y);
    assert_true(isnan(y[0]));
    for (size_t i = 1; i < COUNT; i++) assert_true(y[i] == (x[i] > 0.0F ? x[i] : 0.0F));
    free(x);
    free(y);
}

//  A mean a million times the deviation costs no more digits than the values have lost.
static void moments_far_from_zero(const cpu_kernels *k)
{
    enum { PIXELS = 61, CHANNELS = 32 };
    float *x = new_floats(PIXELS * CHANNELS);
    float mean[CHANNELS] __attribute__((aligned(64)));
    float squares[CHANNELS] __attribute__((aligned(64)));
    for (size_t i = 0; i < PIXELS * CHANNELS; i++) x[i] = 1000.0F + x[i] / 64.0F;
    k->moments(x, PIXELS, CHANNELS, mean, squares);
    for (size_t c = 0; c < CHANNELS; c++) {
        double m = 0.0, s = 0.0;
        for (size_t p = 0; p < PIXELS; p++) m += x[p * CHANNELS + c] / (double)PIXELS;
        for (size_t p = 0; p < PIXELS; p++)
            s += (x[p * CHANNELS + c] - m) * (x[p * CHANNELS + c] - m);
        expect_near(k, "mean", mean[c], m, 1e-4);
        expect_near(k, "squares", squares[c], s, 1e-4 * s);
    }
    free(x);
}

//  In blocks, as attention takes it.
static void softmax_by_blocks(const cpu_kernels *k)
{
    enum { COUNT = 96, BLOCK = 32 };
    float *x = new_floats(COUNT), *y = new_floats(COUNT);
    float max = -1e30F, sum = 0.0F, factor[3];
    double largest = -1e30, all = 0.0;
    for (size_t i = 0; i < COUNT; i++) x[i] *= 40.0F;
    memcpy(y, x, COUNT * sizeof *x);
    for (size_t b = 0; b < 3; b++)
        factor[b] = k->softmax(y + b * BLOCK, BLOCK, 0.5F, &max, &sum);
    for (size_t i = 0; i < COUNT; i++) largest = fmax(largest, 0.5 * (double)x[i]);
    for (size_t i = 0; i < COUNT; i++) all += exp(0.5 * (double)x[i] - largest);
    for (size_t i = 0; i < COUNT; i++) {
        double got = y[i] / (double)sum;
        for (size_t b = i / BLOCK + 1; b < 3; b++) got *= factor[b];
        expect_near(k, "softmax", got, exp(0.5 * (double)x[i] - largest) / all, 1e-6);
    }
    free(x);
    free(y);
}

static void on_all(void (*check)(const cpu_kernels *kernels))
{
    static const char *const names[] = {"plain", "AVX2", "AVX-512"};
    for (int i = 0; i < 3; i++) {
        const cpu_kernels *kernels = cpu_kernels_find(names[i]);
        if (kernels) check(kernels);
        if (!kernels) print_message("%s: not on this processor\n", names[i]);
    }
}

#define ON_ALL(check)                      \
    static void check##_hold(void **state) \
    {                                      \
        (void)state;                       \
        on_all(check);                     \
    }
ON_ALL(products)
ON_ALL(rows_do_not_depend_on_others)
ON_ALL(tiles)
ON_ALL(activations)
ON_ALL(moments_far_from_zero)
ON_ALL(softmax_by_blocks)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_hold),
        cmocka_unit_test(rows_do_not_depend_on_others_hold),
        cmocka_unit_test(tiles_hold),
        cmocka_unit_test(activations_hold),
        cmocka_unit_test(moments_far_from_zero_hold),
        cmocka_unit_test(softmax_by_blocks_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    return 0;
}
#endif
