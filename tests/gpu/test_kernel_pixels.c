//  Planes to pixels of every format, to the byte as on the CPU.

#include "kernel_test.h"

static void one_pixels(luna_pixels_format format, luna_pixels_rule rule,
                       luna_pixels_range range)
{
    const luna_vae_shape shape = {1, 3, 17, 23};
    const size_t count = 3 * 17 * 23, bytes = luna_pixels_bytes(&shape, 1, format);
    float *planes = random_floats(count, 1.6F, 0.0F);
    //  Values between two bytes, and just beside them.
    for (size_t i = 0; i < 256; i++) planes[i] = (float)i / 127.5F - 1.0F;
    const luna_vae_target target = {.format = format, .rule = rule};
    uint8_t *wanted = malloc(bytes), *is = malloc(bytes);
    assert_non_null(wanted);
    assert_non_null(is);
    luna_pixels_convert(planes, &shape, range, &target, wanted);
    const gpu_pixel_args args = {.channels = 3,
                                 .pixels = 17 * 23,
                                 .unit = range == LUNA_RANGE_UNIT,
                                 .raw = rule == LUNA_PIXELS_RAW,
                                 .round = rule == LUNA_PIXELS_ROUND,
                                 .interleaved = format == LUNA_PIXELS_F32,
                                 .bytes = format == LUNA_PIXELS_U8};
    float *dp = to_device(planes, count * 4);
    void *to = device_room(bytes);
    int zero = 0, bad = 0, *flag = to_device(&zero, sizeof zero);
    ok(gpu_pixels_convert(&args, dp, to, flag, NULL));
    ok(cudaMemcpy(is, to, bytes, cudaMemcpyDeviceToHost));
    ok(cudaMemcpy(&bad, flag, sizeof bad, cudaMemcpyDeviceToHost));
    assert_memory_equal(is, wanted, bytes);
    assert_int_equal(bad, 0);
    planes[random_below(count)] = rule == LUNA_PIXELS_RAW ? INFINITY : NAN;
    ok(cudaMemcpy(dp, planes, count * 4, cudaMemcpyHostToDevice));
    ok(gpu_pixels_convert(&args, dp, to, flag, NULL));
    ok(cudaMemcpy(&bad, flag, sizeof bad, cudaMemcpyDeviceToHost));
    assert_int_equal(bad, 1);
    ok(cudaFree(dp));
    ok(cudaFree(to));
    ok(cudaFree(flag));
    free(planes);
    free(wanted);
    free(is);
}

static void pixels(void **state)
{
    (void)state;
    for (int format = LUNA_PIXELS_F32_PLANAR; format <= LUNA_PIXELS_U8; format++)
        for (int rule = LUNA_PIXELS_TRUNCATE; rule <= LUNA_PIXELS_RAW; rule++)
            for (int range = 0; range < 2; range++)
                if (format != LUNA_PIXELS_U8 || rule != LUNA_PIXELS_RAW)
                    one_pixels((luna_pixels_format)format, (luna_pixels_rule)rule,
                               (luna_pixels_range)range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
