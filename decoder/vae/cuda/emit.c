//  Appending steps to a program: buffers, constants, weights.

#include "decoder/vae/cuda/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const luna_node *node_at(const gpu_planner *p, size_t i)
{
    return &p->graph->node[i];
}

static gpu_lane *lane_of(const gpu_planner *p)
{
    return p->program->lane;
}

static const gpu_value *input_of(const gpu_planner *p, size_t node)
{
    return &p->value[p->graph->node[node].input[0]];
}

static gpu_extent extent_of(const gpu_planner *p, size_t node)
{
    const luna_shape *s = &p->shapes[node];
    return (gpu_extent){.type = lane_of(p)->type,
                        .channels = (int)s->channels,
                        .height = (int)s->height,
                        .width = (int)s->width};
}

//  ---- buffers ----------------------------------------------------------------------

static luna_err no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
}

//  A new buffer, alive from the next step on.
luna_err gpu_plan_buffer(gpu_program *program, size_t bytes, int *out)
{
    if (program->buffer_count == program->buffer_room) {
        const size_t room = 2 * program->buffer_room + 32;
        luna_span *larger = realloc(program->spans, room * sizeof *larger);
        if (!larger) return no_memory();
        program->spans = larger;
        program->buffer_room = room;
    }
    const size_t now = program->step_count;
    program->spans[program->buffer_count] =
        (luna_span){.bytes = bytes, .first = now, .last = now};
    *out = (int)program->buffer_count++;
    return LUNA_OK;
}

void gpu_plan_shrink(gpu_program *program, int buffer, size_t bytes)
{
    program->spans[buffer].shrinks = program->step_count;
    program->spans[buffer].later_bytes = bytes;
}

static void touch(gpu_program *program, int buffer)
{
    if (buffer != LUNA_NONE) program->spans[buffer].last = program->step_count;
}

gpu_step gpu_plan_step(const gpu_planner *p, gpu_kind kind, size_t node)
{
    return (gpu_step){.kind = kind,
                      .node = node,
                      .to = extent_of(p, node),
                      .x = LUNA_NONE,
                      .y = LUNA_NONE,
                      .z = LUNA_NONE,
                      .v = LUNA_NONE,
                      .scratch = LUNA_NONE,
                      .pairs = LUNA_NONE,
                      .parts = LUNA_NONE,
                      .bias = LUNA_NONE,
                      .offset = LUNA_NONE,
                      .norm_weight = LUNA_NONE};
}

luna_err gpu_plan_append(gpu_planner *p, const gpu_step *step)
{
    gpu_program *program = p->program;
    const int buffers[] = {step->x,       step->y,     step->z,    step->v,
                           step->scratch, step->pairs, step->parts};
    if (program->step_count == program->step_room) {
        const size_t room = 2 * program->step_room + 32;
        gpu_step *larger = realloc(program->steps, room * sizeof *larger);
        if (!larger) return no_memory();
        program->steps = larger;
        program->step_room = room;
    }
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        touch(program, buffers[i]);
    program->steps[program->step_count++] = *step;
    return LUNA_OK;
}

//  A buffer for the value of `node`.
luna_err gpu_plan_value(gpu_planner *p, size_t node, gpu_value *out)
{
    *out =
        (gpu_value){.extent = extent_of(p, node), .pairs = LUNA_NONE, .parts = LUNA_NONE};
    return gpu_plan_buffer(p->program, gpu_bytes(&out->extent), &out->buffer);
}

//  Whether a step may write over its input: nothing reads that value after node `reader`,
//  and the result is as large.
static bool may_overwrite(const gpu_planner *p, size_t value, size_t reader)
{
    return p->last[value] <= reader && p->value[value].buffer > GPU_OUTPUT;
}

//  ---- constants --------------------------------------------------------------------

//  Room for `count` floats of 0; *out stays valid until the next call.
static luna_err new_constants(gpu_planner *p, size_t count, long *at, float **out)
{
    const size_t room = gpu_room(count);
    if (p->constant_count + room > p->constant_room) {
        const size_t wanted = 2 * (p->constant_count + room);
        float *larger = realloc(p->constants, wanted * sizeof *larger);
        if (!larger) return no_memory();
        p->constants = larger;
        p->constant_room = wanted;
    }
    *at = (long)p->constant_count;
    *out = p->constants + p->constant_count;
    memset(*out, 0, room * sizeof **out);
    p->constant_count += room;
    return LUNA_OK;
}

