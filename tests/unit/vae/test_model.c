//  Model files: what is recognised, and that a damaged one is named by its key.

#include "vae/vae_test.h"

//  A changeable copy of the TAEF2 file.
typedef struct copy {
    uint8_t *data;
    size_t len;
    size_t header;
} copy;

static copy make_copy(void)
{
    luna_map map;
    copy c;
    uint64_t header;
    assert_int_equal(luna_map_open(data_path("taef2_decoder.safetensors"), &map),
                     LUNA_OK);
    c.data = malloc(map.len);
    c.len = map.len;
    memcpy(c.data, map.data, map.len);
    memcpy(&header, map.data, 8);
    c.header = (size_t)header;
    luna_map_close(&map);
    return c;
}

//  Replaces one text of the header by another of the same length.
static void replace(copy *c, const char *from, const char *to)
{
    const size_t len = strlen(from);
    assert_int_equal(len, strlen(to));
    for (size_t i = 8; i + len <= 8 + c->header; i++)
        if (memcmp(c->data + i, from, len) == 0) {
            memcpy(c->data + i, to, len);
            return;
        }
    fail_msg("%s is not in the header", from);
}

static luna_err open_copy(const copy *c, luna_vae **out)
{
    const luna_vae_options options = luna_vae_options_default();
    return luna_vae_open_bytes(c->data, c->len, "copy", &options, out);
}

static void expect_bad_model(const copy *c, const char *because)
{
    luna_vae *vae = NULL;
    const luna_err err = open_copy(c, &vae);
    luna_vae_close(&vae);
    if (err != LUNA_BAD_MODEL || !strstr(luna_error_text(), because))
        fail_msg("%s: %s; expected: %s", luna_err_name(err), luna_error_text(), because);
}

static void taef2_is_described(void **state)
{
    (void)state;
    luna_vae *vae = open_taef2("cpu");
    const luna_vae_info *info = luna_vae_describe(vae);
    assert_string_equal(info->family, "taesd");
    assert_int_equal(info->latent_channels, 32);
    assert_int_equal(info->packed_channels, 128);
    assert_int_equal(info->spatial_factor, 8);
    assert_int_equal(info->output_channels, 3);
    assert_int_equal(info->parameter_count, 1338499);
    assert_true(info->latent_scale == 1.0F && info->latent_shift == 0.0F);
    assert_string_equal(info->precision, "fp32");
    luna_vae_close(&vae);
    assert_null(vae);
}

//  Each tensor taken away in turn. Without the two that the family is known by the file
//  is no TAESD at all, and its sentence names its first tensor.
static void every_missing_tensor_is_named(void **state)
{
    (void)state;
    copy c = make_copy();
    luna_safetensors *file = NULL;
    assert_int_equal(luna_safetensors_open(data_path("taef2_decoder.safetensors"), &file),
                     LUNA_OK);
    for (size_t i = 0; i < luna_safetensors_count(file); i++) {
        char from[64], to[64], because[96];
        const char *name = luna_safetensors_at(file, i)->name;
        snprintf(from, sizeof from, "\"%s\"", name);
        snprintf(to, sizeof to, "\"x%s\"", name + 1);
        snprintf(because, sizeof because, "'%s' is missing", name);
        const bool marks =
            strcmp(name, "1.weight") == 0 || strcmp(name, "3.conv.0.weight") == 0;
        replace(&c, from, to);
        expect_bad_model(&c, marks ? "not a VAE decoder Luna knows" : because);
        replace(&c, to, from);
    }
    luna_safetensors_close(&file);
    free(c.data);
}

static void wrong_shapes_and_types_are_named(void **state)
{
    (void)state;
    copy c = make_copy();
    replace(&c, "\"1.weight\":{\"dtype\":\"F16\",\"shape\":[64,32,3,3]",
            "\"1.weight\":{\"dtype\":\"F16\",\"shape\":[32,64,3,3]");
    expect_bad_model(&c, "'1.bias' must have 32 values");
    free(c.data);
    c = make_copy();
    replace(&c, "\"1.weight\":{\"dtype\":\"F16\"", "\"1.weight\":{\"dtype\":\"I16\"");
    expect_bad_model(&c, "'1.weight' is I16");
    free(c.data);
    c = make_copy();
    replace(&c, "\"12.weight\":{\"dtype\":\"F16\",\"shape\":[64,64,3,3]",
            "\"12.weight\":{\"dtype\":\"F16\",\"shape\":[64,64,9,1]");
    expect_bad_model(&c, "'12.weight' must have the shape [any, 64, 3, 3]");
    free(c.data);
}

