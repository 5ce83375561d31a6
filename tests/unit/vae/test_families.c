//  Every family and key style against pixels decoded in float64, and what is wrong with a
//  file is told by the name of the tensor.

#include "decoder/vae/taesd_member.h"
#include "vae/vae_test.h"

typedef struct sample {
    const char *name;
    const char *family;
    size_t latent_channels;
    size_t packed_channels;
    size_t spatial_factor;
    size_t output_channels;
    float scale;  //  of the latents, where the file does not say; 0: it does
} sample;

static const sample samples[] = {
    {"flux2", "kl", 32, 128, 8, 3, 0.0F},  {"upscaler", "kl", 4, 0, 4, 3, 0.0F},
    {"wan", "wan", 16, 0, 8, 4, 0.0F},     {"qwen", "wan", 16, 0, 8, 3, 0.0F},
    {"taef1", "taesd", 16, 0, 8, 3, 0.0F}, {"taesana", "taesd", 32, 0, 32, 3, 1.0F},
};

enum { SAMPLES = sizeof samples / sizeof samples[0] };

static const char *decoder_path(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/../decoders/%s.safetensors", getenv("LUNA_TEST_DATA"),
             name);
    return path;
}

static luna_vae_options options_of(const sample *s, const char *device)
{
    luna_vae_options options = luna_vae_options_default();
    options.device = device;
    options.latent_scale = s->scale;
    return options;
}

static luna_vae *open_sample(const sample *s, const char *device)
{
    luna_vae *vae = NULL;
    const luna_vae_options options = options_of(s, device);
    if (luna_vae_open(decoder_path(s->name), &options, &vae) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return vae;
}

//  The header tells the same as the whole model, of which a damaged file has none.
static void samples_are_inspected(void **state)
{
    (void)state;
    luna_vae_info seen;
    luna_vae_options options = luna_vae_options_default();
    for (const sample *s = samples; s < samples + SAMPLES; s++) {
        luna_vae *vae = open_sample(s, "cpu");
        luna_vae_info known = *luna_vae_describe(vae);
        options = options_of(s, "no device is asked");
        assert_int_equal(luna_vae_inspect(decoder_path(s->name), &options, &seen),
                         LUNA_OK);
        known.device = known.backend = known.precision = NULL;
        assert_string_equal(seen.family, known.family);
        assert_string_equal(seen.variant, known.variant);
        assert_int_equal(seen.latent_rank, known.latent_rank);
        assert_int_equal(seen.parameter_count, known.parameter_count);
        assert_int_equal(seen.file_bytes, known.file_bytes);
        assert_int_equal(seen.read_bytes, known.read_bytes);
        assert_int_equal(seen.latent_channels, known.latent_channels);
        assert_int_equal(seen.packed_channels, known.packed_channels);
        assert_null(seen.device);
        luna_vae_close(&vae);
    }
    assert_int_equal(luna_vae_inspect(data_path("README.md"), &options, &seen),
                     LUNA_BAD_MODEL);
    assert_int_equal(luna_vae_inspect("absent", &options, &seen), LUNA_NOT_FOUND);
}

static void samples_are_described(void **state)
{
    (void)state;
    for (const sample *s = samples; s < samples + SAMPLES; s++) {
        luna_vae *vae = open_sample(s, "cpu");
        const luna_vae_info *info = luna_vae_describe(vae);
        assert_string_equal(info->family, s->family);
        assert_int_equal(info->latent_channels, s->latent_channels);
        assert_int_equal(info->packed_channels, s->packed_channels);
        assert_int_equal(info->latent_rank, strcmp(s->family, "wan") == 0 ? 5 : 4);
        assert_int_equal(info->spatial_factor, s->spatial_factor);
        assert_int_equal(info->output_channels, s->output_channels);
        assert_true(info->read_bytes <= info->file_bytes && info->read_bytes > 90000);
        luna_vae_close(&vae);
    }
}

static const luna_tensor *find(const luna_safetensors *file, const char *name,
                               const char *end)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, end);
    const luna_tensor *tensor = luna_safetensors_find(file, key);
    assert_non_null(tensor);
    return tensor;
}

