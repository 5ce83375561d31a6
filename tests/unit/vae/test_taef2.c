//  A real decoder on three photographs, and what the engine promises about batches, bad
//  latents and memory.

#include "vae/vae_test.h"

typedef struct photo {
    luna_safetensors *file;
    luna_vae_latents latents;
    luna_vae_shape shape;
    float *expected;
    size_t count;  //  values of the picture
} photo;

static photo open_photo(const luna_vae *vae, const char *name)
{
    photo p = {0};
    char key[64];
    assert_int_equal(
        luna_safetensors_open(data_path("taef2_reference.safetensors"), &p.file),
        LUNA_OK);
    snprintf(key, sizeof key, "%s.latent", name);
    const luna_tensor *latent = luna_safetensors_find(p.file, key);
    snprintf(key, sizeof key, "%s.pixels", name);
    const luna_tensor *pixels = luna_safetensors_find(p.file, key);
    assert_true(latent && pixels);
    assert_int_equal(luna_vae_latents_from(latent->data, latent->dtype, latent->shape,
                                           latent->rank, &p.latents),
                     LUNA_OK);
    assert_int_equal(luna_vae_output_shape(vae, &p.latents, &p.shape), LUNA_OK);
    assert_int_equal(p.shape.height, pixels->shape[2]);
    assert_int_equal(p.shape.width, pixels->shape[3]);
    p.count = pixels->count;
    p.expected = malloc(p.count * sizeof(float));
    assert_int_equal(
        luna_dtype_to_float(pixels->dtype, pixels->data, p.count, p.expected), LUNA_OK);
    return p;
}

static void close_photo(photo *p)
{
    luna_safetensors_close(&p->file);
    free(p->expected);
}