static void foreign_layers_are_named(void **state)
{
    (void)state;
    copy c = make_copy();
    replace(&c, "\"3.pool.0.weight\"", "\"3.poor.0.weight\"");
    replace(&c, "\"3.pool.1.weight\"", "\"3.poor.1.weight\"");
    replace(&c, "\"3.pool.1.bias\"", "\"3.poor.1.bias\"");
    replace(&c, "\"3.pool.3.weight\"", "\"3.poor.3.weight\"");
    expect_bad_model(&c, "'3.pool.0.weight' is missing");
    replace(&c, "\"4.pool.0.weight\"", "\"4.poor.0.weight\"");
    replace(&c, "\"4.pool.1.weight\"", "\"4.poor.1.weight\"");
    replace(&c, "\"4.pool.3.weight\"", "\"4.poor.3.weight\"");
    replace(&c, "\"5.pool.0.weight\"", "\"5.poor.0.weight\"");
    replace(&c, "\"5.pool.1.weight\"", "\"5.poor.1.weight\"");
    replace(&c, "\"5.pool.3.weight\"", "\"5.poor.3.weight\"");
    expect_bad_model(&c, "belongs to no decoder Luna knows");
    free(c.data);
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    copy c = make_copy();
    const size_t cuts[] = {0, 4, 8, 100, 8 + c.header, c.len / 2, c.len - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        const copy cut = {.data = c.data, .len = cuts[i], .header = c.header};
        expect_bad_model(&cut, "copy");
    }
    free(c.data);
}

static void other_files_are_no_models(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    const luna_vae_options options = luna_vae_options_default();
    assert_int_equal(luna_vae_open(data_path("coffee.latent"), &options, &vae),
                     LUNA_BAD_MODEL);
    assert_non_null(strstr(luna_error_text(), "latent_format_version_0"));
    assert_int_equal(luna_vae_open(data_path("README.md"), &options, &vae),
                     LUNA_BAD_MODEL);
    assert_int_equal(luna_vae_open("absent", &options, &vae), LUNA_NOT_FOUND);
    assert_null(vae);
}

static void devices_and_precisions(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s", data_path("taef2_decoder.safetensors"));
    luna_vae_options options = luna_vae_options_default();
    options.device = "gpu";
    assert_int_equal(luna_vae_open(path, &options, &vae), LUNA_USAGE);
    options.device = "cuda:x";
    assert_int_equal(luna_vae_open(path, &options, &vae), LUNA_USAGE);
    options.device = "cpu";
    options.precision = LUNA_VAE_PRECISION_FP16;
    assert_int_equal(luna_vae_open(path, &options, &vae), LUNA_UNSUPPORTED);
    assert_non_null(strstr(luna_error_text(), "fp16"));
    luna_vae_precision precision;
    assert_int_equal(luna_vae_precision_parse("bf16", &precision), LUNA_OK);
    assert_int_equal(precision, LUNA_VAE_PRECISION_BF16);
    assert_int_equal(luna_vae_precision_parse("int8", &precision), LUNA_USAGE);
}

//  The names of ComfyUI's combined files and of diffusers give the same pixels. A file is
//  written anew with every name changed.
static void write_renamed(const char *path, const char *prefix, int less, bool scale)
{
    luna_safetensors *file = NULL;
    luna_safetensors_writer *writer = NULL;
    luna_tensor_spec specs[128];
    char names[128][64];
    assert_int_equal(luna_safetensors_open(data_path("taef2_decoder.safetensors"), &file),
                     LUNA_OK);
    const size_t count = luna_safetensors_count(file);
    for (size_t i = 0; i < count; i++) {
        const luna_tensor *t = luna_safetensors_at(file, i);
        char *rest = NULL;
        const long layer = strtol(t->name, &rest, 10);
        snprintf(names[i], sizeof names[i], "%s%ld%s", prefix, layer - less, rest);
        specs[i] =
            (luna_tensor_spec){.name = names[i], .dtype = t->dtype, .rank = t->rank};
        memcpy(specs[i].shape, t->shape, sizeof t->shape);
    }
    specs[count] = (luna_tensor_spec){.name = "vae_scale", .dtype = LUNA_DTYPE_F32};
    specs[count + 1] = (luna_tensor_spec){.name = "vae_shift", .dtype = LUNA_DTYPE_F32};
    assert_int_equal(
        luna_safetensors_create(path, specs, count + (scale ? 2 : 0), &writer), LUNA_OK);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(
            luna_safetensors_append(writer, luna_safetensors_at(file, i)->data,
                                    luna_safetensors_at(file, i)->bytes),
            LUNA_OK);
    const float both[2] = {2.0F, 0.5F};
    if (scale)
        assert_int_equal(luna_safetensors_append(writer, both, sizeof both), LUNA_OK);
    assert_int_equal(luna_safetensors_commit(&writer), LUNA_OK);
    luna_safetensors_close(&file);
}

