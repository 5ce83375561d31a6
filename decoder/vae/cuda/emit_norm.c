//  Norms as steps.

#include "decoder/vae/cuda/plan.h"

#include <math.h>

//  Where the value's own maker has left what the norm needs.
static bool has_parts(const gpu_value *from, const luna_node *node)
{
    return from->parts != LUNA_NONE &&
           node->channels / node->groups % GPU_PART_CHANNELS == 0;
}

//  The norm reads the value, or the parts that are there already.
static luna_err norm_source(gpu_planner *p, const gpu_value *from, gpu_step *step)
{
    const gpu_norm norm = {.from = step->from, .groups = step->groups};
    if (has_parts(from, gpu_node_at(p, step->node))) {
        step->parts = from->parts;
        step->parts_of = from->parts_of;
        return LUNA_OK;
    }
    step->x = from->buffer;
    return gpu_plan_buffer(p->program, gpu_norm_scratch(&norm), &step->scratch);
}

luna_err gpu_emit_norm(gpu_planner *p, size_t i, gpu_normed *out)
{
    const luna_node *node = gpu_node_at(p, i);
    const gpu_value *from = gpu_input_of(p, i);
    const int exponent = gpu_exponent(p, (size_t)node->input[0]);
    gpu_step step = gpu_plan_step(p, GPU_STEP_NORM, i);
    step.from = from->extent;
    step.groups = (int)node->groups;
    //  The statistics of a value times 2^e are those of the value times 2^e, 4^e.
    step.epsilon = ldexpf(node->epsilon, 2 * exponent);
    LUNA_TRY(
        gpu_plan_vector(p, node->weight, node->channels, 0, NULL, &step.norm_weight));
    LUNA_TRY(gpu_plan_vector(p, node->bias, node->channels, 0, NULL, &step.bias));
    LUNA_TRY(
        gpu_plan_vector(p, LUNA_NONE, node->channels, 0, from->pending, &step.offset));
    LUNA_TRY(norm_source(p, from, &step));
    LUNA_TRY(gpu_plan_buffer(p->program, gpu_room(node->channels) * sizeof(gpu_pair),
                             &step.pairs));
    *out = (gpu_normed){.node = i, .from = from, .pairs = step.pairs};
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_normed(gpu_planner *p, const gpu_normed *normed, size_t result)
{
    const size_t value = (size_t)(normed->from - p->value);
    gpu_step step = gpu_plan_step(p, GPU_STEP_APPLY, result);
    gpu_value to;
    LUNA_TRY(gpu_plan_result(p, value, normed->node, result, &to));
    step.x = normed->from->buffer;
    step.y = to.buffer;
    step.pairs = normed->pairs;
    step.act = normed->act;
    p->value[result] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_rms_norm(gpu_planner *p, size_t i, gpu_act act, size_t result)
{
    const luna_node *node = gpu_node_at(p, i);
    LUNA_TRY(gpu_plan_settle_input(p, i));
    const gpu_value *from = gpu_input_of(p, i);
    gpu_step step = gpu_plan_step(p, GPU_STEP_RMS_NORM, result);
    gpu_value to;
    LUNA_TRY(gpu_plan_result(p, (size_t)node->input[0], i, result, &to));
    step.x = from->buffer;
    step.y = to.buffer;
    step.act = act;
    step.epsilon = ldexpf(node->epsilon, gpu_exponent(p, (size_t)node->input[0]));
    LUNA_TRY(
        gpu_plan_vector(p, node->weight, node->channels, 0, NULL, &step.norm_weight));
    p->value[result] = to;
    return gpu_plan_append(p, &step);
}
