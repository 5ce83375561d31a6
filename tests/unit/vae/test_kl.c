//  KL decoders of full topology and a quarter of the width, in both key styles, against
//  pixels decoded in float64.

#include "vae/vae_test.h"

static luna_vae *open_model(const char *name, const char *device)
{
    char file[64];
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = device;
    snprintf(file, sizeof file, "%s.safetensors", name);
    if (luna_vae_open(data_path(file), &options, &vae) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return vae;
}

//  Images decoded raw, and the reference's pixels, both from [-1, 1] brought to [0, 1].
static double distance(luna_vae *vae, const char *name, size_t images)
{
    char file[64];
    luna_safetensors *reference = NULL;
    luna_vae_latents latents;
    luna_vae_shape shape;
    snprintf(file, sizeof file, "%s_reference.safetensors", name);
    assert_int_equal(luna_safetensors_open(data_path(file), &reference), LUNA_OK);
    const luna_tensor *latent = luna_safetensors_find(reference, "latent");
    const luna_tensor *pixels = luna_safetensors_find(reference, "pixels");
    assert_true(latent && pixels);
    assert_int_equal(luna_vae_latents_from(latent->data, latent->dtype, latent->shape,
                                           latent->rank, &latents),
                     LUNA_OK);
    assert_int_equal(luna_vae_output_shape(vae, &latents, &shape), LUNA_OK);
    assert_int_equal(shape.count * shape.channels * shape.height * shape.width,
                     pixels->count);
    const size_t count = pixels->count / shape.count * images;
    float *expected = malloc(count * sizeof *expected);
    float *got = malloc(count * sizeof *got);
    const luna_vae_target target = {.data = got,
                                    .bytes = count * sizeof *got,
                                    .format = LUNA_PIXELS_F32_PLANAR,
                                    .rule = LUNA_PIXELS_RAW};
    assert_int_equal(luna_dtype_to_float(pixels->dtype, pixels->data, count, expected),
                     LUNA_OK);
    if (luna_vae_decode(vae, &latents, 0, images, &target) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    for (size_t i = 0; i < count; i++) {
        got[i] = (got[i] + 1.0F) / 2.0F;
        expected[i] = (expected[i] + 1.0F) / 2.0F;
    }
    const double result = psnr(got, expected, count);
    free(expected);
    free(got);
    luna_safetensors_close(&reference);
    return result;
}

static void expect_close(const char *name, const char *device, size_t images)
{
    luna_vae *vae = open_model(name, device);
    const double db = distance(vae, name, images);
    print_message("%s on %s: %.2f dB\n", name, luna_vae_describe(vae)->backend, db);
    assert_true(db >= 100.0);
    luna_vae_close(&vae);
}

static void on_the_cpu(void **state)
{
    (void)state;
    expect_close("kl_small_z4", "cpu", 2);
    expect_close("kl_small_z16", "cpu", 2);
}

static void in_plain_c(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip();  //  one thread, and very slow so
#endif
    expect_close("kl_small_z4", "reference", 1);
    expect_close("kl_small_z16", "reference", 1);
}

static void described(void **state)
{
    (void)state;
    static const char *const names[] = {"kl_small_z4", "kl_small_z16"};
    static const size_t channels[] = {4, 16}, parameters[] = {3104343, 3118147};
    for (int i = 0; i < 2; i++) {
        luna_vae *vae = open_model(names[i], "cpu");
        const luna_vae_info *info = luna_vae_describe(vae);
        assert_string_equal(info->family, "kl");
        assert_int_equal(info->latent_channels, channels[i]);
        assert_int_equal(info->packed_channels, 0);
        assert_int_equal(info->spatial_factor, 8);
        assert_int_equal(info->output_channels, 3);
        assert_int_equal(info->parameter_count, parameters[i]);
        luna_vae_close(&vae);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_cpu),
        cmocka_unit_test(in_plain_c),
        cmocka_unit_test(described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
