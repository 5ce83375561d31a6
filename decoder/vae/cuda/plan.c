//  A graph to a program: which operations become one step.
//
//  A convolution takes the addition and the ReLU after it along; a norm the activation;
//  the last convolution the norm and activation before it; a nearest 2 x 2 goes into the
//  weights of the convolution after it. Where there is a fused convolution (emit_fused.c)
//  it takes all of these, and leaves the statistics for the norm that follows.

#include "decoder/vae/cuda/plan.h"

#include <stdlib.h>

//  The node of kind `op` that alone reads node i; 0 when there is none.
static size_t only_reader(const gpu_planner *p, size_t i, luna_op op)
{
    const size_t reader = p->last[i];
    if (p->uses[i] != 1 || reader >= p->graph->count) return 0;
    return gpu_node_at(p, reader)->op == op ? reader : 0;
}

//  The activation that alone reads node i, and its node.
static gpu_act activation_after(const gpu_planner *p, size_t i, size_t *node)
{
    const size_t relu = only_reader(p, i, LUNA_OP_RELU);
    const size_t silu = only_reader(p, i, LUNA_OP_SILU);
    *node = relu ? relu : silu ? silu : i;
    return relu ? GPU_RELU : silu ? GPU_SILU : GPU_LINEAR;
}

//  The other value of an addition, when it is there already.
static const gpu_value *other_value(const gpu_planner *p, size_t i, size_t addition)
{
    const int *input = gpu_node_at(p, addition)->input;
    const size_t other = (size_t)(input[0] == (int)i ? input[1] : input[0]);
    return other < i ? &p->value[other] : NULL;
}

static luna_err place_conv(gpu_planner *p, size_t i)
{
    if (gpu_fuses(p, i, false)) return gpu_emit_fused(p, i);
    gpu_fusion fusion = {.result = i};
    const size_t addition = only_reader(p, i, LUNA_OP_ADD);
    if (addition) fusion.residual = other_value(p, i, addition);
    if (fusion.residual) fusion.result = addition;
    const size_t relu = only_reader(p, fusion.result, LUNA_OP_RELU);
    fusion.relu = relu != 0;
    if (relu) fusion.result = relu;
    if (fusion.residual) p->done[addition] = true;
    p->done[fusion.result] = true;
    return gpu_emit_conv(p, i, &fusion);
}

//  The picture's own convolution after node i, when it alone reads it and is small.
static size_t last_conv_after(const gpu_planner *p, size_t i)
{
    const size_t conv = only_reader(p, i, LUNA_OP_CONV2D);
    if (!conv || conv != p->graph->count - 1) return 0;
    const luna_node *node = gpu_node_at(p, conv);
    return node->kernel == 3 && node->channels <= GPU_LAST_CHANNELS &&
                   p->program->lane->type != GPU_FP32
               ? conv
               : 0;
}

static luna_err place_group_norm(gpu_planner *p, size_t i)
{
    gpu_normed normed;
    size_t result = i;
    const gpu_act act = activation_after(p, i, &result);
    const size_t conv = last_conv_after(p, result);
    LUNA_TRY(gpu_emit_norm(p, i, &normed));
    normed.act = act;
    p->done[result] = true;
    const size_t fused = only_reader(p, result, LUNA_OP_CONV2D);
    if (fused && act == GPU_SILU && gpu_fuses(p, fused, false)) {
        gpu_leave_normed(p, &normed, result, fused);
        return LUNA_OK;
    }
    if (!conv) return gpu_emit_normed(p, &normed, result);
    p->done[conv] = true;
    return gpu_emit_last(p, conv, &normed);
}

static luna_err place_rms_norm(gpu_planner *p, size_t i)
{
    size_t result = i;
    const gpu_act act = activation_after(p, i, &result);
    p->done[result] = true;
    return gpu_emit_rms_norm(p, i, act, result);
}

static luna_err place_upsample(gpu_planner *p, size_t i)
{
    const size_t conv = only_reader(p, i, LUNA_OP_CONV2D);
    if (conv && gpu_fuses(p, conv, true)) {
        p->done[conv] = true;
        return gpu_emit_fused_folded(p, i, conv);
    }
    if (conv && gpu_node_at(p, conv)->kernel == 3 && p->program->lane->type != GPU_FP32) {
        const luna_err err = gpu_emit_folded(p, i, conv);
        if (err == LUNA_OK) p->done[conv] = true;
        if (err != LUNA_UNSUPPORTED) return err;
    }
    return gpu_emit_upsample(p, i);
}

