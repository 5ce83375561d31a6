//  Values to bytes at their ties, group norm with a large mean, and shared memory.

#include "decoder/vae/group_norm.h"
#include "decoder/vae/memory_plan.h"
#include "decoder/vae/pixels.h"
#include "vae/vae_test.h"

static uint8_t byte(float value, luna_pixels_range range, luna_pixels_rule rule)
{
    return luna_pixel_byte(luna_pixel_unit(value, range), rule);
}

static void truncation_at_its_ties(void **state)
{
    (void)state;
    for (int k = 1; k <= 255; k++) {
        //  The least float whose product with 255 reaches k, and the one below it.
        float unit = (float)k / 255.0F;
        while (255.0F * nextafterf(unit, 0.0F) >= (float)k) unit = nextafterf(unit, 0.0F);
        while (255.0F * unit < (float)k) unit = nextafterf(unit, 1.0F);
        assert_int_equal(luna_pixel_byte(unit, LUNA_PIXELS_TRUNCATE), k);
        assert_int_equal(luna_pixel_byte(nextafterf(unit, 0.0F), LUNA_PIXELS_TRUNCATE),
                         k - 1);
    }
    assert_int_equal(byte(1.0F, LUNA_RANGE_SIGNED, LUNA_PIXELS_TRUNCATE), 255);
    assert_int_equal(
        byte(nextafterf(1.0F, 0.0F), LUNA_RANGE_SIGNED, LUNA_PIXELS_TRUNCATE), 255);
    assert_int_equal(byte(0.999F, LUNA_RANGE_SIGNED, LUNA_PIXELS_TRUNCATE), 254);
    assert_int_equal(byte(0.0F, LUNA_RANGE_SIGNED, LUNA_PIXELS_TRUNCATE), 127);
    assert_int_equal(byte(0.5F, LUNA_RANGE_UNIT, LUNA_PIXELS_TRUNCATE), 127);
}

static void rounding_at_its_ties(void **state)
{
    (void)state;
    assert_int_equal(byte(0.0F, LUNA_RANGE_SIGNED, LUNA_PIXELS_ROUND),
                     128);  //  127.5, to even
    assert_int_equal(byte(0.5F, LUNA_RANGE_UNIT, LUNA_PIXELS_ROUND), 128);
    assert_int_equal(luna_pixel_byte(0.5F / 255.0F, LUNA_PIXELS_ROUND), 0);  //  to even
    assert_int_equal(luna_pixel_byte(0.51F / 255.0F, LUNA_PIXELS_ROUND), 1);
    assert_int_equal(luna_pixel_byte(254.6F / 255.0F, LUNA_PIXELS_ROUND), 255);
}

static void values_outside_are_clamped(void **state)
{
    (void)state;
    static const float wide[] = {-1e30F, -1.5F, -1.0F}, high[] = {1.0F, 1.5F, 1e30F};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(byte(wide[i], LUNA_RANGE_SIGNED, LUNA_PIXELS_TRUNCATE), 0);
        assert_int_equal(byte(high[i], LUNA_RANGE_SIGNED, LUNA_PIXELS_ROUND), 255);
        assert_int_equal(byte(high[i], LUNA_RANGE_UNIT, LUNA_PIXELS_TRUNCATE), 255);
    }
    assert_int_equal(byte(-0.1F, LUNA_RANGE_UNIT, LUNA_PIXELS_ROUND), 0);
}

//  ComfyUI in single precision: TAESD's own sub(0.5).mul(2), (x + 1) / 2, clamp, 255 x,
//  cut.
static void same_steps_as_comfyui(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int i = 0; i < 100000; i++) {
        const float x = 0.75F * random_float(&seed) + 0.5F;
        volatile float step = x - 0.5F;
        step *= 2.0F;
        step += 1.0F;
        step /= 2.0F;
        step = step < 0.0F ? 0.0F : step > 1.0F ? 1.0F : step;
        step *= 255.0F;
        assert_int_equal(byte(x, LUNA_RANGE_UNIT, LUNA_PIXELS_TRUNCATE), (uint8_t)step);
    }
}

