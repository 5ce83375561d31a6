//  fp16 holds numbers up to 65504; the residual stream of some decoders (SDXL's) goes
//  beyond. Nothing but norms, convolutions and additions reads it, and a norm does not
//  see a factor, so the stream can be kept 2^k times smaller: the convolutions that write
//  it are scaled at load, and the norms' epsilon with them. Exactly the same function.

#include "decoder/vae/cuda/gpu.h"

#include <math.h>
#include <stdlib.h>

enum { SIDE = 16 };  //  latents a side of the decode that is measured

//  Latents as they come to a decoder are about as large as this (SD's: 1 / 0.18).
static const float spread = 5.0F;
//  Values are kept 16 times smaller than what fp16 can hold.
static const float comfortable = 4096.0F;

typedef struct survey {
    const luna_graph *graph;
    luna_shape shapes[LUNA_GRAPH_MAX];
    float largest[LUNA_GRAPH_MAX];  //  of each node's value; 0: not stored
    int parent[LUNA_GRAPH_MAX];     //  union-find over nodes of one exponent
    bool fixed[LUNA_GRAPH_MAX];     //  of a class's root: the exponent must be 0
} survey;

static int root(survey *s, int i)
{
    while (s->parent[i] != i) i = s->parent[i] = s->parent[s->parent[i]];
    return i;
}

static void tie(survey *s, int a, int b)
{
    a = root(s, a);
    b = root(s, b);
    s->parent[a] = b;
    s->fixed[b] = s->fixed[b] || s->fixed[a];
    if (s->largest[a] > s->largest[b]) s->largest[b] = s->largest[a];
}

static void fix(survey *s, int i)
{
    s->fixed[root(s, i)] = true;
}

static void visit(survey *s, int i)
{
    const luna_node *node = &s->graph->node[i];
    switch (node->op) {
        case LUNA_OP_CONV2D:
            break;
        case LUNA_OP_ADD:
            tie(s, i, node->input[1]);
            tie(s, i, node->input[0]);
            break;
        case LUNA_OP_RELU:
        case LUNA_OP_UPSAMPLE:
        case LUNA_OP_UNPACK:
            tie(s, i, node->input[0]);
            break;
        case LUNA_OP_GROUP_NORM:
        case LUNA_OP_RMS_NORM:
        case LUNA_OP_INPUT:
            fix(s, i);
            break;
        default:
            fix(s, i);
            for (int k = 0; k < LUNA_INPUTS; k++)
                if (node->input[k] != LUNA_NONE) fix(s, node->input[k]);
            break;
    }
}

static int8_t exponent_of(float largest)
{
    if (!isfinite(largest) || largest <= comfortable) return 0;
    return (int8_t)-ceilf(log2f(largest / comfortable));
}

static void choose(survey *s, int8_t *exponents)
{
    const int count = (int)s->graph->count;
    for (int i = 0; i < count; i++) s->parent[i] = i;
    for (int i = 0; i < count; i++) visit(s, i);
    fix(s, count - 1);
    for (int i = 0; i < count; i++) {
        const int r = root(s, i);
        exponents[i] = s->fixed[r] ? 0 : exponent_of(s->largest[r]);
    }
}

//  ---- the measured decode ------------------------------------------------------------

//  Normally distributed (Box and Muller), the same every time.
static float normal(uint64_t *seed)
{
    float u[2];
    for (int i = 0; i < 2; i++) {
        *seed = *seed * 6364136223846793005U + 1442695040888963407U;
        u[i] = ((float)(*seed >> 40) + 0.5F) * 0x1p-24F;
    }
    return sqrtf(-2.0F * logf(u[0])) * cosf(6.2831853F * u[1]);
}

static luna_err bring_latents(const survey *s, const gpu_program *program)
{
    uint64_t seed = 1;
    const size_t count = s->shapes[0].count;
    float *values = malloc(count * sizeof *values);
    if (!values) return luna_error(LUNA_NO_MEMORY, "no memory for a measured decode");
    for (size_t i = 0; i < count; i++) values[i] = spread * normal(&seed);
    const luna_err err =
        gpu_check(cudaMemcpy(gpu_buffer(program, GPU_INPUT), values,
                             count * sizeof *values, cudaMemcpyHostToDevice),
                  "a measured decode");
    free(values);
    return err;
}

static bool stores_value(const gpu_step *step)
{
    return step->kind != GPU_STEP_NORM && step->kind != GPU_STEP_TO_PLANES;
}

static luna_err measure(const gpu_program *program, float *found)
{
    cudaStream_t stream = program->lane->device->stream;
    for (size_t i = 0; i < program->step_count; i++) {
        const gpu_step *step = &program->steps[i];
        LUNA_TRY(gpu_step_start(program, step));
        if (stores_value(step))
            LUNA_TRY(gpu_check(gpu_largest(&step->to, gpu_buffer(program, step->y),
                                           found + step->node, stream),
                               "a measured decode"));
    }
    return gpu_check(cudaStreamSynchronize(stream), "a measured decode");
}

static luna_err decode(survey *s, gpu_device *device, const gpu_program *program)
{
    float *found = NULL;
    LUNA_TRY(gpu_arena_grow(device, program->arena_bytes));
    LUNA_TRY(bring_latents(s, program));
    LUNA_TRY(gpu_check(cudaMalloc((void **)&found, sizeof s->largest), "a decode"));
    luna_err err = gpu_check(cudaMemset(found, 0, sizeof s->largest), "a decode");
    if (err == LUNA_OK) err = measure(program, found);
    if (err == LUNA_OK)
        err = gpu_check(
            cudaMemcpy(s->largest, found, sizeof s->largest, cudaMemcpyDeviceToHost),
            "a measured decode");
    (void)cudaFree(found);
    return err;
}

luna_err gpu_scale_choose(gpu_device *device, const luna_weights *weights,
                          const luna_graph *graph, int8_t *exponents)
{
    gpu_lane lane = {.device = device, .type = GPU_FP32, .weights = weights};
    gpu_program *program = NULL;
    survey *s = calloc(1, sizeof *s);
    if (!s) return luna_error(LUNA_NO_MEMORY, "no memory for a measured decode");
    s->graph = graph;
    luna_err err = luna_graph_infer(graph, SIDE, SIDE, s->shapes);
    if (err == LUNA_OK)
        err = gpu_program_build(&lane, graph, s->shapes, NULL, false, &program);
    if (err == LUNA_OK) err = decode(s, device, program);
    if (err == LUNA_OK) choose(s, exponents);
    gpu_program_free(program);
    gpu_lane_free(&lane);
    free(s);
    return err;
}
