#include "common/clock.h"
#include "decoder/vae/backend.h"
#include "decoder/vae/random_model.h"
#include "decoder/vae/tool/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { RUNS_MAX = 1000 };

//  What comes before the speed of a decoder at work, in ms.
typedef struct bench_parts {
    double device;  //  the backend's libraries, the driver
    double open;    //  the model's file, the device's context and handles
    double before;  //  the other shape
    double plan;    //  weights, steps, the libraries' plans
    double first;   //  the first decode of the batch
    double second;  //  and the next
} bench_parts;

typedef struct bench {
    luna_vae *vae;
    luna_vae_latents latents;
    luna_vae_target target;
    luna_vae_cost cost;
    bench_parts parts;
    size_t width;  //  of the picture
    size_t height;
    double ms[RUNS_MAX];  //  of a whole batch
    int runs;
} bench;

static luna_err parse_shape(const char *text, bench *b)
{
    char rest = '\0';
    size_t *count = &b->latents.count;
    const bool good =
        sscanf(text, "%6zux%7zux%7zu%c", count, &b->width, &b->height, &rest) == 3;
    if (good && *count > 0 && b->width > 0 && b->height > 0) return LUNA_OK;
    return luna_error(LUNA_USAGE, "the shape '%.40s' is not NxWIDTHxHEIGHT", text);
}

static luna_err fit_shape(bench *b)
{
    const luna_vae_info *info = luna_vae_describe(b->vae);
    if (b->width % info->spatial_factor || b->height % info->spatial_factor)
        return luna_error(LUNA_USAGE, "width and height must be multiples of %zu",
                          info->spatial_factor);
    b->latents.dtype = LUNA_DTYPE_F32;
    b->latents.channels = info->latent_channels;
    b->latents.width = b->width / info->spatial_factor;
    b->latents.height = b->height / info->spatial_factor;
    return LUNA_OK;
}

static luna_err make_latents(bench *b)
{
    uint64_t seed = 1;
    size_t count = b->latents.count, bytes;
    const bool fits = !__builtin_mul_overflow(count, b->latents.channels, &count) &&
                      !__builtin_mul_overflow(count, b->latents.height, &count) &&
                      !__builtin_mul_overflow(count, b->latents.width, &count) &&
                      !__builtin_mul_overflow(count, sizeof(float), &bytes);
    float *values = fits ? malloc(bytes) : NULL;
    if (!values) return luna_error(LUNA_NO_MEMORY, "no memory for the latents");
    for (size_t i = 0; i < count; i++) values[i] = luna_random_float(&seed);
    b->latents.data = values;
    return LUNA_OK;
}

static luna_err make_target(bench *b)
{
    luna_vae_shape shape;
    LUNA_TRY(luna_vae_output_shape(b->vae, &b->latents, &shape));
    b->target.format = LUNA_PIXELS_U8;
    b->target.bytes = luna_pixels_bytes(&shape, shape.count, LUNA_PIXELS_U8);
    b->target.data = malloc(b->target.bytes);
    return b->target.data ? LUNA_OK
                          : luna_error(LUNA_NO_MEMORY, "no memory for the pictures");
}

static double ms_since(int64_t start_ns)
{
    return (double)(luna_now_ns() - start_ns) / 1e6;
}

static luna_err run_once(bench *b, double *ms)
{
    const int64_t start_ns = luna_now_ns();
    LUNA_TRY(luna_vae_decode(b->vae, &b->latents, 0, b->latents.count, &b->target));
    *ms = ms_since(start_ns);
    return LUNA_OK;
}

//  The first decode makes the plan and touches fresh memory, the second may still record
//  what it does: they are told by themselves and do not count.
static luna_err run_first(bench *b)
{
    const int64_t start_ns = luna_now_ns();
    LUNA_TRY(luna_vae_prepare(b->vae, &b->latents, &b->cost));
    b->parts.plan = ms_since(start_ns);
    LUNA_TRY(run_once(b, &b->parts.first));
    return run_once(b, &b->parts.second);
}

