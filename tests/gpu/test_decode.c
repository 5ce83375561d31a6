//  Whole decodes on the GPU, through the engine and the plugin: against float64
//  references and the plain C backend; batches, odd sizes, overflow, limits, repeats.

#include "decoder/vae/random_model.h"
#include "decoder/vae/vae.h"
#include "gpu_test.h"

#include "common/file.h"
#include "common/safetensors.h"

static const char *data_path(const char *name)
{
    static char path[4096];
    const char *folder = getenv("LUNA_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "tests/data", name);
    return path;
}

static void must(luna_err err)
{
    if (err != LUNA_OK) fail_msg("%s: %s", luna_err_name(err), luna_error_text());
}

static luna_vae_options options_for(const char *device, luna_vae_precision precision)
{
    luna_vae_options options = luna_vae_options_default();
    options.device = device;
    options.precision = precision;
    options.latent_scale = 1.0F;  //  a random TAESD's file does not say which it is
    return options;
}

static luna_vae *open_file(const char *name, const char *device,
                           luna_vae_precision precision)
{
    luna_vae *vae = NULL;
    const luna_vae_options options = options_for(device, precision);
    must(luna_vae_open(data_path(name), &options, &vae));
    return vae;
}

static luna_vae_latents random_latents(const luna_vae *vae, size_t count, size_t height,
                                       size_t width, float spread)
{
    const size_t channels = luna_vae_describe(vae)->latent_channels;
    return (luna_vae_latents){
        .data = random_floats(count * channels * height * width, spread, 0.0F),
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

static float *decode_raw(luna_vae *vae, const luna_vae_latents *latents, size_t *count)
{
    luna_vae_shape shape;
    must(luna_vae_output_shape(vae, latents, &shape));
    luna_vae_target target = {.format = LUNA_PIXELS_F32_PLANAR, .rule = LUNA_PIXELS_RAW};
    target.bytes = luna_pixels_bytes(&shape, shape.count, target.format);
    *count = target.bytes / sizeof(float);
    target.data = floats(*count);
    must(luna_vae_decode(vae, latents, 0, latents->count, &target));
    return target.data;
}

//  Of values mapped to [0, 1] when they are nominally in [-1, 1].
static double psnr(const float *a, const float *b, size_t count, double range)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double off = ((double)a[i] - b[i]) / range;
        sum += off * off;
    }
    return sum == 0.0 ? 999.0 : 10.0 * log10((double)count / sum);
}

//  What each precision must reach, and is printed beside what it does.
static const double least_db[] = {0.0, 95.0, 62.0, 44.0};

static void against_file(const char *model, const char *reference, const char *latents,
                         const char *pixels, double range)
{
    for (luna_vae_precision p = LUNA_VAE_PRECISION_FP32; p <= LUNA_VAE_PRECISION_BF16;
         p++) {
        luna_safetensors *file = NULL;
        luna_vae_latents from;
        size_t count = 0;
        must(luna_safetensors_open(data_path(reference), &file));
        const luna_tensor *in = luna_safetensors_find(file, latents);
        const luna_tensor *out = luna_safetensors_find(file, pixels);
        assert_non_null(in);
        assert_non_null(out);
        must(luna_vae_latents_from(in->data, in->dtype, in->shape, in->rank, &from));
        luna_vae *vae = open_file(model, "cuda:0", p);
        float *is = decode_raw(vae, &from, &count);
        float *wanted = floats(count);
        assert_int_equal(count, out->count);
        must(luna_dtype_to_float(out->dtype, out->data, out->count, wanted));
        //  The file holds TAESD's pixels clamped.
        for (size_t i = 0; range == 1.0 && i < count; i++)
            is[i] = fminf(fmaxf(is[i], 0.0F), 1.0F);
        const double db = psnr(is, wanted, count, range);
        printf("%s %s: %.1f dB from float64\n", model, luna_vae_precision_name(p), db);
        //  (The photographs' pixels are stored as float16.)
        if (!(db >= (range == 1.0 && p == LUNA_VAE_PRECISION_FP32 ? 78.0 : least_db[p])))
            fail_msg("%s %s: %.1f dB", model, luna_vae_precision_name(p), db);
        free(is);
        free(wanted);
        luna_vae_close(&vae);
        luna_safetensors_close(&file);
    }
}

static void kl_of_four_channels(void **state)
{
    (void)state;
    against_file("kl_small_z4.safetensors", "kl_small_z4_reference.safetensors", "latent",
                 "pixels", 2.0);
}

static void kl_of_sixteen_channels(void **state)
{
    (void)state;
    against_file("kl_small_z16.safetensors", "kl_small_z16_reference.safetensors",
                 "latent", "pixels", 2.0);
}

static void taef2(void **state)
{
    (void)state;
    against_file("taef2_decoder.safetensors", "taef2_reference.safetensors",
                 "astronaut.latent", "astronaut.pixels", 1.0);
}

//  ---- models of full width with random weights ----------------------------------------

typedef struct random_model {
    void *image;
    size_t len;
} random_model;

static random_model new_model(const char *family)
{
    random_model m = {0};
    must(luna_random_model(family, &m.image, &m.len));
    return m;
}

static luna_vae *open_model(const random_model *m, const char *device,
                            luna_vae_precision precision)
{
    luna_vae *vae = NULL;
    const luna_vae_options options = options_for(device, precision);
    must(luna_vae_open_bytes(m->image, m->len, "random", &options, &vae));
    return vae;
}

static void against_plain_c(const char *family, size_t height, size_t width)
{
    const random_model m = new_model(family);
    luna_vae *plain = open_model(&m, "reference", LUNA_VAE_PRECISION_AUTO);
    luna_vae_latents latents = random_latents(plain, 1, height, width, 2.0F);
    size_t count = 0;
    float *wanted = decode_raw(plain, &latents, &count);
    luna_vae_close(&plain);
    for (luna_vae_precision p = LUNA_VAE_PRECISION_FP32; p <= LUNA_VAE_PRECISION_BF16;
         p++) {
        luna_vae *vae = open_model(&m, "cuda:0", p);
        float *is = decode_raw(vae, &latents, &count);
        const double db = psnr(is, wanted, count, 2.0);
        printf("%s %zux%zu %s: %.1f dB from plain C\n", family, height, width,
               luna_vae_precision_name(p), db);
        if (!(db >= least_db[p])) fail_msg("%.1f dB", db);
        free(is);
        luna_vae_close(&vae);
    }
    free(wanted);
    free_latents(&latents);
    free(m.image);
}

static void full_width(void **state)
{
    (void)state;
    against_plain_c("sd", 8, 8);
    against_plain_c("sd", 1, 1);
    against_plain_c("sd", 5, 11);
    against_plain_c("flux", 7, 3);
    against_plain_c("taesd", 9, 13);
    against_plain_c("taesd", 1, 2);
}

//  ---- what must not depend on anything
//  --------------------------------------------------

static void batches_and_repeats(void **state)
{
    (void)state;
    const random_model m = new_model("sd");
    luna_vae *vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_AUTO);
    luna_vae_latents latents = random_latents(vae, 5, 24, 40, 2.0F);
    size_t count = 0, one = 0;
    float *all = decode_raw(vae, &latents, &count),
          *again = decode_raw(vae, &latents, &one);
    assert_memory_equal(all, again, count * sizeof *all);
    luna_vae_latents single = latents;
    single.count = 1;
    for (size_t i = 0; i < 5; i++) {
        single.data = (const float *)latents.data + i * 4 * 24 * 40;
        float *is = decode_raw(vae, &single, &one);
        assert_memory_equal(is, all + i * one, one * sizeof *is);
        free(is);
    }
    //  Another size between, then the first again: plans and memory have moved.
    luna_vae_latents other = random_latents(vae, 1, 48, 48, 2.0F);
    free(decode_raw(vae, &other, &one));
    luna_vae_trim(vae);
    float *after = decode_raw(vae, &latents, &one);
    assert_memory_equal(all, after, count * sizeof *all);
    free(all);
    free(again);
    free(after);
    free_latents(&latents);
    free_latents(&other);
    luna_vae_close(&vae);
    free(m.image);
}

