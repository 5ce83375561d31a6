//  The plain C backend: every node by itself, planar float, nothing fused.

#include "decoder/vae/attention.h"
#include "decoder/vae/backend.h"
#include "decoder/vae/conv_plain.h"
#include "decoder/vae/elementwise.h"
#include "decoder/vae/group_norm.h"
#include "decoder/vae/memory_plan.h"

#include <stdlib.h>
#include <string.h>

//  Weights are made when a plan first needs them and kept.
typedef struct state {
    const luna_weights *weights;
    void (*step)(void *context);  //  as in luna_vae_options
    void *step_context;
    float *values[LUNA_GRAPH_MAX];  //  convolutions' packed, others plain; NULL: not yet
    size_t weight_bytes;
} state;

struct luna_plan {
    const luna_graph *graph;
    luna_shape shapes[LUNA_GRAPH_MAX];
    luna_span spans[2 * LUNA_GRAPH_MAX];  //  result of node i, then its scratch
    size_t arena_bytes;
};

static const char *describe(void)
{
    return "plain C";
}

static luna_err precision(luna_vae_precision wanted, luna_vae_precision *out)
{
    *out = LUNA_VAE_PRECISION_FP32;
    if (wanted == LUNA_VAE_PRECISION_AUTO || wanted == *out) return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED, "the CPU decodes in fp32 only, not in %s",
                      luna_vae_precision_name(wanted));
}

static luna_err open_state(const luna_backend_options *options, void **out)
{
    state *s = calloc(1, sizeof *s);
    if (!s) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder");
    s->weights = options->weights;
    s->step = options->step;
    s->step_context = options->step_context;
    *out = s;
    return LUNA_OK;
}

static void close_state(void *opaque)
{
    state *s = opaque;
    for (size_t i = 0; i < LUNA_GRAPH_MAX; i++) free(s->values[i]);
    free(s);
}

//  A multiple of the alignment, as aligned_alloc asks.
static float *allocate(size_t count)
{
    const size_t align = LUNA_MEMORY_ALIGN;
    if (count > SIZE_MAX / sizeof(float) - align) return NULL;
    return aligned_alloc(align, (count * sizeof(float) + align) / align * align);
}

static luna_err pack(const luna_node *node, size_t from_channels, float **values,
                     size_t *count)
{
    *count = luna_conv_packed_count(node->channels, from_channels, node->kernel);
    float *packed = allocate(*count);
    if (!packed) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's weights");
    luna_conv_pack(*values, node->channels, from_channels, node->kernel, packed);
    free(*values);
    *values = packed;
    return LUNA_OK;
}

static luna_err load(state *s, const luna_graph *graph, const luna_node *node, int weight)
{
    if (weight == LUNA_NONE || s->values[weight]) return LUNA_OK;
    size_t count = s->weights->item[weight].count;
    float *values = NULL;
    LUNA_TRY(luna_backend_floats(&s->weights->item[weight], &values));
    if (node->op == LUNA_OP_CONV2D && weight == node->weight) {
        const luna_err err =
            pack(node, graph->node[node->input[0]].channels, &values, &count);
        if (err != LUNA_OK) free(values);
        LUNA_TRY(err);
    }
    s->values[weight] = values;
    s->weight_bytes += count * sizeof *values;
    return LUNA_OK;
}

static luna_err load_all(state *s, const luna_graph *graph)
{
    for (size_t i = 0; i < graph->count; i++) {
        LUNA_TRY(load(s, graph, &graph->node[i], graph->node[i].weight));
        LUNA_TRY(load(s, graph, &graph->node[i], graph->node[i].bias));
    }
    return LUNA_OK;
}

//  Floats of working memory beside input and output.
static size_t scratch_count(const luna_plan *plan, const luna_node *node)
{
    if (node->op == LUNA_OP_INPUT) return 0;
    const luna_shape *from = &plan->shapes[node->input[0]];
    if (node->op == LUNA_OP_CONV2D) return luna_conv_scratch_count(from, node->kernel);
    return node->op == LUNA_OP_ATTENTION ? from->height * from->width : 0;
}

static luna_err plan_memory(luna_plan *plan)
{
    size_t last[LUNA_GRAPH_MAX], uses[LUNA_GRAPH_MAX];
    const luna_graph *graph = plan->graph;
    luna_graph_uses(graph, last, uses);
    for (size_t i = 0; i < graph->count; i++) {
        const luna_node *node = &graph->node[i];
        const size_t scratch = scratch_count(plan, node);
        plan->spans[2 * i] = (luna_span){
            .bytes = plan->shapes[i].count * sizeof(float), .first = i, .last = last[i]};
        plan->spans[2 * i + 1] =
            (luna_span){.bytes = scratch * sizeof(float), .first = i, .last = i};
    }
    return luna_memory_plan(plan->spans, 2 * graph->count, &plan->arena_bytes);
}

