//  Where the time of a decode goes: each step, and all of them as one graph. Steps are
//  timed in their order and behind other work, so that none waits for the host.
//
//  profile FAMILY|MODEL WIDTHxHEIGHT [fp16|bf16|fp32] [lean]

#include "decoder/vae/cuda/gpu.h"
#include "decoder/vae/family.h"
#include "decoder/vae/random_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum { RUNS = 9, LEAD = 3 };  //  LEAD: whole decodes ahead of the steps

static const char *const kinds[] = {
    "from planes", "to planes", "conv",      "conv plain", "conv last", "conv fused",
    "conv narrow", "conv over", "norm",      "apply",      "rms norm",  "add",
    "upsample",    "unpack",    "attention", "attn fused"};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

typedef struct profile {
    luna_model model;
    luna_shape shapes[LUNA_GRAPH_MAX];
    gpu_device device;
    gpu_lane lane;
    gpu_program *program;
    int8_t exponents[LUNA_GRAPH_MAX];
    bool lean;
    float ms[4 * LUNA_GRAPH_MAX][RUNS];
} profile;

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float median(float *ms)
{
    qsort(ms, RUNS, sizeof *ms, by_size);
    return ms[RUNS / 2];
}

static void print_step(profile *p, size_t i, double *sums)
{
    const gpu_step *s = &p->program->steps[i];
    const float ms = median(p->ms[i]);
    sums[s->kind] += (double)ms;
    const double taps = s->kernel == 4 ? 4 : (double)s->kernel * s->kernel;
    const double flop = 2.0 * (taps * s->from.channels + s->beside) * s->to.channels *
                        (double)gpu_pixels(&s->to) / 1e9;
    const bool conv = s->kind == GPU_STEP_CONV || s->kind == GPU_STEP_CONV_FUSED ||
                      s->kind == GPU_STEP_CONV_PLAIN || s->kind == GPU_STEP_CONV_NARROW;
    const double bytes = 2.0 * (double)gpu_bytes(&s->to) / 1e6;
    printf("%3zu %-11s %4d -> %4d %5dx%-5d k%d %c %8.4f ms", i, kinds[s->kind],
           s->from.channels, s->to.channels, s->to.height, s->to.width, s->kernel,
           s->z != LUNA_NONE ? '+' : ' ', (double)ms);
    if (conv) printf(" %7.1f TFLOP/s%s", flop / (double)ms, s->bare ? " bare" : "");
    if (s->kind == GPU_STEP_APPLY) printf(" %7.1f GB/s", bytes / (double)ms);
    if (s->kind == GPU_STEP_NORM) printf(" %7.1f GB/s", bytes / 2 / (double)ms);
    puts("");
}

//  Marks before the first step and after each.
static luna_err mark_steps(profile *p, cudaEvent_t *mark)
{
    cudaStream_t stream = p->device.stream;
    const size_t count = p->program->step_count;
    for (int i = 0; i < LEAD; i++) LUNA_TRY(gpu_program_start(p->program));
    LUNA_TRY(gpu_check(cudaEventRecord(mark[0], stream), "a clock"));
    for (size_t i = 0; i < count; i++) {
        LUNA_TRY(gpu_step_start(p->program, &p->program->steps[i]));
        LUNA_TRY(gpu_check(cudaEventRecord(mark[i + 1], stream), "a clock"));
    }
    return gpu_check(cudaEventSynchronize(mark[count]), "the steps");
}

static luna_err clock_run(profile *p, cudaEvent_t *mark, int run)
{
    LUNA_TRY(mark_steps(p, mark));
    for (size_t i = 0; i < p->program->step_count; i++)
        LUNA_TRY(gpu_check(cudaEventElapsedTime(&p->ms[i][run], mark[i], mark[i + 1]),
                           "a clock"));
    return LUNA_OK;
}

static void print_steps(profile *p)
{
    double sums[KINDS] = {0}, all = 0.0;
    for (size_t i = 0; i < p->program->step_count; i++) print_step(p, i, sums);
    for (size_t k = 0; k < KINDS; k++) {
        if (sums[k] > 0.0) printf("sum %-11s %8.3f ms\n", kinds[k], sums[k]);
        all += sums[k];
    }
    printf("sum of the steps %8.3f ms\n", all);
}

