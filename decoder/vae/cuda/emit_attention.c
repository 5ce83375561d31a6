//  Attention as a step: two products and a softmax, by chunks of rows.

#include "decoder/vae/cuda/plan.h"

#include <string.h>

//  Rows of scores at a time, in whole tiles of the library: as many as fit in what the
//  picture's largest values need anyway, later, when there are no scores any more.
static size_t chunk_rows(const gpu_planner *p, size_t tokens, size_t row_bytes)
{
    const size_t all = gpu_least_bytes(p->graph, p->shapes, gpu_lane_of(p)->type);
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
    gpu_device *device = gpu_lane_of(p)->device;
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
    const luna_node *node = gpu_node_at(p, i);
    gpu_step step = gpu_plan_step(p, GPU_STEP_ATTENTION, i);
    gpu_value to;
    for (int k = 0; k < 3; k++) LUNA_TRY(gpu_plan_settle(p, (size_t)node->input[k]));
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