//  [C / block, P, block] of values around a mean a million times their spread: sums of
//  squares in float would lose everything.
static void group_norm_far_from_zero(void **state)
{
    (void)state;
    enum { CHANNELS = 32, PIXELS = 77, GROUPS = 4, EACH = CHANNELS / GROUPS * PIXELS };
    static float x[CHANNELS * PIXELS], y[CHANNELS * PIXELS];
    float weight[CHANNELS], bias[CHANNELS];
    static const size_t blocks[] = {1, 4, 8, 16, 32};
    for (size_t b = 0; b < 5; b++) {
        const size_t block = blocks[b];
        uint64_t seed = 5;
        for (int i = 0; i < CHANNELS * PIXELS; i++)
            x[i] = 4096.0F + random_float(&seed) * 0.01F;
        for (int i = 0; i < CHANNELS; i++) weight[i] = 1.0F, bias[i] = 0.0F;
        const luna_group_norm norm = {.channels = CHANNELS,
                                      .groups = GROUPS,
                                      .pixels = PIXELS,
                                      .block = block,
                                      .epsilon = 0.0F,
                                      .weight = weight,
                                      .bias = bias};
        luna_group_norm_run(&norm, x, y);
        for (size_t g = 0; g < GROUPS; g++) {
            double sum = 0.0, squares = 0.0;
            for (size_t c = g * 8; c < g * 8 + 8; c++)
                for (size_t p = 0; p < PIXELS; p++) {
                    const double v = y[(c / block * PIXELS + p) * block + c % block];
                    sum += v;
                    squares += v * v;
                }
            assert_true(fabs(sum / EACH) < 0.05);
            assert_true(fabs(squares / EACH - 1.0) < 0.01);
        }
    }
}

static bool overlap(size_t a, size_t a_len, size_t b, size_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

static void spans_never_meet(void **state)
{
    (void)state;
    luna_span spans[60];
    uint64_t seed = 9;
    for (int round = 0; round < 200; round++) {
        size_t peak = 0, sum = 0;
        for (int i = 0; i < 60; i++) {
            const size_t first = (size_t)(fabsf(random_float(&seed)) * 40.0F);
            const size_t length = (size_t)(fabsf(random_float(&seed)) * 6.0F);
            const size_t bytes = (size_t)(fabsf(random_float(&seed)) * 1000.0F);
            spans[i] =
                (luna_span){.bytes = bytes, .first = first, .last = first + length};
            sum += bytes + LUNA_MEMORY_ALIGN;
        }
        assert_int_equal(luna_memory_plan(spans, 60, &peak), LUNA_OK);
        assert_true(peak < sum / 2);
        for (int i = 0; i < 60; i++) {
            const luna_span *a = &spans[i];
            assert_true(a->offset % LUNA_MEMORY_ALIGN == 0 &&
                        a->offset + a->bytes <= peak);
            for (int k = 0; k < i; k++) {
                const luna_span *b = &spans[k];
                if (a->bytes == 0 || b->bytes == 0) continue;
                if (!overlap(a->first, a->last - a->first + 1, b->first,
                             b->last - b->first + 1))
                    continue;
                assert_false(overlap(a->offset, a->bytes, b->offset, b->bytes));
            }
        }
    }
    spans[0].bytes = spans[1].bytes = SIZE_MAX / 2;
    size_t peak = 0;
    assert_int_equal(luna_memory_plan(spans, 60, &peak), LUNA_NO_MEMORY);
}

//  Bytes of a span that are used at a step; 0 before and after its life.
static size_t used_at(const luna_span *s, size_t step)
{
    if (step < s->first || step > s->last) return 0;
    return s->shrinks > s->first && step >= s->shrinks ? s->later_bytes : s->bytes;
}

static void spans_that_shrink_make_room(void **state)
{
    (void)state;
    //  The second fits where the first has let go, the third does not.
    luna_span few[] = {
        {.bytes = 640, .first = 0, .last = 9, .shrinks = 5, .later_bytes = 128},
        {.bytes = 512, .first = 5, .last = 9},
        {.bytes = 320, .first = 4, .last = 4}};
    size_t peak = 0;
    assert_int_equal(luna_memory_plan(few, 3, &peak), LUNA_OK);
    assert_int_equal(few[1].offset, 128);
    assert_int_equal(peak, 960);
    luna_span spans[60];
    uint64_t seed = 10;
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 60; i++) {
            const size_t first = (size_t)(fabsf(random_float(&seed)) * 40.0F);
            const size_t length = (size_t)(fabsf(random_float(&seed)) * 8.0F);
            const size_t bytes = (size_t)(fabsf(random_float(&seed)) * 1000.0F);
            spans[i] = (luna_span){.bytes = bytes,
                                   .first = first,
                                   .last = first + length,
                                   .shrinks = i % 3 ? 0 : first + length / 2,
                                   .later_bytes = bytes / 3};
        }
        assert_int_equal(luna_memory_plan(spans, 60, &peak), LUNA_OK);
        for (size_t step = 0; step < 50; step++)
            for (int i = 0; i < 60; i++)
                for (int k = 0; k < i; k++) {
                    const size_t a = used_at(&spans[i], step),
                                 b = used_at(&spans[k], step);
                    if (a && b)
                        assert_false(overlap(spans[i].offset, a, spans[k].offset, b));
                }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncation_at_its_ties),
        cmocka_unit_test(rounding_at_its_ties),
        cmocka_unit_test(values_outside_are_clamped),
        cmocka_unit_test(same_steps_as_comfyui),
        cmocka_unit_test(group_norm_far_from_zero),
        cmocka_unit_test(spans_never_meet),
        cmocka_unit_test(spans_that_shrink_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