static luna_err clock_steps(profile *p)
{
    static cudaEvent_t mark[4 * LUNA_GRAPH_MAX + 1];
    for (size_t i = 0; i <= p->program->step_count; i++)
        LUNA_TRY(gpu_check(cudaEventCreate(&mark[i]), "a clock"));
    for (int run = 0; run < RUNS; run++) LUNA_TRY(clock_run(p, mark, run));
    print_steps(p);
    return LUNA_OK;
}

static luna_err clock_graph(profile *p)
{
    cudaEvent_t at[2];
    float ms[RUNS];
    for (int i = 0; i < 2; i++) LUNA_TRY(gpu_check(cudaEventCreate(&at[i]), "a clock"));
    for (int i = 0; i < 4; i++) LUNA_TRY(gpu_program_start(p->program));
    for (int i = 0; i < RUNS; i++) {
        (void)cudaEventRecord(at[0], p->device.stream);
        LUNA_TRY(gpu_program_start(p->program));
        (void)cudaEventRecord(at[1], p->device.stream);
        LUNA_TRY(gpu_check(cudaEventSynchronize(at[1]), "a decode"));
        (void)cudaEventElapsedTime(&ms[i], at[0], at[1]);
    }
    printf("one graph        %8.3f ms (median of %d), arena %.1f MiB, weights %.1f MiB\n",
           (double)median(ms), RUNS, (double)p->program->arena_bytes / 1048576.0,
           (double)p->lane.weight_bytes / 1048576.0);
    return LUNA_OK;
}

//  A file, or random weights of a family.
static luna_err open_model(const char *name, luna_safetensors **out)
{
    void *image = NULL;
    size_t len = 0;
    if (strchr(name, '.')) return luna_safetensors_open(name, out);
    LUNA_TRY(luna_random_model(name, &image, &len));
    return luna_safetensors_parse(image, len, name, out);
}

static luna_err build(profile *p, const char *family, size_t width, size_t height)
{
    LUNA_TRY(open_model(family, (luna_safetensors **)(uintptr_t)&p->model.file));
    LUNA_TRY(luna_model_build(&p->model));
    p->lane.weights = &p->model.weights;
    p->lane.device = &p->device;
    LUNA_TRY(gpu_device_open(0, &p->device));
    if (p->lane.type == GPU_FP16)
        LUNA_TRY(
            gpu_scale_choose(&p->device, p->lane.weights, &p->model.plain, p->exponents));
    const size_t factor = p->model.spatial_factor;
    LUNA_TRY(
        luna_graph_infer(&p->model.plain, height / factor, width / factor, p->shapes));
    LUNA_TRY(gpu_program_build(&p->lane, &p->model.plain, p->shapes, p->exponents,
                               p->lean, &p->program));
    LUNA_TRY(gpu_arena_grow(&p->device, p->program->arena_bytes));
    return gpu_check(gpu_fill(GPU_FP32, gpu_buffer(p->program, GPU_INPUT),
                              p->shapes[0].count, p->device.stream),
                     "latents");
}

static luna_err run(profile *p, const char *family, size_t width, size_t height)
{
    LUNA_TRY(build(p, family, width, height));
    LUNA_TRY(clock_graph(p));
    LUNA_TRY(clock_steps(p));
    return clock_graph(p);
}

int main(int argc, char **argv)
{
    size_t width = 0, height = 0;
    profile *p = calloc(1, sizeof *p);
    if (argc < 3 || !p || sscanf(argv[2], "%zux%zu", &width, &height) != 2) {
        fputs("usage: profile FAMILY|MODEL WIDTHxHEIGHT [fp16|bf16|fp32] [lean]\n",
              stderr);
        return 64;
    }
    if (argc > 3 && strcmp(argv[3], "bf16") == 0) p->lane.type = GPU_BF16;
    if (argc > 3 && strcmp(argv[3], "fp32") == 0) p->lane.type = GPU_FP32;
    p->lean = argc > 4 && strcmp(argv[4], "lean") == 0;
    if (getenv("LUNA_TUNE_LOG")) luna_log_set_level(LUNA_LOG_DEBUG);
    const luna_err err = run(p, argv[1], width, height);
    if (err != LUNA_OK) fprintf(stderr, "profile: %s\n", luna_error_text());
    return err == LUNA_OK ? 0 : 1;
}