static double distance(const sample *s, const char *device)
{
    luna_safetensors *file = NULL;
    luna_vae_latents latents;
    luna_vae *vae = open_sample(s, device);
    assert_int_equal(luna_safetensors_open(decoder_path("reference"), &file), LUNA_OK);
    const luna_tensor *latent = find(file, s->name, "latent");
    const luna_tensor *pixels = find(file, s->name, "pixels");
    assert_int_equal(luna_vae_latents_from(latent->data, latent->dtype, latent->shape,
                                           latent->rank, &latents),
                     LUNA_OK);
    float *expected = malloc(pixels->count * sizeof *expected);
    float *got = malloc(pixels->count * sizeof *got);
    const luna_vae_target target = {.data = got,
                                    .bytes = pixels->count * sizeof *got,
                                    .format = LUNA_PIXELS_F32_PLANAR,
                                    .rule = LUNA_PIXELS_RAW};
    assert_int_equal(
        luna_dtype_to_float(pixels->dtype, pixels->data, pixels->count, expected),
        LUNA_OK);
    if (luna_vae_decode(vae, &latents, 0, latents.count, &target) != LUNA_OK)
        fail_msg("%s: %s", s->name, luna_error_text());
    const double result = psnr(got, expected, pixels->count);
    free(expected);
    free(got);
    luna_safetensors_close(&file);
    luna_vae_close(&vae);
    return result;
}

static void samples_decode(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "reference"};
    for (const sample *s = samples; s < samples + SAMPLES; s++)
        for (int i = 0; i < 2; i++) {
            const double db = distance(s, devices[i]);
            print_message("%s on %s: %.2f dB\n", s->name, devices[i], db);
            assert_true(db >= 100.0);
        }
}

//  Four channels to four bytes a pixel, alpha by the same rule.
static void rgba_becomes_bytes(void **state)
{
    (void)state;
    uint64_t seed = 5;
    float *values = random_floats(&seed, 16 * 6), planar[4 * 384];
    uint8_t bytes[4 * 384];
    luna_vae *vae = open_sample(&samples[2], "cpu");
    const luna_vae_latents latents = {.data = values,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 1,
                                      .channels = 16,
                                      .height = 3,
                                      .width = 2};
    luna_vae_target target = {
        .data = planar, .bytes = sizeof planar, .format = LUNA_PIXELS_F32_PLANAR};
    target.rule = LUNA_PIXELS_RAW;
    assert_int_equal(luna_vae_decode(vae, &latents, 0, 1, &target), LUNA_OK);
    target =
        (luna_vae_target){.data = bytes, .bytes = sizeof bytes, .format = LUNA_PIXELS_U8};
    assert_int_equal(luna_vae_decode(vae, &latents, 0, 1, &target), LUNA_OK);
    for (size_t p = 0; p < 384; p++)
        for (size_t c = 0; c < 4; c++) {
            const float unit = (planar[c * 384 + p] + 1.0F) / 2.0F;
            const float held = unit < 0.0F ? 0.0F : unit > 1.0F ? 1.0F : unit;
            assert_int_equal(bytes[4 * p + c], (uint8_t)(255.0F * held));
        }
    luna_vae_close(&vae);
    free(values);
}

//  Finite latents that no model was made for, and a wide enough precision: neither the
//  latents nor the model is called damaged.
static void latents_far_away_are_told(void **state)
{
    (void)state;
    float values[16], pixels[4 * 64];
    luna_vae *vae = open_sample(&samples[2], "cpu");
    for (int i = 0; i < 16; i++) values[i] = i % 2 ? 3e38F : -3e38F;
    const luna_vae_latents latents = {.data = values,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 1,
                                      .channels = 16,
                                      .height = 1,
                                      .width = 1};
    const luna_vae_target target = {
        .data = pixels, .bytes = sizeof pixels, .format = LUNA_PIXELS_F32_PLANAR};
    assert_int_equal(luna_vae_decode(vae, &latents, 0, 1, &target), LUNA_OVERFLOW);
    assert_non_null(strstr(luna_error_text(), "far from what this model takes"));
    luna_vae_close(&vae);
}

//  ---- damage ------------------------------------------------------------------------

//  A changeable copy of a file.
typedef struct copy {
    const sample *of;
    uint8_t *data;
    size_t len;
    size_t header;
} copy;

static copy make_copy(const sample *of)
{
    luna_map map;
    uint64_t header;
    copy c = {.of = of};
    assert_int_equal(luna_map_open(decoder_path(of->name), &map), LUNA_OK);
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
    const luna_vae_options options = options_of(c->of, "reference");
    return luna_vae_open_bytes(c->data, c->len, c->of->name, &options, out);
}

//  One sentence that holds `because`.
static void expect_bad_model(const copy *c, const char *because)
{
    luna_vae *vae = NULL;
    const luna_err err = open_copy(c, &vae);
    luna_vae_close(&vae);
    if (err != LUNA_BAD_MODEL || !strstr(luna_error_text(), because) ||
        strchr(luna_error_text(), '\n'))
        fail_msg("%s: %s; expected: %s", luna_err_name(err), luna_error_text(), because);
}

