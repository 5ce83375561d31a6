//  By which kernel convolutions take their norms along. Where two can, or where the
//  library's convolution with the norm's own passes may be faster still, one of the
//  decoder's convolutions is run by each in turn, once a card, and the choice kept.

#include "decoder/vae/cuda/conv.h"

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
enum { CHANNELS = 256, SIDE = 256, GROUPS = 32, RUNS = 4, ROUNDS = 4, ALIGN = 256 };

typedef struct trial {
    gpu_device *device;
    gpu_norm norm;
    gpu_parts parts_of;
    gpu_conv *conv;
    void *x, *residual, *normed, *y, *weight, *scratch, *parts;
    float *bias;
    gpu_pair *pairs;
} trial;

static size_t padded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

//  Places what the trial needs; with a base of NULL it only counts.
static size_t lay_out(trial *t, uint8_t *base)
{
    const size_t value = gpu_bytes(&t->norm.from), floats = CHANNELS * sizeof(float);
    const size_t weight = (size_t)CHANNELS * CHANNELS * 9 * 2;
    const size_t runs = CHANNELS / GPU_PART_CHANNELS;
    const struct {
        void **at;
        size_t bytes;
    } all[] = {{&t->x, value},
               {&t->residual, value},
               {&t->normed, value},
               {&t->y, value},
               {&t->weight, weight},
               {(void **)&t->bias, floats},
               {(void **)&t->pairs, 2 * floats},
               {&t->scratch, gpu_norm_scratch(&t->norm)},
               {&t->parts, gpu_part_count(&t->parts_of) * runs * sizeof(gpu_moments)}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (base) *all[i].at = base + used;
        used += padded(all[i].bytes);
    }
    return used;
}

static luna_err fill(const trial *t)
{
    const size_t values = gpu_bytes(&t->norm.from) / 2;
    const cudaStream_t stream = t->device->stream;
    LUNA_TRY(gpu_check(gpu_fill(GPU_FP16, t->x, values, stream), "a trial"));
    LUNA_TRY(gpu_check(gpu_fill(GPU_FP16, t->residual, values, stream), "a trial"));
    LUNA_TRY(gpu_check(
        gpu_fill(GPU_FP16, t->weight, (size_t)CHANNELS * CHANNELS * 9, stream),
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
    return fill(t);
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
    LUNA_TRY(gpu_check(
        gpu_apply(&t->norm.from, t->pairs, GPU_SILU, t->x, t->normed, stream),
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

static luna_err run_once(const trial *t, gpu_fuser fuser)
{
    if (fuser == GPU_FUSER_NONE) return run_library(t);
    return run_fused(t, fuser == GPU_FUSER_MMA_HALF);
}

static luna_err time_runs(const trial *t, gpu_fuser fuser, float *ms)
{
    cudaEvent_t start = NULL, stop = NULL;
    const cudaStream_t stream = t->device->stream;
    luna_err err = gpu_check(cudaEventCreate(&start), "a clock");
    if (err == LUNA_OK) err = gpu_check(cudaEventCreate(&stop), "a clock");
    if (err == LUNA_OK) err = gpu_check(cudaEventRecord(start, stream), "a clock");
    for (int i = 0; i < RUNS && err == LUNA_OK; i++) err = run_once(t, fuser);
    if (err == LUNA_OK) err = gpu_check(cudaEventRecord(stop, stream), "a clock");
    if (err == LUNA_OK) err = gpu_check(cudaEventSynchronize(stop), "a trial");
    if (err == LUNA_OK) err = gpu_check(cudaEventElapsedTime(ms, start, stop), "a clock");
    if (start) (void)cudaEventDestroy(start);
    if (stop) (void)cudaEventDestroy(stop);
    *ms /= RUNS;
    return err;
}

//  By turns, so that all run on a warm card; the first round is not counted.
static luna_err run_rounds(const trial *t, float ms[NAMES])
{
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < NAMES; i++) {
            float one = 0.0F;
            if (i == GPU_FUSER_UNKNOWN || i == GPU_FUSER_WGMMA) continue;
            LUNA_TRY(time_runs(t, (gpu_fuser)i, &one));
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
    LUNA_TRY(prepare(&t));
    LUNA_TRY(run_rounds(&t, ms));
    device->fuser = fastest(ms);
    return LUNA_OK;
}

//  ---- the choice -------------------------------------------------------------------

static const char *const key = "fuser-1 fp16 256x256x256";

luna_err gpu_fuser_choose(gpu_device *device)
{
    if (device->fuser != GPU_FUSER_UNKNOWN) return LUNA_OK;
    device->fuser = fuser_named(getenv("LUNA_CUDA_FUSER"));
    if (device->fuser != GPU_FUSER_UNKNOWN) return LUNA_OK;
    if (device->properties.major == 9 && device->properties.minor == 0) {
        device->fuser = GPU_FUSER_WGMMA;
        return LUNA_OK;
    }
    char *text = gpu_cache_read_note(device, key);
    device->fuser = fuser_named(text);
    free(text);
    //  Where all is to be fused there is nothing to weigh.
    if (device->fuser == GPU_FUSER_UNKNOWN && device->fusing == GPU_FUSES_ALL)
        device->fuser = GPU_FUSER_MMA;
    if (device->fuser != GPU_FUSER_UNKNOWN) return LUNA_OK;
    LUNA_TRY(try_all(device));
    gpu_cache_write_note(device, key, names[device->fuser]);
    return LUNA_OK;
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