static float *decode(luna_vae *vae, const luna_vae_latents *latents, size_t first,
                     size_t count)
{
    luna_vae_shape shape;
    assert_int_equal(luna_vae_output_shape(vae, latents, &shape), LUNA_OK);
    luna_vae_target target = {
        .bytes = luna_pixels_bytes(&shape, count, LUNA_PIXELS_F32_PLANAR),
        .format = LUNA_PIXELS_F32_PLANAR};
    target.data = malloc(target.bytes);
    if (luna_vae_decode(vae, latents, first, count, &target) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return target.data;
}

static void expect_photo(const char *device, const char *name)
{
    luna_vae *vae = open_taef2(device);
    photo p = open_photo(vae, name);
    float *pixels = decode(vae, &p.latents, 0, 1);
    const double distance = psnr(pixels, p.expected, p.count);
    print_message("%s on %s: %.2f dB\n", name, luna_vae_describe(vae)->backend, distance);
    assert_true(distance >= 70.0);
    free(pixels);
    close_photo(&p);
    luna_vae_close(&vae);
}

static void photographs_on_the_cpu(void **state)
{
    (void)state;
    if (strncmp(luna_vae_describe(*state)->backend, "oneDNN", 6) != 0) skip();
    expect_photo("cpu", "astronaut");
    expect_photo("cpu", "coffee");
    expect_photo("cpu", "chelsea");
}

static void a_photograph_in_plain_c(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip();  //  one thread, and very slow so
#endif
    expect_photo("reference", "chelsea");
}

//  Latents of any size, batches of random values.
static luna_vae_latents random_latents(size_t count, size_t channels, size_t height,
                                       size_t width)
{
    uint64_t seed = 7;
    return (luna_vae_latents){
        .data = random_floats(&seed, count * channels * height * width),
        .dtype = LUNA_DTYPE_F32,
        .count = count,
        .channels = channels,
        .height = height,
        .width = width};
}

static void free_latents(luna_vae_latents *latents)
{
    free((void *)(uintptr_t)latents->data);
}

static size_t picture(const luna_vae_latents *latents)
{
    return 3 * 64 * latents->height * latents->width;
}

static void packed_equals_unpacked(void **state)
{
    luna_vae *vae = *state;
    luna_vae_latents plain = random_latents(2, 32, 6, 10);
    luna_vae_latents packed = random_latents(2, 128, 3, 5);
    float *to = (float *)(uintptr_t)packed.data;
    const float *from = plain.data;
    for (size_t i = 0; i < 2 * 32 * 6 * 10; i++) {
        const size_t x = i % 10, y = i / 10 % 6, c = i / 60 % 32, n = i / 1920;
        const size_t channel = 4 * c + 2 * (y % 2) + x % 2;
        to[((n * 128 + channel) * 3 + y / 2) * 5 + x / 2] = from[i];
    }
    float *a = decode(vae, &plain, 0, 2), *b = decode(vae, &packed, 0, 2);
    assert_memory_equal(a, b, 2 * picture(&plain) * sizeof *a);
    free(a);
    free(b);
    free_latents(&plain);
    free_latents(&packed);
}

static void a_batch_equals_its_images(void **state)
{
    luna_vae *vae = *state;
    luna_vae_latents latents = random_latents(3, 32, 5, 9);
    float *all = decode(vae, &latents, 0, 3);
    for (size_t i = 0; i < 3; i++) {
        float *one = decode(vae, &latents, i, 1);
        assert_memory_equal(one, all + i * picture(&latents),
                            picture(&latents) * sizeof *one);
        free(one);
    }
    free(all);
    free_latents(&latents);
}

//  More sizes than plans are kept for, and back: the same pixels from a plan made again.
static void every_size_and_back(void **state)
{
    luna_vae *vae = *state;
    static const size_t sizes[][2] = {{1, 1}, {1, 7}, {3, 2}, {9, 1}, {4, 4}, {13, 11}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        luna_vae_latents latents = random_latents(1, 32, sizes[i][0], sizes[i][1]);
        float *first = decode(vae, &latents, 0, 1);
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            luna_vae_latents other = random_latents(1, 32, sizes[k][0], sizes[k][1]);
            free(decode(vae, &other, 0, 1));
            free_latents(&other);
        }
        if (i == 2) luna_vae_trim(vae);
        float *again = decode(vae, &latents, 0, 1);
        assert_memory_equal(first, again, picture(&latents) * sizeof *first);
        free(first);
        free(again);
        free_latents(&latents);
    }
}

static luna_err try_decode(luna_vae *vae, const luna_vae_latents *latents)
{
    uint8_t pixels[3 * 64 * 64];
    const luna_vae_target target = {
        .data = pixels, .bytes = sizeof pixels, .format = LUNA_PIXELS_U8};
    return luna_vae_decode(vae, latents, 0, latents->count, &target);
}

static void bad_values_are_refused(void **state)
{
    luna_vae_latents latents = random_latents(2, 32, 2, 3);
    float *values = (float *)(uintptr_t)latents.data;
    values[(1 * 32 + 5) * 6 + 4] = NAN;
    values[(1 * 32 + 31) * 6] = -INFINITY;
    assert_int_equal(try_decode(*state, &latents), LUNA_BAD_LATENT);
    assert_non_null(strstr(luna_error_text(),
                           "the latents hold NaN or infinity: 2 times, first at image 1, "
                           "channel 5, row 1, column 1"));
    free_latents(&latents);
}

