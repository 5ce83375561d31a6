//  Attention as a step, by chunks of rows: two kernels of ours, or two products of the
//  library and a softmax between them.

#include "decoder/vae/cuda/plan.h"

#include <string.h>

//  What a chunk may take: what the picture's largest values need anyway, later, when
//  there are no weights any more.
static size_t room_of(const gpu_planner *p)
{
    const size_t all = gpu_least_bytes(p->graph, p->shapes, gpu_lane_of(p)->type);
    return p->lean ? all / 2 : all;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

//  ---- our kernels ------------------------------------------------------------------

static size_t rows_a_round(const gpu_planner *p)
{
    return gpu_attention_round(gpu_lane_of(p)->device->properties.multiProcessorCount);
}

static size_t rounds_of(const gpu_planner *p, size_t rows)
{
    return (rows + rows_a_round(p) - 1) / rows_a_round(p);
}

//  Rows at a time: whole rounds of the card, else as many as there is room for.
static size_t fused_rows(const gpu_planner *p, size_t tokens)
{
    const size_t block = GPU_ATTENTION_ROWS, a_round = rows_a_round(p);
    const size_t fit = room_of(p) / gpu_attention_bytes(tokens, block) * block;
    if (fit < block) return smaller(tokens, block);
    return smaller(tokens, fit < a_round ? fit : fit / a_round * a_round);
}

//  With too few rows most of the card is idle; from about half of it on our kernels are
//  the faster ones.
static bool fills_the_card(const gpu_planner *p, size_t tokens, size_t rows)
{
    const size_t rounds =
        tokens / rows * rounds_of(p, rows) + rounds_of(p, tokens % rows);
    return 20 * tokens >= 9 * rounds * rows_a_round(p);
}

//  Of fewer channels the library's products are as much smaller, ours are not.
static bool is_wide(const gpu_step *step)
{
    return 4 * step->to.channels >= 3 * GPU_ATTENTION_CHANNELS;
}

static bool fuses(const gpu_planner *p, const gpu_step *step)
{
    const size_t tokens = gpu_pixels(&step->to);
    if (p->program->fuser != GPU_FUSER_WGMMA ||
        step->to.channels > GPU_ATTENTION_CHANNELS)
        return false;
    if (gpu_lane_of(p)->device->fusing == GPU_FUSES_ALL) return true;
    return is_wide(step) && fills_the_card(p, tokens, fused_rows(p, tokens));
}

static luna_err make_fused(gpu_planner *p, gpu_step *step)
{
    const size_t tokens = gpu_pixels(&step->to);
    step->kind = GPU_STEP_ATTENTION_FUSED;
    step->rows = fused_rows(p, tokens);
    return gpu_plan_buffer(p->program, gpu_attention_bytes(tokens, step->rows),
                           &step->scratch);
}

//  ---- the library's products -------------------------------------------------------

//  Rows of scores at a time, in whole tiles of the library.
static size_t chunk_rows(const gpu_planner *p, size_t tokens, size_t row_bytes)
{
    const size_t fit = room_of(p) / row_bytes / 128 * 128;
    return smaller(tokens, fit == 0 ? 128 : fit);
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

static luna_err make_products(gpu_planner *p, gpu_step *step)
{
    const size_t tokens = gpu_pixels(&step->to), pitch = gpu_room(tokens);
    const gpu_type type = step->to.type, score = score_type(type);
    //  Where scores and weights differ in size they cannot share memory.
    const size_t value_bytes = gpu_size(score) + (type == score ? 0 : gpu_size(type));
    step->rows = chunk_rows(p, tokens, pitch * value_bytes);
    LUNA_TRY(
        gpu_plan_buffer(p->program, step->rows * pitch * value_bytes, &step->scratch));
    LUNA_TRY(find_products(p, step, step->rows, 0));
    return tokens % step->rows ? find_products(p, step, tokens % step->rows, 1) : LUNA_OK;
}

luna_err gpu_emit_attention(gpu_planner *p, size_t i)
{
    const luna_node *node = gpu_node_at(p, i);
    gpu_step step = gpu_plan_step(p, GPU_STEP_ATTENTION, i);
    gpu_value to;
    for (int k = 0; k < 3; k++) LUNA_TRY(gpu_plan_settle(p, (size_t)node->input[k]));
    LUNA_TRY(fuses(p, &step) ? make_fused(p, &step) : make_products(p, &step));
    LUNA_TRY(gpu_plan_value(p, i, &to));
    step.x = p->value[node->input[0]].buffer;
    step.z = p->value[node->input[1]].buffer;
    step.v = p->value[node->input[2]].buffer;
    step.y = to.buffer;
    p->value[i] = to;
    return gpu_plan_append(p, &step);
}
