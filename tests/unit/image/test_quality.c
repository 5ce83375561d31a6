//  The quality gate's measures: against their formulas in floating point, on flat,
//  blurred and detailed pictures.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "decoder/image/quality.h"

static double luma(const luna_pixels *p, size_t x, size_t y)
{
    const uint8_t *at = p->data + (y * p->width + x) * p->channels;
    return 0.299 * at[0] + 0.587 * at[1] + 0.114 * at[2];
}

static luna_quality by_formula(const luna_pixels *p)
{
    double sum = 0, squares = 0, across = 0, down = 0;
    const double count = (double)(p->width * p->height);
    for (size_t y = 0; y < p->height; y++)
        for (size_t x = 0; x < p->width; x++) sum += luma(p, x, y);
    for (size_t y = 0; y < p->height; y++)
        for (size_t x = 0; x < p->width; x++) {
            squares += pow(luma(p, x, y) - sum / count, 2);
            if (x) across += fabs(luma(p, x, y) - luma(p, x - 1, y));
            if (y) down += fabs(luma(p, x, y) - luma(p, x, y - 1));
        }
    const double edges = (across / (double)((p->width - 1) * p->height) +
                          down / (double)(p->width * (p->height - 1))) /
                         2 / 255;
    return (luna_quality){fmin(1, squares / count / 3000), fmin(1, edges / 0.05)};
}

static void check(const luna_pixels *p)
{
    const luna_quality want = by_formula(p), got = luna_image_quality(p);
    assert_true(fabs(want.variance - got.variance) < 1e-9);
    assert_true(fabs(want.edge_density - got.edge_density) < 1e-9);
}

static void test_formulas(void **state)
{
    (void)state;
    uint8_t data[90 * 70 * 4];
    unsigned seed = 5;
    for (int round = 0; round < 8; round++) {
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (uint8_t)(200 + rand_r(&seed) % (2 << round) / 8);
        check(&(luna_pixels){data, 90, 70, 3 + (size_t)round % 2, 1});
        check(&(luna_pixels){data, 2, 70, 4, 1});
    }
}

static void test_what_it_is_for(void **state)
{
    (void)state;
    uint8_t flat[64 * 64 * 3], ramp[sizeof flat], noise[sizeof flat];
    unsigned seed = 3;
    for (size_t i = 0; i < sizeof flat; i++) {
        flat[i] = 250;
        ramp[i] = (uint8_t)(i / 3 % 64 * 4);
        noise[i] = (uint8_t)rand_r(&seed);
    }
    const luna_quality blank = luna_image_quality(&(luna_pixels){flat, 64, 64, 3, 1});
    const luna_quality blurred = luna_image_quality(&(luna_pixels){ramp, 64, 64, 3, 1});
    const luna_quality detailed = luna_image_quality(&(luna_pixels){noise, 64, 64, 3, 1});
    assert_true(blank.variance < 1e-12 && blank.edge_density < 1e-12);
    assert_true(blurred.variance > 0.99 && blurred.edge_density < 0.2);
    assert_true(detailed.variance > 0.3 && detailed.edge_density > 0.99);
    const luna_quality dot = luna_image_quality(&(luna_pixels){noise, 1, 1, 3, 1});
    assert_true(dot.variance < 1e-12 && dot.edge_density < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_what_it_is_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