static void decode_small(luna_vae *vae, float scale, float shift, float out[3 * 64])
{
    uint64_t seed = 3;
    float values[32];
    const luna_vae_latents latents = {.data = values,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 1,
                                      .channels = 32,
                                      .height = 1,
                                      .width = 1};
    const luna_vae_target target = {.data = out,
                                    .bytes = 3 * 64 * sizeof *out,
                                    .format = LUNA_PIXELS_F32_PLANAR,
                                    .rule = LUNA_PIXELS_RAW};
    for (int i = 0; i < 32; i++) values[i] = (random_float(&seed) - shift) * scale;
    assert_int_equal(luna_vae_decode(vae, &latents, 0, 1, &target), LUNA_OK);
}

static void other_names_same_pixels(void **state)
{
    (void)state;
    static const struct {
        const char *prefix;
        int less;
        bool scale;
    } cases[] = {{"taesd_decoder.", 0, true},
                 {"decoder.layers.", 1, false},
                 {"decoder.", 0, false}};
    float expected[3 * 64], got[3 * 64];
    const luna_vae_options options = luna_vae_options_default();
    luna_vae *plain = open_taef2("cpu"), *vae = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_renamed("renamed.safetensors", cases[i].prefix, cases[i].less,
                      cases[i].scale);
        if (luna_vae_open("renamed.safetensors", &options, &vae) != LUNA_OK)
            fail_msg("%s", luna_error_text());
        decode_small(vae, 1.0F, 0.0F, got);
        decode_small(plain, cases[i].scale ? 2.0F : 1.0F, cases[i].scale ? 0.5F : 0.0F,
                     expected);
        assert_memory_equal(got, expected, sizeof got);
        luna_vae_close(&vae);
        assert_int_equal(remove("renamed.safetensors"), 0);
    }
    luna_vae_close(&plain);
}

static void scale_is_an_option(void **state)
{
    (void)state;
    float expected[3 * 64], got[3 * 64];
    luna_vae *plain = open_taef2("cpu"), *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.latent_scale = 1.5305F;
    options.latent_shift = 0.0609F;
    assert_int_equal(
        luna_vae_open(data_path("taef2_decoder.safetensors"), &options, &vae), LUNA_OK);
    decode_small(vae, 1.0F, 0.0F, got);
    decode_small(plain, 1.5305F, 0.0609F, expected);
    assert_memory_equal(got, expected, sizeof got);
    luna_vae_close(&vae);
    luna_vae_close(&plain);
}

//  ---- reading the weights while opening ---------------------------------------------

typedef struct load {
    size_t calls;
    size_t give_up_at;  //  0: never
} load;

static bool loading(void *context)
{
    load *self = context;
    return ++self->calls != self->give_up_at;
}

static luna_err open_reading(load *self, luna_vae **out)
{
    luna_vae_options options = luna_vae_options_default();
    options.loading = loading;
    options.loading_context = self;
    return luna_vae_open(data_path("taef2_decoder.safetensors"), &options, out);
}

static void a_load_is_followed_and_given_up(void **state)
{
    (void)state;
    luna_vae *vae = NULL, *plain = open_taef2("cpu");
    float expected[3 * 64], got[3 * 64];
    load followed = {0}, given_up = {.give_up_at = 1};
    assert_int_equal(open_reading(&followed, &vae), LUNA_OK);
    assert_true(followed.calls >= 1);
    decode_small(vae, 1.0F, 0.0F, got);
    decode_small(plain, 1.0F, 0.0F, expected);
    assert_memory_equal(got, expected, sizeof got);
    luna_vae_close(&vae);
    luna_vae_close(&plain);
    assert_int_equal(open_reading(&given_up, &vae), LUNA_CANCELLED);
    assert_int_equal(given_up.calls, 1);
    assert_null(vae);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taef2_is_described),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(wrong_shapes_and_types_are_named),
        cmocka_unit_test(foreign_layers_are_named),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(other_files_are_no_models),
        cmocka_unit_test(devices_and_precisions),
        cmocka_unit_test(other_names_same_pixels),
        cmocka_unit_test(scale_is_an_option),
        cmocka_unit_test(a_load_is_followed_and_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