//  The few tensors that a family is recognised by: without one the file is unknown.
static bool is_mark(const char *name)
{
    static const char *const marks[] = {
        "decoder.conv_in.weight",
        "decoder.mid.block_1.norm1.weight",
        "decoder.mid_block.resnets.0.norm1.weight",
        "decoder.middle.0.residual.0.gamma",
        "vae.decoder.mid_block.resnets.0.norm1.gamma",
        "1.weight",
        "3.conv.0.weight",
        "decoder.layers.0.weight",
        "decoder.layers.2.conv.0.weight",
    };
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (strcmp(marks[i], name) == 0) return true;
    return false;
}

//  What a picture does not need, or what says that there is such a layer at all.
static bool may_be_absent(const char *name)
{
    return strstr(name, "time_conv") != NULL;
}

static void take_each_away(const sample *s)
{
    copy c = make_copy(s);
    luna_safetensors *file = NULL;
    assert_int_equal(luna_safetensors_open(decoder_path(s->name), &file), LUNA_OK);
    for (size_t i = 0; i < luna_safetensors_count(file); i++) {
        char from[96], to[96], because[96];
        const char *name = luna_safetensors_at(file, i)->name;
        if (may_be_absent(name)) continue;
        snprintf(from, sizeof from, "\"%s\"", name);
        snprintf(to, sizeof to, "\"~%s\"", name + 1);
        snprintf(because, sizeof because, "'%s' is missing", name);
        replace(&c, from, to);
        expect_bad_model(&c, is_mark(name) ? "not a VAE decoder Luna knows" : because);
        replace(&c, to, from);
    }
    luna_safetensors_close(&file);
    free(c.data);
}

static void every_missing_tensor_is_named(void **state)
{
    (void)state;
    for (const sample *s = samples; s < samples + SAMPLES; s++) take_each_away(s);
}

//  Every shape of the same size with its sizes turned around, and every type as integers.
static void every_wrong_shape_is_named(void **state)
{
    (void)state;
    for (const sample *s = samples; s < samples + SAMPLES; s++) {
        copy c = make_copy(s);
        luna_vae *vae = NULL;
        assert_int_equal(open_copy(&c, &vae), LUNA_OK);
        luna_vae_close(&vae);
        for (size_t i = 8; i + 9 < 8 + c.header; i++) {
            if (memcmp(c.data + i, "\"shape\":[", 9) != 0) continue;
            uint8_t *digit = c.data + i + 9;
            const uint8_t before = *digit;
            *digit = before == '9' ? '8' : (uint8_t)(before + 1);
            expect_bad_model(&c, "'");
            *digit = before;
        }
        free(c.data);
    }
}

static void foreign_tensors_are_named(void **state)
{
    (void)state;
    copy c = make_copy(&samples[0]);
    replace(&c, "\"bn.running_var\"", "\"bn.running_vat\"");
    expect_bad_model(&c, "'bn.running_var' is missing");
    free(c.data);
    c = make_copy(&samples[2]);
    replace(&c, ".3.time_conv.bias", ".3.tame_conv.bias");
    expect_bad_model(&c, "'decoder.upsamples.3.tame_conv.bias' belongs to no decoder");
    free(c.data);
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    for (const sample *s = samples; s < samples + SAMPLES; s++) {
        copy c = make_copy(s);
        for (size_t len = 0; len < c.len; len += len < 2048 ? 131 : 9973) {
            const copy cut = {.of = s, .data = c.data, .len = len};
            expect_bad_model(&cut, s->name);
        }
        free(c.data);
    }
}

//  ---- which TAESD -------------------------------------------------------------------

static void expect_member(const char *path, size_t channels, const char *name)
{
    const luna_taesd_member *member = luna_taesd_member_of(path, channels);
    if (!name) assert_null(member);
    if (name && (!member || strcmp(member->name, name) != 0))
        fail_msg("%s is %s, not %s", path, member ? member->name : "none", name);
}

static void members_are_known_by_name(void **state)
{
    (void)state;
    expect_member("taesd_decoder.safetensors", 4, "taesd");
    expect_member("models/vae_approx/TAESDXL_decoder.safetensors", 4, "taesdxl");
    expect_member("/m/taesdxl/diffusion_pytorch_model.safetensors", 4, "taesdxl");
    expect_member("/m/madebyollin--taesd3/snapshots/0a1/model.safetensors", 16, "taesd3");
    expect_member("/m/taesd/taef1.safetensors", 16, "taef1");
    expect_member("/m/taesd3/model.safetensors", 4, NULL);
    expect_member("/m/model.safetensors", 4, NULL);
    expect_member("", 4, NULL);
}

