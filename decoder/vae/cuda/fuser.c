//  By which kernel convolutions take their norms along. Where two can, or where the
//  library's convolution with the norm's own passes may be faster still, one of the
//  decoder's convolutions is run by each in turn, once a card, and the choice kept.

#include "decoder/vae/cuda/conv.h"
#include "decoder/vae/cuda/timing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static const char *const names[] = {[GPU_FUSER_UNKNOWN] = "unknown",
                                    [GPU_FUSER_NONE] = "library",
                                    [GPU_FUSER_WGMMA] = "wgmma",
                                    [GPU_FUSER_MMA] = "mma",
                                    [GPU_FUSER_MMA_HALF] = "mma-half"};
enum { NAMES = sizeof names / sizeof names[0] };

static gpu_fuser fuser_named(const char *name)
{
    for (size_t i = 1; name && i < NAMES; i++)
        if (strcmp(name, names[i]) == 0) return (gpu_fuser)i;
    return GPU_FUSER_UNKNOWN;
}

//  ---- the trial --------------------------------------------------------------------

//  256 channels at 256 x 256: 77 GFLOP.
enum { CHANNELS = 256, SIDE = 256, GROUPS = 32, RUNS = 4, ROUNDS = 4 };

typedef struct trial {
    gpu_device *device;
    gpu_clock clock;
    gpu_norm norm;
    gpu_parts parts_of;
    gpu_conv *conv;
    void *x, *residual, *normed, *y, *weight, *scratch, *parts;
    float *bias;
    gpu_pair *pairs;
} trial;

static size_t lay_out(trial *t, void *base)
{
    gpu_shelf shelf = {base, 0};
    const size_t value = gpu_bytes(&t->norm.from), floats = CHANNELS * sizeof(float);
    const size_t runs = CHANNELS / GPU_PART_CHANNELS;
    t->x = gpu_shelf_take(&shelf, value);
    t->residual = gpu_shelf_take(&shelf, value);
    t->normed = gpu_shelf_take(&shelf, value);
    t->y = gpu_shelf_take(&shelf, value);
    t->weight = gpu_shelf_take(&shelf, (size_t)CHANNELS * CHANNELS * 9 * 2);
    t->bias = gpu_shelf_take(&shelf, floats);
    t->pairs = gpu_shelf_take(&shelf, 2 * floats);
    t->scratch = gpu_shelf_take(&shelf, gpu_norm_scratch(&t->norm));
    t->parts =
        gpu_shelf_take(&shelf, gpu_part_count(&t->parts_of) * runs * sizeof(gpu_moments));
    return shelf.used;
}

static luna_err fill(const trial *t)
{
    const size_t values = gpu_bytes(&t->norm.from) / 2;
    const cudaStream_t stream = t->device->stream;
    LUNA_TRY(gpu_check(gpu_fill(GPU_FP16, t->x, values, stream), "a trial"));
    LUNA_TRY(gpu_check(gpu_fill(GPU_FP16, t->residual, values, stream), "a trial"));
    LUNA_TRY(
        gpu_check(gpu_fill(GPU_FP16, t->weight, (size_t)CHANNELS * CHANNELS * 9, stream),
                  "a trial"));
    return gpu_check(gpu_fill(GPU_FP32, t->bias, CHANNELS, stream), "a trial");
}

static luna_err prepare(trial *t)
{
    gpu_conv_problem problem;
    const gpu_extent value = {GPU_FP16, CHANNELS, SIDE, SIDE};
    memset(&problem, 0, sizeof problem);
    problem.from = value;
    problem.channels = CHANNELS;
    problem.kernel = 3;
    problem.bias = problem.residual = true;
    LUNA_TRY(gpu_conv_find(t->device, &problem, &t->conv));
    t->parts_of = (gpu_parts){SIDE, SIDE, false};
    t->norm = (gpu_norm){.from = value, .groups = GROUPS, .epsilon = 1e-6F};
    LUNA_TRY(gpu_arena_grow(t->device, lay_out(t, NULL)));
    (void)lay_out(t, t->device->arena);
    t->norm.weight = t->norm.bias = t->bias;
    LUNA_TRY(fill(t));
    return gpu_clock_open(&t->clock);
}

//  Norm, SiLU, convolution, residual: three kernels and more.
static luna_err run_library(const trial *t)
{
    const cudaStream_t stream = t->device->stream;
    const gpu_conv_call call = {.x = t->normed,
                                .weight = t->weight,
                                .bias = t->bias,
                                .residual = t->residual,
                                .y = t->y};
    LUNA_TRY(gpu_check(gpu_norm_pairs(&t->norm, t->x, t->scratch, t->pairs, stream),
                       "a trial"));
    LUNA_TRY(
        gpu_check(gpu_apply(&t->norm.from, t->pairs, GPU_SILU, t->x, t->normed, stream),
                  "a trial"));
    return gpu_conv_run(t->device, t->conv, &call);
}

//  The same in one, and the statistics of the result.
static luna_err run_fused(const trial *t, bool half_sums)
{
    const gpu_fused_args args = {.from = t->norm.from,
                                 .channels = CHANNELS,
                                 .pairs = t->pairs,
                                 .weight = t->weight,
                                 .bias = t->bias,
                                 .residual = t->residual,
                                 .parts = t->parts};
    LUNA_TRY(gpu_check(gpu_conv_mma(&args, t->x, t->y, half_sums, t->device->stream),
                       "a trial"));
    return gpu_check(gpu_norm_pairs_of_parts(&t->norm, &t->parts_of, t->parts, t->pairs,
                                             t->device->stream),
                     "a trial");
}

