//  The self-test passes where the arithmetic is right. What it finds where it is not:
//  tests/system/test_device.py, with a backend that decodes wrongly.

#include "decoder/vae/random_model.h"
#include "decoder/vae/selftest.h"
#include "vae/vae_test.h"

static void expect_pass(const char *device)
{
    luna_selftest_result result;
    if (luna_selftest(device, LUNA_VAE_PRECISION_AUTO, &result) != LUNA_OK)
        fail_msg("%s: %s", device, luna_error_text());
    assert_true(result.distance_db >= 100.0);
    assert_true(result.needed_db >= 80.0);
}

static void processors_pass(void **state)
{
    (void)state;
    expect_pass("cpu");
    expect_pass("reference");
}

static void no_such_device(void **state)
{
    (void)state;
    luna_selftest_result result;
    assert_int_equal(luna_selftest("cuda:999", LUNA_VAE_PRECISION_AUTO, &result),
                     LUNA_UNAVAILABLE);
    assert_non_null(strstr(luna_error_text(), "the self-test on cuda:999 failed: "));
    assert_int_equal(luna_selftest("gpu", LUNA_VAE_PRECISION_AUTO, &result), LUNA_USAGE);
    assert_int_equal(luna_selftest("cpu", LUNA_VAE_PRECISION_FP16, &result),
                     LUNA_UNSUPPORTED);
}

//  Small, and whole: all kinds of parts that a decoder of full size has.
static void the_tiny_model(void **state)
{
    (void)state;
    void *image = NULL;
    size_t len = 0;
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = "cpu";
    assert_int_equal(luna_random_model(LUNA_RANDOM_TINY, &image, &len), LUNA_OK);
    assert_true(len < (size_t)8 << 20);
    assert_int_equal(luna_vae_open_bytes(image, len, "tiny", &options, &vae), LUNA_OK);
    assert_string_equal(luna_vae_describe(vae)->family, "kl");
    assert_int_equal(luna_vae_describe(vae)->spatial_factor, 4);
    luna_vae_close(&vae);
    free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_pass),
        cmocka_unit_test(no_such_device),
        cmocka_unit_test(the_tiny_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