static void wrong_channels_are_refused(void **state)
{
    luna_vae_latents latents = random_latents(1, 16, 2, 2);
    assert_int_equal(try_decode(*state, &latents), LUNA_BAD_LATENT);
    assert_non_null(
        strstr(luna_error_text(),
               "the latents have 16 channels; this VAE takes 32 (or 128, packed)"));
    free_latents(&latents);
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    luna_vae_latents out;
    const float value = 0.0F;
    const size_t video[] = {1, 32, 2, 4, 4}, frame[] = {2, 32, 1, 4, 6}, flat[] = {4, 4};
    const size_t none[] = {1, 32, 0, 4}, huge[] = {1, SIZE_MAX / 4, 8, 8};
    const luna_dtype f32 = LUNA_DTYPE_F32;
    assert_int_equal(luna_vae_latents_from(&value, f32, video, 5, &out), LUNA_BAD_LATENT);
    assert_int_equal(luna_vae_latents_from(&value, f32, flat, 2, &out), LUNA_BAD_LATENT);
    assert_int_equal(luna_vae_latents_from(&value, f32, none, 4, &out), LUNA_BAD_LATENT);
    assert_int_equal(luna_vae_latents_from(&value, f32, huge, 4, &out), LUNA_BAD_LATENT);
    assert_int_equal(luna_vae_latents_from(&value, LUNA_DTYPE_I64, frame, 5, &out),
                     LUNA_BAD_LATENT);
    assert_int_equal(luna_vae_latents_from(&value, f32, frame, 5, &out), LUNA_OK);
    assert_true(out.count == 2 && out.channels == 32 && out.height == 4 &&
                out.width == 6);
}

static void too_large_pictures_are_refused(void **state)
{
    luna_vae_shape shape;
    luna_vae_latents latents = {.dtype = LUNA_DTYPE_F32, .count = 1, .channels = 32};
    latents.height = latents.width = (size_t)1 << 40;
    assert_int_equal(luna_vae_output_shape(*state, &latents, &shape), LUNA_BAD_LATENT);
    latents.height = latents.width = (size_t)1 << 20;
    latents.count = SIZE_MAX / 2;
    assert_int_equal(luna_vae_output_shape(*state, &latents, &shape), LUNA_BAD_LATENT);
}

static void targets_are_checked(void **state)
{
    uint8_t pixels[64];
    luna_vae_latents latents = random_latents(1, 32, 1, 1);
    luna_vae_target target = {
        .data = pixels, .bytes = sizeof pixels, .format = LUNA_PIXELS_U8};
    assert_int_equal(luna_vae_decode(*state, &latents, 0, 1, &target), LUNA_USAGE);
    assert_int_equal(luna_vae_decode(*state, &latents, 1, 1, &target), LUNA_USAGE);
    assert_int_equal(luna_vae_decode(*state, &latents, 0, 0, &target), LUNA_OK);
    target.rule = LUNA_PIXELS_RAW;
    assert_int_equal(luna_vae_decode(*state, &latents, 0, 1, &target), LUNA_USAGE);
    free_latents(&latents);
}

static void memory_limit_holds(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    luna_vae_cost cost;
    luna_vae_latents latents = random_latents(1, 32, 8, 8);
    luna_vae_options options = luna_vae_options_default();
    const char *path = data_path("taef2_decoder.safetensors");
    assert_int_equal(luna_vae_prepare(*state, &latents, &cost), LUNA_OK);
    assert_true(cost.weight_bytes >= 1338499 * 4 && cost.peak_bytes > cost.weight_bytes);
    assert_true(cost.flop > 2000000000U);
    options.memory_limit_bytes = 20000000;
    latents.height = latents.width = 1000;
    assert_int_equal(luna_vae_open(path, &options, &vae), LUNA_OK);
    assert_int_equal(luna_vae_prepare(vae, &latents, &cost), LUNA_NO_MEMORY);
    assert_non_null(strstr(luna_error_text(), "8000 x 8000"));
    assert_non_null(strstr(luna_error_text(), "20000000"));
    latents.height = latents.width = 1;
    assert_int_equal(luna_vae_prepare(vae, &latents, &cost), LUNA_OK);
    assert_true(cost.peak_bytes <= options.memory_limit_bytes);
    luna_vae_close(&vae);
    free_latents(&latents);
}

