//  Convolutions as steps: cuDNN's where it has a plan, else our own.

#include "decoder/vae/cuda/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static gpu_conv_problem problem_of(const gpu_step *step)
{
    gpu_conv_problem problem;
    memset(&problem, 0, sizeof problem);
    problem.from = step->from;
    problem.from.channels = (int)gpu_room((size_t)step->from.channels);
    problem.channels = (int)gpu_room((size_t)step->to.channels);
    problem.kernel = step->kernel;
    problem.bias = step->bias != LUNA_NONE;
    problem.residual = step->z != LUNA_NONE;
    problem.relu = step->act == GPU_RELU;
    return problem;
}

//  What a convolution makes of a pending bias: for a kernel of 1 a bias of its own, the
//  weights times it. (A larger kernel sees zeros around the picture, not the bias.)
static luna_err through_weights(const gpu_planner *p, const luna_node *node,
                                const gpu_value *from, int exponent, float *out)
{
    float *weight = NULL;
    const size_t in = (size_t)from->extent.channels;
    LUNA_TRY(luna_backend_floats(&gpu_lane_of(p)->weights->item[node->weight], &weight));
    for (size_t o = 0; o < node->channels; o++) {
        double sum = 0.0;
        for (size_t i = 0; i < in; i++)
            sum += (double)weight[o * in + i] * from->pending[i];
        out[o] += ldexpf((float)sum, exponent);
    }
    free(weight);
    return LUNA_OK;
}

//  The bias of a convolution with all that is pending on its input and its residual.
luna_err gpu_plan_conv_bias(gpu_planner *p, size_t i, const gpu_fusion *fusion, int from,
                            int to, long *at)
{
    const luna_node *node = gpu_node_at(p, i);
    const gpu_value *input = gpu_input_of(p, i), *residual = fusion->residual;
    const float *more = residual ? residual->pending : NULL;
    if (!input->pending)
        return gpu_plan_vector(p, node->bias, node->channels, to, more, at);
    float *sum = calloc(node->channels, sizeof *sum);
    if (!sum) return gpu_plan_no_memory();
    for (size_t c = 0; more && c < node->channels; c++) sum[c] = more[c];
    luna_err err = through_weights(p, node, input, to - from, sum);
    if (err == LUNA_OK) err = gpu_plan_vector(p, node->bias, node->channels, to, sum, at);
    free(sum);
    return err;
}

//  Whether the kernel for tiny decoders does it.
static bool is_narrow(const gpu_planner *p, const gpu_step *step)
{
    return p->program->fuser == GPU_FUSER_WGMMA && step->kernel >= 3 &&
           step->from.channels == GPU_NARROW_CHANNELS &&
           step->to.channels == GPU_NARROW_CHANNELS;
}

//  cuDNN's plan; without one our own kernel.
static luna_err choose_library(gpu_planner *p, gpu_step *step)
{
    gpu_conv_problem problem = problem_of(step);
    luna_err err = LUNA_UNSUPPORTED;
    step->kind = GPU_STEP_CONV_PLAIN;
    if (gpu_lane_of(p)->type != GPU_FP32) {
        err = gpu_conv_find(gpu_lane_of(p)->device, &problem, &step->conv);
        if (err == LUNA_UNSUPPORTED) {
            //  Cards before Ampere have no epilogues; ours follow the bare convolution.
            problem.bias = problem.residual = problem.relu = false;
            err = gpu_conv_find(gpu_lane_of(p)->device, &problem, &step->conv);
            step->bare = err == LUNA_OK;
        }
    }
    if (err == LUNA_OK) step->kind = GPU_STEP_CONV;
    return err == LUNA_UNSUPPORTED ? LUNA_OK : err;
}

static luna_err choose_conv(gpu_planner *p, const luna_node *node, int exponent,
                            gpu_step *step)
{
    const bool narrow = is_narrow(p, step);
    LUNA_TRY(gpu_lane_weight(gpu_lane_of(p), node, (size_t)step->from.channels,
                             narrow ? GPU_FORM_NARROW : GPU_FORM_CONV, exponent,
                             &step->weight));
    if (!narrow) return choose_library(p, step);
    step->kind = GPU_STEP_CONV_NARROW;
    return LUNA_OK;
}