static void bytes_are_the_engines(void **state)
{
    (void)state;
    luna_vae *vae =
        open_file("taef2_decoder.safetensors", "cuda:0", LUNA_VAE_PRECISION_AUTO);
    luna_vae_latents latents = random_latents(vae, 2, 12, 20, 1.0F);
    luna_vae_shape shape;
    size_t count = 0;
    float *raw = decode_raw(vae, &latents, &count);
    must(luna_vae_output_shape(vae, &latents, &shape));
    luna_vae_target target = {.format = LUNA_PIXELS_U8, .rule = LUNA_PIXELS_TRUNCATE};
    target.bytes = luna_pixels_bytes(&shape, 2, LUNA_PIXELS_U8);
    uint8_t *is = malloc(target.bytes), *wanted = malloc(target.bytes);
    assert_non_null(is);
    assert_non_null(wanted);
    target.data = is;
    must(luna_vae_decode(vae, &latents, 0, 2, &target));
    for (size_t i = 0; i < 2; i++)
        luna_pixels_convert(raw + i * count / 2, &shape, LUNA_RANGE_UNIT, &target,
                            wanted + i * target.bytes / 2);
    assert_memory_equal(is, wanted, target.bytes);
    free(raw);
    free(is);
    free(wanted);
    free_latents(&latents);
    luna_vae_close(&vae);
}