static luna_err compile(void *opaque, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost)
{
    state *s = opaque;
    luna_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    plan->graph = request->graph;
    memcpy(plan->shapes, request->shapes, request->graph->count * sizeof plan->shapes[0]);
    luna_err err = plan_memory(plan);
    if (err == LUNA_OK) err = luna_backend_over_limit(request, plan->arena_bytes);
    if (err == LUNA_OK) err = load_all(s, request->graph);
    cost->steps = request->graph->count - 1;
    cost->weight_bytes = s->weight_bytes;
    cost->peak_bytes = s->weight_bytes + plan->arena_bytes;
    if (err == LUNA_OK) err = luna_backend_over_limit(request, cost->peak_bytes);
    if (err != LUNA_OK) free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

static void add(const float *x, const float *y, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) out[i] = x[i] + y[i];
}

static float *span_of(const luna_plan *plan, float *arena, size_t span)
{
    return arena + plan->spans[span].offset / sizeof *arena;
}

static void run_conv(const state *s, const luna_plan *plan, size_t i, float *arena)
{
    const luna_node *node = &plan->graph->node[i];
    const size_t from = (size_t)node->input[0];
    const luna_conv conv = {
        .from = plan->shapes[from],
        .channels = node->channels,
        .kernel = node->kernel,
        .weight = s->values[node->weight],
        .bias = node->bias == LUNA_NONE ? NULL : s->values[node->bias]};
    luna_conv_run(&conv, span_of(plan, arena, 2 * from), span_of(plan, arena, 2 * i + 1),
                  span_of(plan, arena, 2 * i));
}

static void run_group_norm(const state *s, const luna_plan *plan, size_t i, float *arena)
{
    const luna_node *node = &plan->graph->node[i];
    const luna_group_norm norm = {
        .channels = node->channels,
        .groups = node->groups,
        .pixels = plan->shapes[i].height * plan->shapes[i].width,
        .block = 1,
        .epsilon = node->epsilon,
        .weight = s->values[node->weight],
        .bias = s->values[node->bias]};
    luna_group_norm_run(&norm, span_of(plan, arena, 2 * (size_t)node->input[0]),
                        span_of(plan, arena, 2 * i));
}

static void run_attention(const luna_plan *plan, size_t i, float *arena)
{
    const int *input = plan->graph->node[i].input;
    const luna_attention attention = {
        .channels = plan->shapes[i].channels,
        .pixels = plan->shapes[i].height * plan->shapes[i].width,
        .q = span_of(plan, arena, 2 * (size_t)input[0]),
        .k = span_of(plan, arena, 2 * (size_t)input[1]),
        .v = span_of(plan, arena, 2 * (size_t)input[2])};
    luna_attention_run(&attention, span_of(plan, arena, 2 * i + 1),
                       span_of(plan, arena, 2 * i));
}

static void run_node(const state *s, const luna_plan *plan, size_t i, float *arena)
{
    const luna_node *node = &plan->graph->node[i];
    const luna_shape *shape = &plan->shapes[i];
    const float *x = span_of(plan, arena, 2 * (size_t)node->input[0]);
    float *out = span_of(plan, arena, 2 * i);
    switch (node->op) {
        case LUNA_OP_CONV2D:
            run_conv(s, plan, i, arena);
            break;
        case LUNA_OP_GROUP_NORM:
            run_group_norm(s, plan, i, arena);
            break;
        case LUNA_OP_ATTENTION:
            run_attention(plan, i, arena);
            break;
        case LUNA_OP_RMS_NORM:
            luna_rms_norm_run(shape, node->epsilon, s->values[node->weight], x, out);
            break;
        case LUNA_OP_BATCH_NORM_INVERSE:
            luna_batch_norm_inverse_run(shape, node->epsilon, s->values[node->weight],
                                        s->values[node->bias], x, out);
            break;
        case LUNA_OP_UPSAMPLE:
            luna_upsample_run(shape, x, out);
            break;
        case LUNA_OP_UNPACK:
            luna_unpack_run(shape, x, out);
            break;
        case LUNA_OP_ADD:
            add(x, span_of(plan, arena, 2 * (size_t)node->input[1]), shape->count, out);
            break;
        default:
            luna_elementwise_run(node, x, shape->count, out);
            break;
    }
}

static luna_err run(void *opaque, luna_plan *plan, const float *input, float *output)
{
    const luna_graph *graph = plan->graph;
    const state *s = opaque;
    float *arena = allocate(plan->arena_bytes / sizeof *arena);
    if (!arena)
        return luna_error(LUNA_NO_MEMORY, "no memory for a decode of %zu bytes",
                          plan->arena_bytes);
    memcpy(span_of(plan, arena, 0), input, plan->shapes[0].count * sizeof *input);
    for (size_t i = 1; i < graph->count; i++) {
        run_node(opaque, plan, i, arena);
        if (s->step) s->step(s->step_context);
    }
    memcpy(output, span_of(plan, arena, 2 * (graph->count - 1)),
           plan->shapes[graph->count - 1].count * sizeof *output);
    free(arena);
    return LUNA_OK;
}

static void free_plan(void *opaque, luna_plan *plan)
{
    (void)opaque;
    free(plan);
}

static void trim(void *opaque)
{
    (void)opaque;  //  working memory lives during a run only
}

const luna_backend luna_backend_reference = {.device = "reference",
                                             .describe = describe,
                                             .precision = precision,
                                             .open = open_state,
                                             .close = close_state,
                                             .compile = compile,
                                             .run = run,
                                             .free_plan = free_plan,
                                             .trim = trim};
