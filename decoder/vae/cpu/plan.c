#include "decoder/vae/cpu/onednn.h"

#include <stdlib.h>

typedef struct planner {
    cpu_maker maker;
    cpu_value value[LUNA_GRAPH_MAX];
    size_t last[LUNA_GRAPH_MAX];
    size_t uses[LUNA_GRAPH_MAX];
    bool done[LUNA_GRAPH_MAX];  //  made already, inside an earlier convolution
} planner;

static const luna_node *node_at(const planner *p, size_t i)
{
    return &p->maker.graph->node[i];
}

//  The node of kind `op` that alone reads node i; 0 when there is none.
static size_t only_reader(const planner *p, size_t i, luna_op op)
{
    const size_t reader = p->last[i];
    if (p->uses[i] != 1 || reader >= p->maker.graph->count) return 0;
    return node_at(p, reader)->op == op ? reader : 0;
}

//  Whether the convolution `conv` may write its sum with node `other` over it: nothing
//  reads it from then on but the addition itself, nor is it what the convolution reads.
static bool may_overwrite(const planner *p, size_t conv, size_t other, size_t addition)
{
    const int buffer = p->value[other].buffer;
    if (buffer == CPU_INPUT || p->last[other] != addition) return false;
    if (p->value[node_at(p, conv)->input[0]].buffer == buffer) return false;
    for (size_t i = conv + 1; i < addition; i++)
        for (int k = 0; k < LUNA_INPUTS; k++)
            if (node_at(p, i)->input[k] == (int)other) return false;
    return true;
}

//  Sets *fusion for the addition `addition` of convolution i; false when the other value
//  is not there yet or is the convolution itself.
static bool fuse_add(const planner *p, size_t i, size_t addition, cpu_fusion *fusion)
{
    const int *input = node_at(p, addition)->input;
    const size_t other = (size_t)(input[0] == (int)i ? input[1] : input[0]);
    if (other >= i) return false;
    fusion->residual = &p->value[other];
    fusion->overwrite = may_overwrite(p, i, other, addition);
    return true;
}

//  A convolution with the addition and the ReLU after it, where there are such.
static luna_err place_conv(planner *p, size_t i)
{
    cpu_fusion fusion = {0};
    size_t result = i;
    const size_t addition = only_reader(p, i, LUNA_OP_ADD);
    if (addition && fuse_add(p, i, addition, &fusion)) {
        p->done[addition] = true;
        result = addition;
    }
    const size_t relu = only_reader(p, result, LUNA_OP_RELU);
    if (relu) {
        fusion.relu = true;
        p->done[relu] = true;
        result = relu;
    }
    const cpu_value *from = &p->value[node_at(p, i)->input[0]];
    return cpu_emit_conv(&p->maker, i, from, &fusion, &p->value[result]);
}

static luna_err place_input(planner *p)
{
    p->value[0] =
        (cpu_value){.layout = cpu_planar(&p->maker.shapes[0]), .buffer = CPU_INPUT};
    return LUNA_OK;
}

static luna_err place_attention(planner *p, size_t i)
{
    const int *input = node_at(p, i)->input;
    const cpu_value *const from[LUNA_INPUTS] = {&p->value[input[0]], &p->value[input[1]],
                                                &p->value[input[2]]};
    return cpu_emit_attention(&p->maker, i, from, &p->value[i]);
}

static luna_err place_node(planner *p, size_t i)
{
    const luna_node *node = node_at(p, i);
    if (node->op == LUNA_OP_INPUT) return place_input(p);
    const cpu_value *from = &p->value[node->input[0]];
    switch (node->op) {
        case LUNA_OP_CONV2D:
            return place_conv(p, i);
        case LUNA_OP_RELU:
        case LUNA_OP_SILU:
            return cpu_emit_eltwise(&p->maker, i, from, &p->value[i]);
        case LUNA_OP_UPSAMPLE:
            return cpu_emit_upsample(&p->maker, i, from, &p->value[i]);
        case LUNA_OP_ADD:
            return cpu_emit_add(&p->maker, from, &p->value[node->input[1]], &p->value[i]);
        case LUNA_OP_ATTENTION:
            return place_attention(p, i);
        default:
            return cpu_emit_own(&p->maker, i, from, &p->value[i]);
    }
}

static luna_err place_all(planner *p)
{
    const size_t count = p->maker.graph->count;
    const dnnl_memory_desc_t input = cpu_planar(&p->maker.shapes[0]);
    const cpu_value output = {.layout = cpu_planar(&p->maker.shapes[count - 1]),
                              .buffer = CPU_OUTPUT};
    if (cpu_buffer(p->maker.plan, &input) != CPU_INPUT ||
        cpu_buffer(p->maker.plan, &output.layout) != CPU_OUTPUT)
        return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    for (size_t i = 0; i < count; i++)
        if (!p->done[i]) LUNA_TRY(place_node(p, i));
    return cpu_emit_reorder(&p->maker, &p->value[count - 1], &output);
}

//  Input and output are the caller's memory and take none of the arena.
static luna_err place_buffers(luna_plan *plan)
{
    plan->spans[CPU_INPUT].bytes = 0;
    plan->spans[CPU_OUTPUT].bytes = 0;
    return luna_memory_plan(plan->spans, plan->buffer_count, &plan->arena_bytes);
}

luna_err cpu_plan_build(cpu_state *s, const luna_plan_request *request, luna_plan **out)
{
    luna_plan *plan = calloc(1, sizeof *plan);
    planner *p = calloc(1, sizeof *p);
    luna_err err = plan && p
                       ? LUNA_OK
                       : luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    if (err == LUNA_OK) {
        p->maker = (cpu_maker){
            .state = s, .plan = plan, .graph = request->graph, .shapes = request->shapes};
        luna_graph_uses(request->graph, p->last, p->uses);
        err = place_all(p);
    }
    if (err == LUNA_OK) err = place_buffers(plan);
    free(p);
    if (err != LUNA_OK) cpu_plan_free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

void cpu_plan_free(luna_plan *plan)
{
    if (!plan) return;
    for (size_t i = 0; i < plan->step_count; i++) {
        cpu_step *step = &plan->steps[i];
        if (step->primitive) dnnl_primitive_destroy(step->primitive);
        for (int k = 0; k < step->arg_count; k++)
            if (step->arg[k].memory) dnnl_memory_destroy(step->arg[k].memory);
    }
    free(plan->steps);
    free(plan->spans);
    free(plan);
}