luna_err gpu_emit_conv(gpu_planner *p, size_t i, const gpu_fusion *fusion)
{
    const luna_node *node = gpu_node_at(p, i);
    if (node->kernel != 1) LUNA_TRY(gpu_plan_settle_input(p, i));
    const gpu_value *from = gpu_input_of(p, i);
    const int e_from = gpu_exponent(p, (size_t)node->input[0]);
    const int e_to = gpu_exponent(p, fusion->result);
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV, fusion->result);
    gpu_value to;
    LUNA_TRY(gpu_plan_value(p, fusion->result, &to));
    step.from = from->extent;
    step.x = from->buffer;
    step.y = to.buffer;
    step.z = fusion->residual ? fusion->residual->buffer : LUNA_NONE;
    step.act = fusion->relu ? GPU_RELU : GPU_LINEAR;
    step.kernel = (int)node->kernel;
    LUNA_TRY(gpu_plan_conv_bias(p, i, fusion, e_from, e_to, &step.bias));
    LUNA_TRY(choose_conv(p, node, e_to - e_from, &step));
    p->value[fusion->result] = to;
    return gpu_plan_append(p, &step);
}

//  The bias of a folded convolution is left pending: the library adds none to it.
static luna_err leave_pending(gpu_planner *p, size_t conv, gpu_value *value)
{
    const luna_node *node = gpu_node_at(p, conv);
    if (node->bias == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(luna_backend_floats(&gpu_lane_of(p)->weights->item[node->bias],
                                 &p->pending[conv]));
    for (size_t c = 0; c < node->channels; c++)
        p->pending[conv][c] = ldexpf(p->pending[conv][c], gpu_exponent(p, conv));
    value->pending = p->pending[conv];
    return LUNA_OK;
}

static luna_err choose_folded(gpu_planner *p, size_t conv, int exponent, gpu_step *step)
{
    const luna_node *node = gpu_node_at(p, conv);
    const bool narrow = is_narrow(p, step);
    gpu_conv_problem problem = problem_of(step);
    problem.folded = true;
    step->kind = narrow ? GPU_STEP_CONV_NARROW : GPU_STEP_CONV;
    if (narrow)
        LUNA_TRY(gpu_plan_vector(p, node->bias, node->channels, gpu_exponent(p, conv),
                                 NULL, &step->bias));
    else
        LUNA_TRY(gpu_conv_find(gpu_lane_of(p)->device, &problem, &step->conv));
    return gpu_lane_weight(gpu_lane_of(p), node, (size_t)step->from.channels,
                           narrow ? GPU_FORM_NARROW_FOLDED : GPU_FORM_FOLDED, exponent,
                           &step->weight);
}

luna_err gpu_emit_folded(gpu_planner *p, size_t upsample, size_t conv)
{
    const size_t input = (size_t)gpu_node_at(p, upsample)->input[0];
    LUNA_TRY(gpu_plan_settle(p, (size_t)input));
    const gpu_value *from = &p->value[input];
    const int exponent = gpu_exponent(p, conv) - gpu_exponent(p, input);
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV, conv);
    gpu_value to;
    step.from = from->extent;
    step.kernel = 4;
    LUNA_TRY(choose_folded(p, conv, exponent, &step));
    LUNA_TRY(gpu_plan_value(p, conv, &to));
    step.x = from->buffer;
    step.y = to.buffer;
    if (step.kind == GPU_STEP_CONV) LUNA_TRY(leave_pending(p, conv, &to));
    p->value[conv] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_last(gpu_planner *p, size_t conv, const gpu_normed *normed)
{
    const luna_node *node = gpu_node_at(p, conv);
    const size_t input = (size_t)node->input[0];
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV_LAST, conv);
    step.from = normed->from->extent;
    step.x = normed->from->buffer;
    step.y = GPU_OUTPUT;
    step.pairs = normed->pairs;
    step.act = normed->act;
    LUNA_TRY(gpu_plan_vector(p, node->bias, node->channels, 0, NULL, &step.bias));
    LUNA_TRY(gpu_lane_weight(gpu_lane_of(p), node, (size_t)step.from.channels,
                             GPU_FORM_LAST, -gpu_exponent(p, input), &step.weight));
    p->value[conv] = (gpu_value){.buffer = GPU_OUTPUT,
                                 .extent = gpu_extent_of(p, conv),
                                 .pairs = LUNA_NONE,
                                 .parts = LUNA_NONE};
    return gpu_plan_append(p, &step);
}