static luna_err place_add(gpu_planner *p, size_t i)
{
    const size_t relu = only_reader(p, i, LUNA_OP_RELU);
    if (relu) p->done[relu] = true;
    return gpu_emit_add(p, i, relu ? GPU_RELU : GPU_LINEAR, relu ? relu : i);
}

//  A last convolution with nothing before it that it could take along.
static luna_err place_last_conv(gpu_planner *p, size_t i)
{
    const gpu_normed plain = {.from = &p->value[gpu_node_at(p, i)->input[0]],
                              .pairs = LUNA_NONE,
                              .act = GPU_LINEAR};
    return gpu_emit_last(p, i, &plain);
}

static bool is_last_conv(const gpu_planner *p, size_t i)
{
    const luna_node *node = gpu_node_at(p, i);
    return node->op == LUNA_OP_CONV2D && i == p->graph->count - 1 && node->kernel == 3 &&
           node->channels <= GPU_LAST_CHANNELS && p->program->lane->type != GPU_FP32 &&
           !p->value[node->input[0]].pending;
}

static luna_err place_node(gpu_planner *p, size_t i)
{
    if (is_last_conv(p, i)) return place_last_conv(p, i);
    switch (gpu_node_at(p, i)->op) {
        case LUNA_OP_INPUT:
            return gpu_emit_input(p);
        case LUNA_OP_CONV2D:
            return place_conv(p, i);
        case LUNA_OP_GROUP_NORM:
            return place_group_norm(p, i);
        case LUNA_OP_RMS_NORM:
            return place_rms_norm(p, i);
        case LUNA_OP_UPSAMPLE:
            return place_upsample(p, i);
        case LUNA_OP_UNPACK:
            return gpu_emit_unpack(p, i);
        case LUNA_OP_ADD:
            return place_add(p, i);
        case LUNA_OP_ATTENTION:
            return gpu_emit_attention(p, i);
        default:
            return gpu_emit_map(p, i);
    }
}

static luna_err place_all(gpu_planner *p)
{
    const size_t count = p->graph->count;
    for (size_t i = 0; i < count; i++)
        if (!p->done[i]) LUNA_TRY(place_node(p, i));
    return gpu_emit_output(p, count - 1);
}

static luna_err bring_constants(gpu_planner *p)
{
    gpu_program *program = p->program;
    const size_t bytes = p->constant_count * sizeof *p->constants;
    if (bytes == 0) return LUNA_OK;
    LUNA_TRY(gpu_check(cudaMalloc((void **)&program->constants, bytes), "a decode"));
    program->constant_bytes = bytes;
    return gpu_check(
        cudaMemcpy(program->constants, p->constants, bytes, cudaMemcpyHostToDevice),
        "bringing constants");
}

static void planner_free(gpu_planner *p)
{
    for (size_t i = 0; p && i < LUNA_GRAPH_MAX; i++) free(p->pending[i]);
    if (p) free(p->constants);
    free(p);
}

luna_err gpu_program_build(gpu_lane *lane, const luna_graph *graph,
                           const luna_shape *shapes, const int8_t *exponents, bool lean,
                           gpu_program **out)
{
    gpu_program *program = calloc(1, sizeof *program);
    gpu_planner *p = calloc(1, sizeof *p);
    luna_err err = program && p
                       ? LUNA_OK
                       : luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    if (err == LUNA_OK && lane->type != GPU_FP32) err = gpu_fuser_choose(lane->device);
    if (err == LUNA_OK) {
        program->lane = lane;
        program->fuser = gpu_fuser_for(lane->device, lane->type, lean);
        p->program = program;
        p->graph = graph;
        p->shapes = shapes;
        p->exponents = exponents;
        p->lean = lean;
        luna_graph_uses(graph, p->last, p->uses);
        err = place_all(p);
    }
    if (err == LUNA_OK) err = bring_constants(p);
    if (err == LUNA_OK)
        err = luna_memory_plan(program->spans, program->buffer_count,
                               &program->arena_bytes);
    planner_free(p);
    if (err != LUNA_OK) gpu_program_free(program);
    if (err == LUNA_OK) *out = program;
    return err;
}

size_t gpu_least_bytes(const luna_graph *graph, const luna_shape *shapes, gpu_type type)
{
    size_t most = 0;
    for (size_t i = 1; i < graph->count; i++) {
        const luna_shape *from = &shapes[graph->node[i].input[0]];
        const size_t both = (shapes[i].count + from->count) * gpu_size(type);
        if (both > most) most = both;
    }
    return most;
}

void gpu_program_free(gpu_program *program)
{
    if (!program) return;
    if (program->graph) (void)cudaGraphExecDestroy(program->graph);
    if (program->constants) (void)cudaFree(program->constants);
    free(program->steps);
    free(program->spans);
    free(program);
}
