//  fp16 and bf16: every bit pattern there and back, and rounding at its ties.

#include "common/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

//  The definition: (-1)^s 2^(e-15) (1 + m / 1024), subnormals m 2^-24.
static double half_by_definition(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31) return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

static void every_half(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float value = luna_half_to_float((uint16_t)bits);
        const double expected = half_by_definition((uint16_t)bits);
        if (isnan(expected)) {
            assert_true(isnan(value));
            assert_true(isnan(luna_half_to_float(luna_float_to_half(value))));
            continue;
        }
        assert_true((double)value == expected && !signbit(value) == !signbit(expected));
        assert_int_equal(luna_float_to_half(value), bits);
    }
}

static void every_bfloat(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float value = luna_bfloat_to_float((uint16_t)bits);
        const uint32_t wide = bits << 16;
        assert_memory_equal(&value, &wide, sizeof value);
        if (isnan(value))
            assert_true(isnan(luna_bfloat_to_float(luna_float_to_bfloat(value))));
        else
            assert_int_equal(luna_float_to_bfloat(value), bits);
    }
}

//  Between two neighbouring halves: below the middle down, above it up, at it to even.
static void half_rounds_to_even(void **state)
{
    (void)state;
    for (uint16_t bits = 0; bits < 0x7bff; bits++) {
        const float low = luna_half_to_float(bits),
                    high = luna_half_to_float((uint16_t)(bits + 1));
        const float middle = low + (high - low) / 2.0F;
        assert_int_equal(luna_float_to_half(nextafterf(middle, low)), bits);
        assert_int_equal(luna_float_to_half(nextafterf(middle, high)), bits + 1);
        assert_int_equal(luna_float_to_half(middle), bits % 2 ? bits + 1 : bits);
    }
    assert_int_equal(luna_float_to_half(65519.0F), 0x7bff);
    assert_int_equal(luna_float_to_half(65520.0F), 0x7c00);
    assert_int_equal(luna_float_to_half(1e9F), 0x7c00);
    assert_int_equal(luna_float_to_half(-INFINITY), 0xfc00);
    assert_int_equal(luna_float_to_half(-1e-30F), 0x8000);
}

static void bfloat_rounds_to_even(void **state)
{
    (void)state;
    assert_int_equal(luna_float_to_bfloat(1.00390625F), 0x3f80);  //  1 + 2^-8: a tie
    assert_int_equal(luna_float_to_bfloat(1.01171875F), 0x3f82);  //  1 + 3 * 2^-8: a tie
    assert_int_equal(luna_float_to_bfloat(1.005F), 0x3f81);
    assert_int_equal(luna_float_to_bfloat(3.4e38F), 0x7f80);
    assert_int_equal(luna_float_to_bfloat(-INFINITY), 0xff80);
}

//  (-1)^s 2^(e-bias) (1 + m / 2^mantissa), subnormals m 2^(1-bias-mantissa).
static double float8_by_definition(unsigned bits, int mantissa, int bias)
{
    const int exponent = (int)(bits & 0x7fU) >> mantissa;
    const int m = (int)bits & ((1 << mantissa) - 1);
    const double sign = bits >> 7 ? -1.0 : 1.0;
    if (exponent == 0) return sign * ldexp(m, 1 - bias - mantissa);
    return sign * ldexp((1 << mantissa) + m, exponent - bias - mantissa);
}

static void expect_same(float got, double expected)
{
    assert_true((double)got == expected && !signbit(got) == !signbit(expected));
}

static void every_float8(void **state)
{
    (void)state;
    uint8_t bits[256];
    float e4m3[256], e5m2[256];
    for (unsigned i = 0; i < 256; i++) bits[i] = (uint8_t)i;
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_F8_E4M3, bits, 256, e4m3), LUNA_OK);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_F8_E5M2, bits, 256, e5m2), LUNA_OK);
    for (unsigned i = 0; i < 256; i++) {
        if ((i & 0x7fU) == 0x7fU)
            assert_true(isnan(e4m3[i]));
        else
            expect_same(e4m3[i], float8_by_definition(i, 3, 7));
        if ((i & 0x7cU) != 0x7cU)
            expect_same(e5m2[i], float8_by_definition(i, 2, 15));
        else
            assert_true(i & 3U ? isnan(e5m2[i]) : isinf(e5m2[i]));
    }
    assert_true(e4m3[0x7e] == 448.0F && e5m2[0x7b] == 57344.0F);
}

static void names_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(luna_dtype_parse("BF16", 4), LUNA_DTYPE_BF16);
    assert_int_equal(luna_dtype_parse("bfloat16", 8), LUNA_DTYPE_BF16);
    assert_int_equal(luna_dtype_parse("float16xx", 7), LUNA_DTYPE_F16);
    assert_int_equal(luna_dtype_parse("float1", 6), LUNA_DTYPE_OTHER);
    assert_int_equal(luna_dtype_parse("", 0), LUNA_DTYPE_OTHER);
    assert_string_equal(luna_dtype_word(LUNA_DTYPE_F32), "float32");
    assert_string_equal(luna_dtype_name(LUNA_DTYPE_OTHER), "other");
    assert_int_equal(luna_dtype_size(LUNA_DTYPE_F64), 8);
    assert_int_equal(luna_dtype_size(LUNA_DTYPE_OTHER), 0);
    assert_false(luna_dtype_is_float(LUNA_DTYPE_I64));
    assert_false(luna_dtype_is_float(LUNA_DTYPE_F8_E4M3));
    assert_true(luna_dtype_is_float8(LUNA_DTYPE_F8_E4M3));
    assert_true(luna_dtype_is_float8(LUNA_DTYPE_F8_E5M2));
    assert_false(luna_dtype_is_float8(LUNA_DTYPE_F16));
}

static void unaligned_values(void **state)
{
    (void)state;
    uint8_t bytes[1 + 2 * 8];
    const double doubles[2] = {0.1, -1e300};
    const float floats[2] = {0.25F, 3.0F};
    const uint16_t halves[2] = {0x3c00, 0xc000};
    float out[2];
    memcpy(bytes + 1, doubles, sizeof doubles);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_F64, bytes + 1, 2, out), LUNA_OK);
    assert_true(out[0] == 0.1F && isinf(out[1]));
    memcpy(bytes + 1, floats, sizeof floats);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_F32, bytes + 1, 2, out), LUNA_OK);
    assert_true(out[0] == 0.25F && out[1] == 3.0F);
    memcpy(bytes + 1, halves, sizeof halves);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_F16, bytes + 1, 2, out), LUNA_OK);
    assert_true(out[0] == 1.0F && out[1] == -2.0F);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_BF16, bytes + 1, 2, out), LUNA_OK);
    assert_true(out[0] == 0.0078125F && out[1] == -2.0F);
    assert_int_equal(luna_dtype_to_float(LUNA_DTYPE_I32, bytes + 1, 2, out),
                     LUNA_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half),
        cmocka_unit_test(every_bfloat),
        cmocka_unit_test(every_float8),
        cmocka_unit_test(half_rounds_to_even),
        cmocka_unit_test(bfloat_rounds_to_even),
        cmocka_unit_test(names_and_sizes),
        cmocka_unit_test(unaligned_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
