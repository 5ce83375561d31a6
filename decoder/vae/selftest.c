#include "decoder/vae/selftest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "decoder/vae/random_model.h"

enum { IMAGES = 2, CHANNELS = 4, GROWTH = 4, COLOURS = 3 };
enum { HEIGHT = LUNA_SELFTEST_HEIGHT, WIDTH = LUNA_SELFTEST_WIDTH };
enum {
    LATENTS = IMAGES * CHANNELS * HEIGHT * WIDTH,
    PIXELS = IMAGES * COLOURS * GROWTH * HEIGHT * GROWTH * WIDTH
};

typedef struct selftest {
    void *image;  //  of the model
    size_t len;
    float latents[LATENTS];
    float wanted[PIXELS];
    float first[PIXELS];
    float again[PIXELS];
} selftest;

//  One wrong value in all of them is already below any of these.
static double needed_db(const char *precision)
{
    if (strcmp(precision, "fp32") == 0) return 80.0;
    return strcmp(precision, "bf16") == 0 ? 38.0 : 50.0;
}

static luna_err decode(luna_vae *vae, const selftest *t, float *out)
{
    const luna_vae_latents latents = {.data = t->latents,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = IMAGES,
                                      .channels = CHANNELS,
                                      .height = HEIGHT,
                                      .width = WIDTH};
    const luna_vae_target target = {.data = out,
                                    .bytes = PIXELS * sizeof *out,
                                    .format = LUNA_PIXELS_F32_PLANAR,
                                    .rule = LUNA_PIXELS_RAW};
    return luna_vae_decode(vae, &latents, 0, IMAGES, &target);
}

static luna_err prepare(selftest *t)
{
    luna_vae *plain = NULL;
    uint64_t seed = 7;
    luna_vae_options options = luna_vae_options_default();
    options.device = "reference";
    for (size_t i = 0; i < LATENTS; i++) t->latents[i] = 2.0F * luna_random_float(&seed);
    LUNA_TRY(luna_random_model(LUNA_RANDOM_TINY, &t->image, &t->len));
    LUNA_TRY(luna_vae_open_bytes(t->image, t->len, "self-test", &options, &plain));
    const luna_err err = decode(plain, t, t->wanted);
    luna_vae_close(&plain);
    return err;
}

static double ms_since(int64_t start_ns)
{
    return (double)(luna_now_ns() - start_ns) / 1e6;
}

static luna_err run_twice(luna_vae *vae, selftest *t, luna_selftest_result *out)
{
    const int64_t start_ns = luna_now_ns();
    LUNA_TRY(decode(vae, t, t->first));
    const int64_t first_ns = luna_now_ns();
    out->decode_ms = (double)(first_ns - start_ns) / 1e6;
    LUNA_TRY(decode(vae, t, t->again));
    out->again_ms = ms_since(first_ns);
    return LUNA_OK;
}

//  Nominally in [-1, 1].
static double distance_db(const float *is, const float *wanted)
{
    double sum = 0.0;
    for (size_t i = 0; i < PIXELS; i++) {
        const double off = ((double)is[i] - (double)wanted[i]) / 2.0;
        sum += off * off;
    }
    return sum > 0.0 || isnan(sum) ? 10.0 * log10(PIXELS / sum) : (double)INFINITY;
}

static luna_err judge(const selftest *t, const char *precision, luna_selftest_result *out)
{
    out->distance_db = distance_db(t->first, t->wanted);
    out->needed_db = needed_db(precision);
    if (memcmp(t->first, t->again, sizeof t->first) != 0)
        return luna_error(LUNA_DEVICE, "the same latents gave other pixels each time");
    if (out->distance_db >= out->needed_db) return LUNA_OK;
    return luna_error(LUNA_DEVICE, "its pixels are %.1f dB from the right ones, not %.0f",
                      out->distance_db, out->needed_db);
}

static luna_err run_on(const luna_vae_options *options, selftest *t,
                       luna_selftest_result *out)
{
    luna_vae *vae = NULL;
    const int64_t start_ns = luna_now_ns();
    LUNA_TRY(luna_vae_open_bytes(t->image, t->len, "self-test", options, &vae));
    out->open_ms = ms_since(start_ns);
    luna_err err = run_twice(vae, t, out);
    if (err == LUNA_OK) err = judge(t, luna_vae_describe(vae)->precision, out);
    luna_vae_close(&vae);
    return err;
}

//  The model and its latents are sound, and any device can do them in its own precision.
static luna_err blame(luna_err err, luna_vae_precision precision)
{
    if (err == LUNA_OVERFLOW) return LUNA_DEVICE;
    const bool own = precision == LUNA_VAE_PRECISION_AUTO;
    return err == LUNA_UNSUPPORTED && own ? LUNA_UNAVAILABLE : err;
}

static luna_err explain(luna_err err, const char *device)
{
    if (err == LUNA_OK || err == LUNA_USAGE) return err;
    return luna_error(err, "the self-test on %.60s failed: %s", device,
                      luna_error_text());
}

luna_err luna_selftest(const char *device, luna_vae_precision precision,
                       luna_selftest_result *out)
{
    luna_vae_options options = luna_vae_options_default();
    selftest *t = calloc(1, sizeof *t);
    *out = (luna_selftest_result){0};
    if (!t) return luna_error(LUNA_NO_MEMORY, "no memory for a self-test");
    options.device = device;
    options.precision = precision;
    options.trial = true;
    luna_err err = prepare(t);
    if (err == LUNA_OK) err = run_on(&options, t, out);
    free(t->image);
    free(t);
    return explain(blame(err, precision), device);
}