//  Halves at the top of their range: finite latents whose decode is not.
static void overflow_is_told(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    luna_safetensors *file = NULL;
    luna_map map;
    luna_vae_options options = luna_vae_options_default();
    assert_int_equal(luna_map_open(data_path("taef2_decoder.safetensors"), &map),
                     LUNA_OK);
    uint8_t *copy = malloc(map.len);
    memcpy(copy, map.data, map.len);
    assert_int_equal(luna_safetensors_parse(copy, map.len, "copy", &file), LUNA_OK);
    const luna_tensor *bias = luna_safetensors_find(file, "19.bias");
    const uint16_t infinite = 0x7c00;
    memcpy(copy + ((const uint8_t *)bias->data - copy), &infinite, 2);
    assert_int_equal(luna_vae_open_bytes(copy, map.len, "copy", &options, &vae), LUNA_OK);
    luna_vae_latents latents = random_latents(1, 32, 1, 1);
    assert_int_equal(try_decode(vae, &latents), LUNA_OVERFLOW);
    assert_non_null(strstr(luna_error_text(), "image 0 gave 64 values"));
    assert_non_null(strstr(luna_error_text(), "tensor '19.bias' holds NaN or infinity"));
    free_latents(&latents);
    luna_vae_close(&vae);
    luna_safetensors_close(&file);
    luna_map_close(&map);
    free(copy);
}

static void pixel_formats_agree(void **state)
{
    luna_vae_latents latents = random_latents(1, 32, 2, 2);
    float *planar = decode(*state, &latents, 0, 1);
    float interleaved[256 * 3];
    uint8_t bytes[256 * 3];
    luna_vae_target target = {
        .data = interleaved, .bytes = sizeof interleaved, .format = LUNA_PIXELS_F32};
    assert_int_equal(luna_vae_decode(*state, &latents, 0, 1, &target), LUNA_OK);
    target =
        (luna_vae_target){.data = bytes, .bytes = sizeof bytes, .format = LUNA_PIXELS_U8};
    assert_int_equal(luna_vae_decode(*state, &latents, 0, 1, &target), LUNA_OK);
    for (size_t p = 0; p < 256; p++)
        for (size_t c = 0; c < 3; c++) {
            assert_true(planar[c * 256 + p] == interleaved[3 * p + c]);
            assert_int_equal(bytes[3 * p + c], (uint8_t)(255.0F * planar[c * 256 + p]));
        }
    free(planar);
    free_latents(&latents);
}

static void count_step(void *context)
{
    ++*(int *)context;
}

//  A watchdog hears of a decode's progress on every backend.
static void steps_are_told(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "reference"};
    luna_vae_latents latents = random_latents(1, 32, 1, 2);
    for (int i = 0; i < 2; i++) {
        int steps = 0;
        luna_vae *vae = NULL;
        luna_vae_options options = luna_vae_options_default();
        options.device = devices[i];
        options.step = count_step;
        options.step_context = &steps;
        assert_int_equal(
            luna_vae_open(data_path("taef2_decoder.safetensors"), &options, &vae),
            LUNA_OK);
        free(decode(vae, &latents, 0, 1));
        assert_true(steps >= 44);  //  as many as convolutions
        luna_vae_close(&vae);
    }
    free_latents(&latents);
}

static int open_group(void **state)
{
    *state = open_taef2("auto");
    return 0;
}

static int close_group(void **state)
{
    luna_vae *vae = *state;
    luna_vae_close(&vae);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(photographs_on_the_cpu),
        cmocka_unit_test(a_photograph_in_plain_c),
        cmocka_unit_test(packed_equals_unpacked),
        cmocka_unit_test(a_batch_equals_its_images),
        cmocka_unit_test(every_size_and_back),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(wrong_channels_are_refused),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(too_large_pictures_are_refused),
        cmocka_unit_test(targets_are_checked),
        cmocka_unit_test(memory_limit_holds),
        cmocka_unit_test(overflow_is_told),
        cmocka_unit_test(pixel_formats_agree),
        cmocka_unit_test(steps_are_told),
    };
    return cmocka_run_group_tests(tests, open_group, close_group);
}