//  A vector of the model, times 2^exponent, plus `more` when there is one.
luna_err gpu_plan_vector(gpu_planner *p, int number, size_t channels, int exponent,
                         const float *more, long *at)
{
    float *values = NULL, *out = NULL;
    if (number == LUNA_NONE && !more) return LUNA_OK;
    LUNA_TRY(new_constants(p, channels, at, &out));
    for (size_t i = 0; more && i < channels; i++) out[i] = more[i];
    if (number == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(luna_backend_floats(&lane_of(p)->weights->item[number], &values));
    for (size_t i = 0; i < channels; i++) out[i] += ldexpf(values[i], exponent);
    free(values);
    return LUNA_OK;
}

luna_err gpu_plan_add_vector(gpu_planner *p, int number, size_t channels, int exponent,
                             long at)
{
    float *values = NULL;
    if (number == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(luna_backend_floats(&lane_of(p)->weights->item[number], &values));
    for (size_t i = 0; i < channels; i++)
        p->constants[(size_t)at + i] += ldexpf(values[i], exponent);
    free(values);
    return LUNA_OK;
}

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
    const gpu_value *from = input_of(p, node);
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

//  Adds what is pending to a value.
static luna_err settle(gpu_planner *p, gpu_value *value)
{
    gpu_step step = gpu_plan_step(p, GPU_STEP_ADD, 0);
    if (!value->pending) return LUNA_OK;
    LUNA_TRY(gpu_plan_vector(p, LUNA_NONE, (size_t)value->extent.channels, 0,
                             value->pending, &step.bias));
    step.to = value->extent;
    step.x = step.y = value->buffer;
    value->pending = NULL;
    return gpu_plan_append(p, &step);
}

luna_err gpu_plan_settle(gpu_planner *p, size_t node)
{
    return settle(p, &p->value[node]);
}

static luna_err settle_input(gpu_planner *p, size_t node)
{
    return settle(p, &p->value[p->graph->node[node].input[0]]);
}

luna_err gpu_emit_unpack(gpu_planner *p, size_t node)
{
    LUNA_TRY(settle_input(p, node));
    return emit_move(p, GPU_STEP_UNPACK, node);
}

//  ---- convolutions -----------------------------------------------------------------

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
    LUNA_TRY(luna_backend_floats(&lane_of(p)->weights->item[node->weight], &weight));
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
    const luna_node *node = node_at(p, i);
    const gpu_value *input = input_of(p, i), *residual = fusion->residual;
    const float *more = residual ? residual->pending : NULL;
    if (!input->pending)
        return gpu_plan_vector(p, node->bias, node->channels, to, more, at);
    float *sum = calloc(node->channels, sizeof *sum);
    if (!sum) return no_memory();
    for (size_t c = 0; more && c < node->channels; c++) sum[c] = more[c];
    luna_err err = through_weights(p, node, input, to - from, sum);
    if (err == LUNA_OK) err = gpu_plan_vector(p, node->bias, node->channels, to, sum, at);
    free(sum);
    return err;
}

//  cuDNN's plan; without one our own kernel.
static luna_err choose_conv(gpu_planner *p, gpu_step *step)
{
    gpu_conv_problem problem = problem_of(step);
    luna_err err = LUNA_UNSUPPORTED;
    step->kind = GPU_STEP_CONV_PLAIN;
    if (lane_of(p)->type != GPU_FP32) {
        err = gpu_conv_find(lane_of(p)->device, &problem, &step->conv);
        if (err == LUNA_UNSUPPORTED) {
            //  Cards before Ampere have no epilogues; ours follow the bare convolution.
            problem.bias = problem.residual = problem.relu = false;
            err = gpu_conv_find(lane_of(p)->device, &problem, &step->conv);
            step->bare = err == LUNA_OK;
        }
    }
    if (err == LUNA_OK) step->kind = GPU_STEP_CONV;
    return err == LUNA_UNSUPPORTED ? LUNA_OK : err;
}

luna_err gpu_emit_conv(gpu_planner *p, size_t i, const gpu_fusion *fusion)
{
    const luna_node *node = node_at(p, i);
    if (node->kernel != 1) LUNA_TRY(settle_input(p, i));
    const gpu_value *from = input_of(p, i);
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
    LUNA_TRY(gpu_lane_weight(lane_of(p), node, (size_t)from->extent.channels,
                             GPU_FORM_CONV, e_to - e_from, &step.weight));
    LUNA_TRY(choose_conv(p, &step));
    p->value[fusion->result] = to;
    return gpu_plan_append(p, &step);
}

//  The bias of a folded convolution is left pending: the library adds none to it.
static luna_err leave_pending(gpu_planner *p, size_t conv, gpu_value *value)
{
    const luna_node *node = node_at(p, conv);
    if (node->bias == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(
        luna_backend_floats(&lane_of(p)->weights->item[node->bias], &p->pending[conv]));
    for (size_t c = 0; c < node->channels; c++)
        p->pending[conv][c] = ldexpf(p->pending[conv][c], gpu_exponent(p, conv));
    value->pending = p->pending[conv];
    return LUNA_OK;
}

luna_err gpu_emit_folded(gpu_planner *p, size_t upsample, size_t conv)
{
    const luna_node *node = node_at(p, conv);
    const size_t input = (size_t)node_at(p, upsample)->input[0];
    LUNA_TRY(settle(p, &p->value[input]));
    const gpu_value *from = &p->value[input];
    const int exponent = gpu_exponent(p, conv) - gpu_exponent(p, input);
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV, conv);
    gpu_value to;
    step.from = from->extent;
    step.kernel = 4;
    gpu_conv_problem problem = problem_of(&step);
    problem.folded = true;
    LUNA_TRY(gpu_conv_find(lane_of(p)->device, &problem, &step.conv));
    LUNA_TRY(gpu_plan_value(p, conv, &to));
    step.x = from->buffer;
    step.y = to.buffer;
    LUNA_TRY(gpu_lane_weight(lane_of(p), node, (size_t)from->extent.channels,
                             GPU_FORM_FOLDED, exponent, &step.weight));
    LUNA_TRY(leave_pending(p, conv, &to));
    p->value[conv] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_last(gpu_planner *p, size_t conv, const gpu_normed *normed)
{
    const luna_node *node = node_at(p, conv);
    const size_t input = (size_t)node->input[0];
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV_LAST, conv);
    step.from = normed->from->extent;
    step.x = normed->from->buffer;
    step.y = GPU_OUTPUT;
    step.pairs = normed->pairs;
    step.act = normed->act;
    LUNA_TRY(gpu_plan_vector(p, node->bias, node->channels, 0, NULL, &step.bias));
    LUNA_TRY(gpu_lane_weight(lane_of(p), node, (size_t)step.from.channels, GPU_FORM_LAST,
                             -gpu_exponent(p, input), &step.weight));
    p->value[conv] = (gpu_value){.buffer = GPU_OUTPUT,
                                 .extent = extent_of(p, conv),
                                 .pairs = LUNA_NONE,
                                 .parts = LUNA_NONE};
    return gpu_plan_append(p, &step);
}

//  ---- norms ------------------------------------------------------------------------

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
    if (has_parts(from, node_at(p, step->node))) {
        step->parts = from->parts;
        step->parts_of = from->parts_of;
        return LUNA_OK;
    }
    step->x = from->buffer;
    return gpu_plan_buffer(p->program, gpu_norm_scratch(&norm), &step->scratch);
}