//  ---- range
//  -----------------------------------------------------------------------------

//  Multiplies the tensors whose names end so by a factor.
static void inflate(random_model *m, const char *const *ends, size_t count, float factor)
{
    luna_safetensors *file = NULL;
    must(luna_safetensors_parse(m->image, m->len, "random", &file));
    for (size_t i = 0; i < luna_safetensors_count(file); i++) {
        const luna_tensor *t = luna_safetensors_at(file, i);
        bool wanted = false;
        for (size_t k = 0; k < count; k++) wanted = wanted || strstr(t->name, ends[k]);
        if (!wanted) continue;
        float *values = (float *)(uintptr_t)t->data;
        for (size_t v = 0; v < t->count; v++) {
            float x;
            memcpy(&x, values + v, sizeof x);
            x *= factor;
            memcpy(values + v, &x, sizeof x);
        }
    }
    luna_safetensors_close(&file);
}

//  The residual stream 65536 times larger: fp16 alone would overflow at once.
static void stream_beyond_fp16(void **state)
{
    (void)state;
    static const char *const ends[] = {"conv_in.", "conv2.", "proj_out.", "conv.bias",
                                       "nin_shortcut.bias"};
    random_model m = new_model("sd");
    inflate(&m, ends, 5, 65536.0F);
    luna_vae *vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP32);
    luna_vae_latents latents = random_latents(vae, 1, 16, 24, 2.0F);
    size_t count = 0;
    float *wanted = decode_raw(vae, &latents, &count);
    luna_vae_close(&vae);
    vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP16);
    float *is = decode_raw(vae, &latents, &count);
    const double db = psnr(is, wanted, count, 2.0);
    printf("stream times 65536, fp16: %.1f dB from fp32\n", db);
    assert_true(db >= least_db[LUNA_VAE_PRECISION_FP16]);
    luna_vae_close(&vae);
    free(is);
    free(wanted);
    free_latents(&latents);
    free(m.image);
}

//  Latents that no measured decode foresaw: the picture is decoded again in bf16, the
//  ones beside it stay as they are.
static void overflow_is_rescued(void **state)
{
    (void)state;
    const random_model m = new_model("sd");
    luna_vae *vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP32);
    luna_vae_latents latents = random_latents(vae, 3, 8, 8, 2.0F);
    float *values = (float *)(uintptr_t)latents.data;
    for (size_t i = 256; i < 512; i++) values[i] *= 1e6F;
    size_t count = 0;
    float *wanted = decode_raw(vae, &latents, &count);
    luna_vae_close(&vae);
    vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_AUTO);
    float *is = decode_raw(vae, &latents, &count);
    const size_t one = count / 3;
    for (size_t i = 0; i < 3; i++) {
        const double db = psnr(is + i * one, wanted + i * one, one, 2.0);
        const luna_vae_precision p =
            i == 1 ? LUNA_VAE_PRECISION_BF16 : LUNA_VAE_PRECISION_FP16;
        printf("rescue, image %zu: %.1f dB from fp32\n", i, db);
        if (!(db >= least_db[p])) fail_msg("image %zu: %.1f dB", i, db);
    }
    luna_vae_close(&vae);
    free(is);
    free(wanted);
    free_latents(&latents);
    free(m.image);
}

//  ---- limits
//  ----------------------------------------------------------------------------

static void memory_limits(void **state)
{
    (void)state;
    const random_model m = new_model("sd");
    luna_vae *vae = NULL;
    luna_vae_cost cost;
    luna_vae_options options = options_for("cuda:0", LUNA_VAE_PRECISION_FP16);
    options.memory_limit_bytes = (size_t)400 << 20;
    must(luna_vae_open_bytes(m.image, m.len, "random", &options, &vae));
    luna_vae_latents large = random_latents(vae, 1, 128, 128, 1.0F);
    luna_vae_latents small = random_latents(vae, 1, 32, 32, 1.0F);
    assert_int_equal(luna_vae_prepare(vae, &large, &cost), LUNA_NO_MEMORY);
    printf("%s\n", luna_error_text());
    assert_non_null(strstr(luna_error_text(), "419430400"));
    must(luna_vae_prepare(vae, &small, &cost));
    assert_true(cost.peak_bytes <= options.memory_limit_bytes);
    luna_vae_close(&vae);
    free_latents(&large);
    free_latents(&small);
    free(m.image);
}

