//  Steps that move and map values: into and out of the device's layout, norms' second
//  halves, activations, additions.

#include "decoder/vae/cuda/plan.h"

#include <math.h>

//  ---- layout -----------------------------------------------------------------------

luna_err gpu_emit_input(gpu_planner *p)
{
    int input = LUNA_NONE, output = LUNA_NONE;
    const luna_shape *last = &p->shapes[p->graph->count - 1];
    gpu_step step = gpu_plan_step(p, GPU_STEP_FROM_PLANES, 0);
    LUNA_TRY(gpu_plan_buffer(p->program, p->shapes[0].count * sizeof(float), &input));
    LUNA_TRY(gpu_plan_buffer(p->program, last->count * sizeof(float), &output));
    LUNA_TRY(gpu_plan_value(p, 0, &p->value[0]));
    step.x = GPU_INPUT;
    step.y = p->value[0].buffer;
    return gpu_plan_append(p, &step);
}

//  The picture must outlast the steps: it is fetched after them.
luna_err gpu_emit_output(gpu_planner *p, size_t node)
{
    gpu_program *program = p->program;
    if (p->value[node].buffer != GPU_OUTPUT) {
        gpu_step step = gpu_plan_step(p, GPU_STEP_TO_PLANES, node);
        step.x = p->value[node].buffer;
        step.y = GPU_OUTPUT;
        LUNA_TRY(gpu_plan_append(p, &step));
    }
    program->spans[GPU_OUTPUT].first = program->step_count - 1;
    program->spans[GPU_OUTPUT].last = program->step_count;
    return LUNA_OK;
}

static luna_err emit_move(gpu_planner *p, gpu_kind kind, size_t node)
{
    const gpu_value *from = gpu_input_of(p, node);
    gpu_step step = gpu_plan_step(p, kind, node);
    gpu_value to;
    LUNA_TRY(gpu_plan_value(p, node, &to));
    to.pending = from->pending;
    step.from = from->extent;
    step.x = from->buffer;
    step.y = to.buffer;
    p->value[node] = to;
    return gpu_plan_append(p, &step);
}

//  A pending bias stays one: every pixel of a channel has the same.
luna_err gpu_emit_upsample(gpu_planner *p, size_t node)
{
    return emit_move(p, GPU_STEP_UPSAMPLE, node);
}

luna_err gpu_emit_unpack(gpu_planner *p, size_t node)
{
    LUNA_TRY(gpu_plan_settle_input(p, node));
    return emit_move(p, GPU_STEP_UNPACK, node);
}

//  ---- maps -------------------------------------------------------------------------

static gpu_pair pair_of(const luna_node *node, float weight, float bias)
{
    switch (node->op) {
        case LUNA_OP_AFFINE:
            return (gpu_pair){node->scale, -node->shift * node->scale};
        case LUNA_OP_TANH_CLAMP:
            return (gpu_pair){1.0F / node->scale, node->scale};
        default:  //  BATCH_NORM_INVERSE
            return (gpu_pair){sqrtf(weight + node->epsilon), bias};
    }
}

static luna_err new_pairs(gpu_planner *p, const luna_node *node, long *at)
{
    long weight_at = LUNA_NONE, bias_at = LUNA_NONE;
    float *out = NULL;
    LUNA_TRY(gpu_plan_vector(p, node->weight, node->channels, 0, NULL, &weight_at));
    LUNA_TRY(gpu_plan_vector(p, node->bias, node->channels, 0, NULL, &bias_at));
    LUNA_TRY(gpu_plan_constants(p, 2 * gpu_room(node->channels), at, &out));
    for (size_t c = 0; c < node->channels; c++) {
        const float weight =
            weight_at == LUNA_NONE ? 0.0F : p->constants[weight_at + (long)c];
        const float bias = bias_at == LUNA_NONE ? 0.0F : p->constants[bias_at + (long)c];
        const gpu_pair pair = pair_of(node, weight, bias);
        out[2 * c] = pair.scale;
        out[2 * c + 1] = pair.offset;
    }
    return LUNA_OK;
}

static gpu_act act_of(luna_op op)
{
    if (op == LUNA_OP_RELU) return GPU_RELU;
    if (op == LUNA_OP_SILU) return GPU_SILU;
    return op == LUNA_OP_TANH_CLAMP ? GPU_TANH : GPU_LINEAR;
}

luna_err gpu_emit_map(gpu_planner *p, size_t i)
{
    const luna_node *node = gpu_node_at(p, i);
    LUNA_TRY(gpu_plan_settle_input(p, i));
    gpu_step step = gpu_plan_step(p, GPU_STEP_APPLY, i);
    gpu_value to;
    LUNA_TRY(gpu_plan_result(p, (size_t)node->input[0], i, i, &to));
    step.x = gpu_input_of(p, i)->buffer;
    step.y = to.buffer;
    step.act = act_of(node->op);
    if (node->op != LUNA_OP_RELU && node->op != LUNA_OP_SILU)
        LUNA_TRY(new_pairs(p, node, &step.offset));
    p->value[i] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_add(gpu_planner *p, size_t i, gpu_act act, size_t result)
{
    const luna_node *node = gpu_node_at(p, i);
    LUNA_TRY(gpu_plan_settle(p, (size_t)node->input[0]));
    LUNA_TRY(gpu_plan_settle(p, (size_t)node->input[1]));
    gpu_step step = gpu_plan_step(p, GPU_STEP_ADD, result);
    gpu_value to;
    LUNA_TRY(gpu_plan_result(p, (size_t)node->input[0], i, result, &to));
    step.x = p->value[node->input[0]].buffer;
    step.z = p->value[node->input[1]].buffer;
    step.y = to.buffer;
    step.act = act;
    p->value[result] = to;
    return gpu_plan_append(p, &step);
}