luna_err gpu_emit_norm(gpu_planner *p, size_t i, gpu_normed *out)
{
    const luna_node *node = node_at(p, i);
    const gpu_value *from = input_of(p, i);
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

//  An elementwise step: over its input where that may be, else to a new buffer.
static luna_err place_result(gpu_planner *p, size_t value, size_t reader, size_t result,
                             gpu_value *to)
{
    if (!may_overwrite(p, value, reader)) return gpu_plan_value(p, result, to);
    *to = (gpu_value){.buffer = p->value[value].buffer,
                      .extent = extent_of(p, result),
                      .pairs = LUNA_NONE,
                      .parts = LUNA_NONE};
    return LUNA_OK;
}

luna_err gpu_emit_normed(gpu_planner *p, const gpu_normed *normed, size_t result)
{
    const size_t value = (size_t)(normed->from - p->value);
    gpu_step step = gpu_plan_step(p, GPU_STEP_APPLY, result);
    gpu_value to;
    LUNA_TRY(place_result(p, value, normed->node, result, &to));
    step.x = normed->from->buffer;
    step.y = to.buffer;
    step.pairs = normed->pairs;
    step.act = normed->act;
    p->value[result] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_rms_norm(gpu_planner *p, size_t i, gpu_act act, size_t result)
{
    const luna_node *node = node_at(p, i);
    LUNA_TRY(settle_input(p, i));
    const gpu_value *from = input_of(p, i);
    gpu_step step = gpu_plan_step(p, GPU_STEP_RMS_NORM, result);
    gpu_value to;
    LUNA_TRY(place_result(p, (size_t)node->input[0], i, result, &to));
    step.x = from->buffer;
    step.y = to.buffer;
    step.act = act;
    step.epsilon = ldexpf(node->epsilon, gpu_exponent(p, (size_t)node->input[0]));
    LUNA_TRY(
        gpu_plan_vector(p, node->weight, node->channels, 0, NULL, &step.norm_weight));
    p->value[result] = to;
    return gpu_plan_append(p, &step);
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
    LUNA_TRY(new_constants(p, 2 * gpu_room(node->channels), at, &out));
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
    const luna_node *node = node_at(p, i);
    LUNA_TRY(settle_input(p, i));
    gpu_step step = gpu_plan_step(p, GPU_STEP_APPLY, i);
    gpu_value to;
    LUNA_TRY(place_result(p, (size_t)node->input[0], i, i, &to));
    step.x = input_of(p, i)->buffer;
    step.y = to.buffer;
    step.act = act_of(node->op);
    if (node->op != LUNA_OP_RELU && node->op != LUNA_OP_SILU)
        LUNA_TRY(new_pairs(p, node, &step.offset));
    p->value[i] = to;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_add(gpu_planner *p, size_t i, gpu_act act, size_t result)
{
    const luna_node *node = node_at(p, i);
    LUNA_TRY(settle(p, &p->value[node->input[0]]));
    LUNA_TRY(settle(p, &p->value[node->input[1]]));
    gpu_step step = gpu_plan_step(p, GPU_STEP_ADD, result);
    gpu_value to;
    LUNA_TRY(place_result(p, (size_t)node->input[0], i, result, &to));
    step.x = p->value[node->input[0]].buffer;
    step.z = p->value[node->input[1]].buffer;
    step.y = to.buffer;
    step.act = act;
    p->value[result] = to;
    return gpu_plan_append(p, &step);
}

//  ---- attention --------------------------------------------------------------------

//  Rows of scores at a time, in whole tiles of the library: as many as fit in what the
//  picture's largest values need anyway, later, when there are no scores any more.
static size_t chunk_rows(const gpu_planner *p, size_t tokens, size_t row_bytes)
{
    const size_t all = gpu_least_bytes(p->graph, p->shapes, lane_of(p)->type);
    const size_t room = p->lean ? all / 2 : all;
    const size_t fit = room / row_bytes / 128 * 128;
    return fit == 0 ? (tokens < 128 ? tokens : 128) : fit < tokens ? fit : tokens;
}

//  Scores in bf16 would lose too much before the exponential; the library gives fp32.
static gpu_type score_type(gpu_type type)
{
    return type == GPU_FP16 ? GPU_FP16 : GPU_FP32;
}

static luna_err find_products(gpu_planner *p, gpu_step *step, size_t rows, int which)
{
    gpu_device *device = lane_of(p)->device;
    const size_t tokens = gpu_pixels(&step->to), pitch = gpu_room(tokens);
    const size_t width = gpu_room((size_t)step->to.channels);
    const gpu_type type = step->to.type;
    gpu_gemm_problem scores, sums;
    memset(&scores, 0, sizeof scores);
    memset(&sums, 0, sizeof sums);
    scores.type = sums.type = sums.result = type;
    scores.result = score_type(type);
    scores.m = sums.m = rows;
    scores.n = sums.k = tokens;
    scores.k = sums.n = width;
    scores.a_pitch = scores.b_pitch = sums.b_pitch = sums.c_pitch = width;
    scores.c_pitch = sums.a_pitch = pitch;
    scores.turned = true;
    LUNA_TRY(gpu_gemm_find(device, &scores, &step->scores[which]));
    return gpu_gemm_find(device, &sums, &step->sums[which]);
}

luna_err gpu_emit_attention(gpu_planner *p, size_t i)
{
    const luna_node *node = node_at(p, i);
    gpu_step step = gpu_plan_step(p, GPU_STEP_ATTENTION, i);
    gpu_value to;
    for (int k = 0; k < 3; k++) LUNA_TRY(settle(p, &p->value[node->input[k]]));
    const size_t tokens = gpu_pixels(&step.to), pitch = gpu_room(tokens);
    const gpu_type type = step.to.type, score = score_type(type);
    //  Where scores and weights differ in size they cannot share memory.
    const size_t value_bytes = gpu_size(score) + (type == score ? 0 : gpu_size(type));
    step.rows = chunk_rows(p, tokens, pitch * value_bytes);
    LUNA_TRY(gpu_plan_buffer(p->program, step.rows * pitch * value_bytes, &step.scratch));
    LUNA_TRY(gpu_plan_value(p, i, &to));
    step.x = p->value[node->input[0]].buffer;
    step.z = p->value[node->input[1]].buffer;
    step.v = p->value[node->input[2]].buffer;
    step.y = to.buffer;
    LUNA_TRY(find_products(p, &step, step.rows, 0));
    if (tokens % step.rows) LUNA_TRY(find_products(p, &step, tokens % step.rows, 1));
    p->value[i] = to;
    return gpu_plan_append(p, &step);
}
