#include "decoder/vae/tool/tool.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_MODEL = 1,
    OPT_LATENTS,
    OPT_OUTPUT,
    OPT_RAW,
    OPT_DEVICE,
    OPT_PRECISION,
    OPT_LIMIT,
    OPT_RANDOM,
    OPT_SHAPE,
    OPT_BEFORE,
    OPT_JSON,
    OPT_RUNS,
    OPT_THREADS,
    OPT_SCALE,
    OPT_SHIFT
};

static const struct option table[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"latents", required_argument, NULL, OPT_LATENTS},
    {"output", required_argument, NULL, OPT_OUTPUT},
    {"raw", no_argument, NULL, OPT_RAW},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"precision", required_argument, NULL, OPT_PRECISION},
    {"memory-limit", required_argument, NULL, OPT_LIMIT},
    {"random", required_argument, NULL, OPT_RANDOM},
    {"shape", required_argument, NULL, OPT_SHAPE},
    {"before", required_argument, NULL, OPT_BEFORE},
    {"json", no_argument, NULL, OPT_JSON},
    {"runs", required_argument, NULL, OPT_RUNS},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"latent-scale", required_argument, NULL, OPT_SCALE},
    {"latent-shift", required_argument, NULL, OPT_SHIFT},
    {NULL, 0, NULL, 0},
};

static size_t unit_of(const char *end)
{
    static const struct {
        const char *name;
        int shift;
    } units[] = {{"", 0},     {"K", 10},   {"M", 20},  {"G", 30},
                 {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].name) == 0) return (size_t)1 << units[i].shift;
    return 0;
}

static luna_err read_bytes(const char *text, size_t *out)
{
    char *end = NULL;
    size_t bytes = 0;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    const size_t unit = unit_of(end);
    if (text[0] < '0' || text[0] > '9' || errno || unit == 0 || number == 0 ||
        __builtin_mul_overflow(number, unit, &bytes))
        return luna_error(LUNA_USAGE, "'%.40s' is no number of bytes", text);
    *out = bytes;
    return LUNA_OK;
}

static luna_err read_count(const char *text, int *out)
{
    char *end = NULL;
    errno = 0;
    const long number = strtol(text, &end, 10);
    if (end == text || *end || errno || number < 1 || number > 100000)
        return luna_error(LUNA_USAGE, "'%.40s' is no count", text);
    *out = (int)number;
    return LUNA_OK;
}

static luna_err read_float(const char *text, float *out)
{
    char *end = NULL;
    const float number = strtof(text, &end);
    if (end == text || *end || !isfinite(number))
        return luna_error(LUNA_USAGE, "'%.40s' is no number", text);
    *out = number;
    return LUNA_OK;
}

static luna_err read_scale(const char *text, float *out)
{
    LUNA_TRY(read_float(text, out));
    return *out != 0.0F ? LUNA_OK
                        : luna_error(LUNA_USAGE, "a latent scale of 0 says nothing");
}

static luna_err read_text(const char *text, const char **out)
{
    *out = text;
    return LUNA_OK;
}

static luna_err set(bool *flag)
{
    *flag = true;
    return LUNA_OK;
}

static luna_err take(int option, const char *value, tool_options *o)
{
    switch (option) {
        case OPT_MODEL:
            return read_text(value, &o->model);
        case OPT_LATENTS:
            return read_text(value, &o->latents);
        case OPT_OUTPUT:
            return read_text(value, &o->output);
        case OPT_RAW:
            return set(&o->raw);
        case OPT_DEVICE:
            return read_text(value, &o->vae.device);
        case OPT_PRECISION:
            return luna_vae_precision_parse(value, &o->vae.precision);
        case OPT_LIMIT:
            return read_bytes(value, &o->vae.memory_limit_bytes);
        case OPT_RANDOM:
            return read_text(value, &o->random);
        case OPT_SHAPE:
            return read_text(value, &o->shape);
        case OPT_BEFORE:
            return read_text(value, &o->before);
        case OPT_JSON:
            return set(&o->json);
        case OPT_RUNS:
            return read_count(value, &o->runs);
        case OPT_THREADS:
            return read_count(value, &o->vae.threads);
        case OPT_SCALE:
            return read_scale(value, &o->vae.latent_scale);
        default:
            return read_float(value, &o->vae.latent_shift);
    }
}

//  info takes its model without an option's name.
static luna_err take_rest(int argc, char **argv, tool_options *o)
{
    if (optind < argc && strcmp(argv[0], "info") == 0 && !o->model)
        o->model = argv[optind++];
    if (optind == argc) return LUNA_OK;
    return luna_error(LUNA_USAGE, "'%.80s' is one word too many; see luna-vae --help",
                      argv[optind]);
}

luna_err tool_options_read(int argc, char **argv, tool_options *options)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", table, NULL)) != -1) {
        if (option == ':')
            return luna_error(LUNA_USAGE, "%.80s needs a value", argv[optind - 1]);
        if (option == '?')
            return luna_error(LUNA_USAGE, "%.80s is no option; see luna-vae --help",
                              argv[optind - 1]);
        LUNA_TRY(take(option, optarg, options));
    }
    if (options->vae.latent_shift != 0.0F && options->vae.latent_scale == 0.0F)
        options->vae.latent_scale = 1.0F;
    return take_rest(argc, argv, options);
}