//  What a picture takes when there is enough, and the same picture in a tenth less: the
//  shortcuts are then rounded by themselves, nothing else differs.
static void less_memory_gives_the_same(void **state)
{
    (void)state;
    const random_model m = new_model("sd");
    luna_vae *vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP32);
    luna_vae_latents latents = random_latents(vae, 1, 128, 128, 1.0F);
    luna_vae_cost cost, lean;
    size_t count = 0;
    float *wanted = decode_raw(vae, &latents, &count);
    luna_vae_close(&vae);
    vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP16);
    must(luna_vae_prepare(vae, &latents, &cost));
    luna_vae_close(&vae);
    luna_vae_options options = options_for("cuda:0", LUNA_VAE_PRECISION_FP16);
    options.memory_limit_bytes = cost.peak_bytes - cost.peak_bytes / 10;
    must(luna_vae_open_bytes(m.image, m.len, "random", &options, &vae));
    if (luna_vae_prepare(vae, &latents, &lean) != LUNA_OK)
        printf("%s\n", luna_error_text());  //  a card without the fused convolution
    else {
        float *is = decode_raw(vae, &latents, &count);
        const double db = psnr(is, wanted, count, 2.0);
        printf("1024 x 1024 in %zu MiB instead of %zu: %.1f dB from fp32\n",
               lean.peak_bytes >> 20, cost.peak_bytes >> 20, db);
        assert_true(lean.peak_bytes <= options.memory_limit_bytes);
        if (!(db >= least_db[LUNA_VAE_PRECISION_FP16])) fail_msg("%.1f dB", db);
        free(is);
    }
    luna_vae_close(&vae);
    free(wanted);
    free_latents(&latents);
    free(m.image);
}

//  What a decode takes of the card is what the plan said, and all comes back.
static void memory_is_as_told(void **state)
{
    (void)state;
    size_t free_before = 0, free_then = 0, free_after = 0, total = 0, count = 0;
    const random_model m = new_model("sd");
    for (int round = 0; round < 2; round++) {
        luna_vae_cost cost;
        ok(cudaMemGetInfo(&free_before, &total));
        luna_vae *vae = open_model(&m, "cuda:0", LUNA_VAE_PRECISION_FP16);
        luna_vae_latents latents = random_latents(vae, 1, 128, 128, 1.0F);
        must(luna_vae_prepare(vae, &latents, &cost));
        free(decode_raw(vae, &latents, &count));
        ok(cudaMemGetInfo(&free_then, &total));
        luna_vae_close(&vae);
        ok(cudaMemGetInfo(&free_after, &total));
        printf("1024 x 1024: told %.1f MiB, taken %.1f MiB, left behind %.1f MiB\n",
               (double)cost.peak_bytes / 1048576.0,
               (double)(free_before - free_then) / 1048576.0,
               ((double)free_before - (double)free_after) / 1048576.0);
        free_latents(&latents);
        //  The first round loads the libraries' own code, which stays.
        if (round == 0) continue;
        assert_true(free_before - free_then <= cost.peak_bytes + ((size_t)96 << 20));
        assert_true(free_before <= free_after + ((size_t)32 << 20));
        assert_true(cost.peak_bytes <= (size_t)1536 << 20);
    }
    free(m.image);
}

static void no_such_card(void **state)
{
    (void)state;
    const random_model m = new_model("taesd");
    luna_vae *vae = NULL;
    const luna_vae_options options = options_for("cuda:99", LUNA_VAE_PRECISION_AUTO);
    assert_int_equal(luna_vae_open_bytes(m.image, m.len, "random", &options, &vae),
                     LUNA_UNAVAILABLE);
    assert_non_null(strstr(luna_error_text(), "99"));
    free(m.image);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_of_four_channels),
        cmocka_unit_test(kl_of_sixteen_channels),
        cmocka_unit_test(taef2),
        cmocka_unit_test(full_width),
        cmocka_unit_test(batches_and_repeats),
        cmocka_unit_test(bytes_are_the_engines),
        cmocka_unit_test(stream_beyond_fp16),
        cmocka_unit_test(overflow_is_rescued),
        cmocka_unit_test(memory_limits),
        cmocka_unit_test(less_memory_gives_the_same),
        cmocka_unit_test(memory_is_as_told),
        cmocka_unit_test(no_such_card),
    };
    fresh_seed();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