static luna_err run_all(bench *b, int wanted)
{
    double total = 0.0;
    LUNA_TRY(run_first(b));
    while (b->runs < RUNS_MAX) {
        if (wanted ? b->runs >= wanted : b->runs >= 3 && total > 2000.0) break;
        LUNA_TRY(run_once(b, &b->ms[b->runs]));
        total += b->ms[b->runs++];
    }
    return LUNA_OK;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(bench *b)
{
    qsort(b->ms, (size_t)b->runs, sizeof b->ms[0], by_size);
    return (b->ms[(b->runs - 1) / 2] + b->ms[b->runs / 2]) / 2.0;
}

static void print_result(bench *b, bool json)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    const luna_vae_info *info = luna_vae_describe(b->vae);
    const double ms = median(b) / (double)b->latents.count;
    const double gflops = (double)b->cost.flop / ms / 1e6;
    const double peak = (double)b->cost.peak_bytes / 1048576.0;
    const double resident = (double)usage.ru_maxrss / 1024.0;
    if (!json) {
        printf("%s %s on %s (%s): %zu x %zu x %zu\n", info->family, info->precision,
               info->device, info->backend, b->latents.count, b->width, b->height);
        printf(
            "%.2f ms an image (median of %d), %.1f GFLOP/s, peak %.1f MiB (process %.1f "
            "MiB)\n",
            ms, b->runs, gflops, peak, resident);
        printf(
            "before that: device %.0f ms, open %.0f ms, other shape %.0f ms, plan %.0f "
            "ms, "
            "first decode %.1f ms, second %.1f ms\n",
            b->parts.device, b->parts.open, b->parts.before, b->parts.plan,
            b->parts.first, b->parts.second);
        return;
    }
    printf(
        "{\"family\": \"%s\", \"device\": \"%s\", \"backend\": \"%s\", \"precision\": "
        "\"%s\", ",
        info->family, info->device, info->backend, info->precision);
    printf("\"images\": %zu, \"width\": %zu, \"height\": %zu, \"runs\": %d, ",
           b->latents.count, b->width, b->height, b->runs);
    printf(
        "\"ms_per_image\": %.4f, \"gflops\": %.2f, \"peak_mib\": %.2f, \"process_mib\": "
        "%.2f, ",
        ms, gflops, peak, resident);
    printf(
        "\"limit_mib\": %.2f, \"device_ms\": %.2f, \"open_ms\": %.2f, \"before_ms\": "
        "%.2f, ",
        (double)luna_vae_memory_limit(b->vae) / 1048576.0, b->parts.device, b->parts.open,
        b->parts.before);
    printf("\"plan_ms\": %.2f, \"first_ms\": %.2f, \"second_ms\": %.2f}\n", b->parts.plan,
           b->parts.first, b->parts.second);
}

static void free_shape(bench *b)
{
    free((void *)(uintptr_t)b->latents.data);
    free(b->target.data);
    b->latents.data = NULL;
    b->target.data = NULL;
}

static luna_err make_shape(const char *text, bench *b)
{
    LUNA_TRY(parse_shape(text, b));
    LUNA_TRY(fit_shape(b));
    LUNA_TRY(make_latents(b));
    return make_target(b);
}

//  Another shape, once: the device's libraries are loaded and its weights are up.
static luna_err run_before(const char *text, bench *b)
{
    const int64_t start_ns = luna_now_ns();
    double ms;
    if (!text) return LUNA_OK;
    luna_err err = make_shape(text, b);
    if (err == LUNA_OK) err = run_once(b, &ms);
    free_shape(b);
    b->parts.before = ms_since(start_ns);
    return err;
}

static luna_err bench_model(const tool_options *options, bench *b)
{
    LUNA_TRY(run_before(options->before, b));
    luna_err err = make_shape(options->shape, b);
    if (err == LUNA_OK)
        err = run_all(b, options->runs < RUNS_MAX ? options->runs : RUNS_MAX);
    if (err == LUNA_OK) print_result(b, options->json);
    free_shape(b);
    return err;
}

static luna_err find_device(const char *device, bench_parts *parts)
{
    const luna_backend *backend = NULL;
    int index = 0;
    const int64_t start_ns = luna_now_ns();
    LUNA_TRY(luna_backend_find(device, &backend, &index));
    parts->device = ms_since(start_ns);
    return LUNA_OK;
}

//  The making of a random model is none of the parts.
static luna_err open_model(const tool_options *options, void **image, bench *b)
{
    size_t len = 0;
    char label[64];
    if (options->random) LUNA_TRY(luna_random_model(options->random, image, &len));
    LUNA_TRY(find_device(options->vae.device, &b->parts));
    const int64_t start_ns = luna_now_ns();
    if (options->random) {
        snprintf(label, sizeof label, "random %.40s", options->random);
        LUNA_TRY(luna_vae_open_bytes(*image, len, label, &options->vae, &b->vae));
    } else {
        LUNA_TRY(luna_vae_open(options->model, &options->vae, &b->vae));
    }
    b->parts.open = ms_since(start_ns);
    return LUNA_OK;
}

luna_err tool_bench(const tool_options *options)
{
    if (!options->shape || !options->model == !options->random)
        return luna_error(LUNA_USAGE,
                          "bench needs --shape and either --model or --random");
    bench *b = calloc(1, sizeof *b);
    if (!b) return luna_error(LUNA_NO_MEMORY, "no memory for a benchmark");
    void *image = NULL;
    luna_err err = parse_shape(options->shape, b);
    if (err == LUNA_OK) err = open_model(options, &image, b);
    if (err == LUNA_OK) err = bench_model(options, b);
    luna_vae_close(&b->vae);
    free(b);
    free(image);
    return err;
}