static void an_unknown_member_is_asked_for(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    copy c = make_copy(&samples[4]);
    luna_vae_options options = luna_vae_options_default();
    options.device = "reference";
    assert_int_equal(luna_vae_open_bytes(c.data, c.len, "tiny", &options, &vae),
                     LUNA_BAD_MODEL);
    assert_non_null(strstr(luna_error_text(),
                           "taesd3 (scale 1.5305, shift 0.0609) or "
                           "taef1 (scale 0.3611, shift 0.1159)"));
    options.latent_scale = 0.5F;
    assert_int_equal(luna_vae_open_bytes(c.data, c.len, "tiny", &options, &vae), LUNA_OK);
    assert_true(luna_vae_describe(vae)->latent_scale == 0.5F);
    luna_vae_close(&vae);
    free(c.data);
}

static void taesana_needs_no_name(void **state)
{
    (void)state;
    luna_vae *vae = NULL;
    copy c = make_copy(&samples[5]);
    luna_vae_options options = luna_vae_options_default();
    options.device = "reference";
    assert_int_equal(luna_vae_open_bytes(c.data, c.len, "tiny", &options, &vae), LUNA_OK);
    assert_true(luna_vae_describe(vae)->latent_scale == 0.41407F);
    assert_true(luna_vae_describe(vae)->latent_shift == 0.0F);
    luna_vae_close(&vae);
    free(c.data);
}

//  Two tensors by which a family knows its own, and its last layer.
static void expect_refused(const char *marks[2], const char *last, size_t rank,
                           size_t made, const char *because)
{
    luna_safetensors_writer *writer = NULL;
    luna_vae_info info;
    const luna_vae_options options = luna_vae_options_default();
    const luna_tensor_spec specs[] = {
        {marks[0], LUNA_DTYPE_F32, 4, {1, 1, 1, 1}},
        {marks[1], LUNA_DTYPE_F32, 4, {1, 1, 1, 1}},
        {last, LUNA_DTYPE_F32, rank, {made, 1, 1, 1, 1}},
    };
    const float zeros[18] = {0};
    assert_int_equal(luna_safetensors_create("refused", specs, 3, &writer), LUNA_OK);
    assert_int_equal(luna_safetensors_append(writer, zeros, (2 + made) * sizeof *zeros),
                     LUNA_OK);
    assert_int_equal(luna_safetensors_commit(&writer), LUNA_OK);
    assert_int_equal(luna_vae_inspect("refused", &options, &info), LUNA_BAD_MODEL);
    if (!strstr(luna_error_text(), because)) fail_msg("%s", luna_error_text());
    assert_int_equal(remove("refused"), 0);
}

static void other_heads_are_refused_by_name(void **state)
{
    (void)state;
    expect_refused((const char *[]){"decoder.middle.0.residual.0.gamma", "x"},
                   "decoder.head.2.weight", 5, 12, "the VAE of Wan 2.2");
    expect_refused((const char *[]){"decoder.mid_block.resnets.0.norm1.gamma", "x"},
                   "decoder.conv_out.weight", 4, 16, "or Qwen-Image 2.1");
    expect_refused((const char *[]){"1.weight", "3.conv.0.weight"}, "4.weight", 4, 16,
                   "taeqi2_1");
}

static void pickles_are_refused_with_a_way_out(void **state)
{
    (void)state;
    static const char *const starts[] = {"PK\003\004\024\000\000\000\010\010",
                                         "\200\002\212\nl\374\234F\371 "};
    for (int i = 0; i < 2; i++) {
        luna_vae *vae = NULL;
        char data[64] = "";
        const luna_vae_options options = luna_vae_options_default();
        memcpy(data, starts[i], 10);
        assert_int_equal(
            luna_vae_open_bytes(data, sizeof data, "vae.ckpt", &options, &vae),
            LUNA_BAD_MODEL);
        assert_non_null(strstr(luna_error_text(), "vae.ckpt: a PyTorch file"));
        assert_non_null(strstr(luna_error_text(), "save_file"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_described),
        cmocka_unit_test(samples_are_inspected),
        cmocka_unit_test(samples_decode),
        cmocka_unit_test(rgba_becomes_bytes),
        cmocka_unit_test(latents_far_away_are_told),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(every_wrong_shape_is_named),
        cmocka_unit_test(foreign_tensors_are_named),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(members_are_known_by_name),
        cmocka_unit_test(an_unknown_member_is_asked_for),
        cmocka_unit_test(taesana_needs_no_name),
        cmocka_unit_test(other_heads_are_refused_by_name),
        cmocka_unit_test(pickles_are_refused_with_a_way_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