typedef struct attempt {
    const trial *trial;
    gpu_fuser fuser;
} attempt;

static luna_err run_once(const void *what)
{
    const attempt *a = what;
    if (a->fuser == GPU_FUSER_NONE) return run_library(a->trial);
    return run_fused(a->trial, a->fuser == GPU_FUSER_MMA_HALF);
}

//  By turns, so that all run on a warm card; the first round is not counted.
static luna_err run_rounds(const trial *t, float ms[NAMES])
{
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < NAMES; i++) {
            float one = 0.0F;
            const attempt a = {t, (gpu_fuser)i};
            if (i == GPU_FUSER_UNKNOWN || i == GPU_FUSER_WGMMA) continue;
            LUNA_TRY(gpu_clock_runs(t->device, &t->clock, run_once, &a, RUNS, &one));
            if (round > 0) ms[i] += one / (ROUNDS - 1);
        }
    return LUNA_OK;
}

//  Sums in 16 bits cost some exactness and must be worth it: a tenth of the time.
static gpu_fuser fastest(const float ms[NAMES])
{
    const float library = ms[GPU_FUSER_NONE], mma = ms[GPU_FUSER_MMA];
    const float half = ms[GPU_FUSER_MMA_HALF];
    luna_log(LUNA_LOG_DEBUG, "tune", "library=%.3f mma=%.3f mma-half=%.3f ms",
             (double)library, (double)mma, (double)half);
    if (half < 0.9F * fminf(library, mma)) return GPU_FUSER_MMA_HALF;
    return mma < library ? GPU_FUSER_MMA : GPU_FUSER_NONE;
}

static luna_err try_all(gpu_device *device)
{
    trial t = {.device = device};
    float ms[NAMES] = {0};
    luna_err err = prepare(&t);
    if (err == LUNA_OK) err = run_rounds(&t, ms);
    if (err == LUNA_OK) device->fuser = fastest(ms);
    gpu_clock_close(&t.clock);
    return err;
}

//  ---- the choice -------------------------------------------------------------------

static const char *const key = "fuser-1 fp16 256x256x256";

//  Where there is no room for a trial, or nothing to compare with, ours will do; the next
//  start tries again.
static luna_err choose_by_trial(gpu_device *device)
{
    const luna_err err = try_all(device);
    if (err == LUNA_OK) gpu_cache_write_note(device, key, names[device->fuser]);
    if (err != LUNA_NO_MEMORY && err != LUNA_UNSUPPORTED) return err;
    device->fuser = GPU_FUSER_MMA;
    return LUNA_OK;
}

static bool has_wgmma(const gpu_device *device)
{
    return device->properties.major == 9 && device->properties.minor == 0;
}

//  The kernel wished for, by what the card is, or by what was kept; else unknown.
static luna_err choose_at_once(const gpu_device *device, gpu_fuser *out)
{
    *out = fuser_named(getenv("LUNA_CUDA_FUSER"));
    if (*out == GPU_FUSER_WGMMA && !has_wgmma(device))
        return luna_error(LUNA_UNAVAILABLE,
                          "LUNA_CUDA_FUSER=wgmma is for compute capability 9.0, this "
                          "card has %d.%d; mma does the same",
                          device->properties.major, device->properties.minor);
    if (*out == GPU_FUSER_UNKNOWN && has_wgmma(device)) *out = GPU_FUSER_WGMMA;
    if (*out != GPU_FUSER_UNKNOWN) return LUNA_OK;
    char *text = gpu_cache_read_note(device, key);
    *out = fuser_named(text);
    free(text);
    //  Where all is to be fused there is nothing to weigh.
    if (*out == GPU_FUSER_UNKNOWN && device->fusing == GPU_FUSES_ALL)
        *out = GPU_FUSER_MMA;
    return LUNA_OK;
}

luna_err gpu_fuser_choose(gpu_device *device)
{
    gpu_fuser chosen = GPU_FUSER_UNKNOWN;
    //  A card that cannot fuse must not try either: its kernel would end in a trap.
    if (device->fusing == GPU_FUSES_NOTHING) return LUNA_OK;
    if (device->fuser != GPU_FUSER_UNKNOWN) return LUNA_OK;
    LUNA_TRY(choose_at_once(device, &chosen));
    device->fuser = chosen;
    return chosen == GPU_FUSER_UNKNOWN ? choose_by_trial(device) : LUNA_OK;
}

gpu_fuser gpu_fuser_for(const gpu_device *device, gpu_type type, bool lean)
{
    if (type == GPU_FP32 || device->fusing == GPU_FUSES_NOTHING) return GPU_FUSER_NONE;
    //  It saves memory even where it saves no time.
    if (device->fuser == GPU_FUSER_NONE && (lean || device->fusing == GPU_FUSES_ALL))
        return GPU_FUSER_MMA;
    return device->fuser;
}

cudaError_t gpu_fused_start(gpu_fuser fuser, const gpu_device *device,
                            const gpu_fused_args *args, const void *x, void *y)
{
    if (fuser == GPU_FUSER_WGMMA)
        return gpu_conv_wgmma(args, x, y, device->properties.multiProcessorCount,
                              device->stream);
    return gpu_conv_mma(args, x, y, fuser == GPU_FUSER_MMA_HALF, device->stream);
}
