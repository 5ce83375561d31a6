//  The fused convolution's place in a program: which convolutions it does, and what it
//  takes along.

#include "decoder/vae/cuda/plan.h"

#include <stdlib.h>
#include <string.h>

static gpu_device *device_of(const gpu_planner *p)
{
    return p->program->lane->device;
}

//  ---- which ------------------------------------------------------------------------

//  Tiles are dealt out to the multiprocessors in rounds; a last round that leaves most of
//  them idle is too dear. The library's kernels can cut finer.
static bool fills_the_card(const gpu_planner *p, const luna_shape *from, size_t channels,
                           bool folded)
{
    const gpu_parts tiles = {(int)from->height, (int)from->width, folded};
    const size_t multiprocessors = (size_t)device_of(p)->properties.multiProcessorCount;
    const bool wide = p->program->fuser == GPU_FUSER_WGMMA;
    const size_t all =
        gpu_part_count(&tiles) * (channels / (wide ? GPU_FUSED_TO : GPU_FUSED_TO_MMA));
    const size_t at_once = wide ? multiprocessors : 2 * multiprocessors;
    if (device_of(p)->fusing == GPU_FUSES_ALL || p->lean) return true;
    const size_t rounds = (all + at_once - 1) / at_once;
    return 4 * all >= 3 * rounds * at_once;
}

bool gpu_fuses(const gpu_planner *p, size_t conv, bool folded)
{
    const luna_node *node = gpu_node_at(p, conv);
    const luna_shape *from = &p->shapes[node->input[0]];
    const size_t input = (size_t)node->input[0];
    if (p->program->fuser == GPU_FUSER_NONE) return false;
    if (node->op != LUNA_OP_CONV2D || node->kernel != 3) return false;
    if (folded) from = &p->shapes[gpu_node_at(p, input)->input[0]];
    return from->channels % GPU_FUSED_FROM == 0 && node->channels % GPU_FUSED_TO == 0 &&
           fills_the_card(p, from, node->channels, folded);
}

void gpu_leave_normed(gpu_planner *p, const gpu_normed *normed, size_t result,
                      size_t conv)
{
    const size_t value = (size_t)(normed->from - p->value);
    p->value[result] = *normed->from;
    p->value[result].pairs = normed->pairs;
    p->value[result].pending = NULL;  //  it is in the pairs
    p->value[result].parts = LUNA_NONE;
    //  What is stored must last until the convolution has read it.
    if (p->last[value] < conv) p->last[value] = conv;
}

//  ---- what is added ----------------------------------------------------------------

//  What the addition after a convolution adds to it.
typedef struct addend {
    size_t addition;            //  0: there is none
    const gpu_value *residual;  //  a value, or
    size_t shortcut;            //  a 1 x 1 convolution that is still to be placed
} addend;

static bool is_shortcut(const gpu_planner *p, size_t i)
{
    const luna_node *node = gpu_node_at(p, i);
    if (node->op != LUNA_OP_CONV2D || node->kernel != 1 || p->uses[i] != 1) return false;
    const gpu_value *from = &p->value[node->input[0]];
    return !from->pending && from->pairs == LUNA_NONE &&
           from->extent.channels % GPU_FUSED_FROM == 0;
}

static addend addend_of(const gpu_planner *p, size_t conv)
{
    const size_t reader = p->last[conv];
    if (p->uses[conv] != 1 || reader >= p->graph->count ||
        gpu_node_at(p, reader)->op != LUNA_OP_ADD)
        return (addend){0};
    const int *input = gpu_node_at(p, reader)->input;
    const size_t other = (size_t)(input[0] == (int)conv ? input[1] : input[0]);
    if (other < conv) return (addend){.addition = reader, .residual = &p->value[other]};
    if (is_shortcut(p, other) && (size_t)gpu_node_at(p, other)->input[0] < conv)
        return (addend){.addition = reader, .shortcut = other};
    return (addend){0};
}

//  ---- lean -------------------------------------------------------------------------

enum { STRIPS = 32 };  //  of a value's rows

static luna_err find_strip(gpu_planner *p, const gpu_step *step, size_t rows,
                           gpu_conv **out)
{
    gpu_conv_problem problem;
    memset(&problem, 0, sizeof problem);
    problem.from = step->from;
    problem.from.height = (int)rows;
    problem.channels = step->to.channels;
    problem.kernel = 1;
    problem.bias = step->bias != LUNA_NONE;
    return gpu_conv_find(device_of(p), &problem, out);
}

//  Whether the shortcut's result may lie over what it reads, which nobody else reads
//  then.
static bool may_lie_over(const gpu_planner *p, size_t shortcut)
{
    const luna_node *node = gpu_node_at(p, shortcut);
    const size_t input = (size_t)node->input[0];
    return p->lean && p->last[input] == shortcut &&
           node->channels <= (size_t)p->value[input].extent.channels;
}

//  The shortcut before the convolution that it is added to, over its own input: strip by
//  strip to a buffer aside and from there to the front, where only rows lie that are
//  read.
static luna_err emit_over(gpu_planner *p, size_t shortcut)
{
    const luna_node *node = gpu_node_at(p, shortcut);
    const size_t input = (size_t)node->input[0];
    const gpu_value *from = &p->value[input];
    const int e_from = gpu_exponent(p, input), e_to = gpu_exponent(p, shortcut);
    const gpu_fusion fusion = {.result = shortcut};
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV_OVER, shortcut);
    const size_t height = (size_t)step.to.height, pixels = (size_t)step.to.width;
    step.from = from->extent;
    step.x = step.y = from->buffer;
    step.kernel = 1;
    step.rows = (height + STRIPS - 1) / STRIPS;
    LUNA_TRY(gpu_plan_conv_bias(p, shortcut, &fusion, e_from, e_to, &step.bias));
    LUNA_TRY(gpu_lane_weight(p->program->lane, node, (size_t)from->extent.channels,
                             GPU_FORM_CONV, e_to - e_from, &step.weight));
    LUNA_TRY(find_strip(p, &step, step.rows, &step.conv));
    if (height % step.rows)
        LUNA_TRY(find_strip(p, &step, height % step.rows, &step.last_conv));
    LUNA_TRY(gpu_plan_buffer(p->program,
                             step.rows * pixels * node->channels * gpu_size(step.to.type),
                             &step.scratch));
    p->value[shortcut] = *from;
    p->value[shortcut].extent = step.to;
    p->value[shortcut].parts = LUNA_NONE;
    p->done[shortcut] = true;
    LUNA_TRY(gpu_plan_append(p, &step));
    gpu_plan_shrink(p->program, from->buffer, gpu_bytes(&step.to));
    return LUNA_OK;
}

//  ---- steps ------------------------------------------------------------------------

//  Whether a group norm reads the value.
static bool wants_parts(const gpu_planner *p, size_t value)
{
    for (size_t i = value + 1; i < p->graph->count; i++)
        if (gpu_node_at(p, i)->op == LUNA_OP_GROUP_NORM &&
            gpu_node_at(p, i)->input[0] == (int)value)
            return true;
    return false;
}

static luna_err new_result(gpu_planner *p, size_t result, gpu_step *step, gpu_value *to)
{
    LUNA_TRY(gpu_plan_value(p, result, to));
    step->y = to->buffer;
    to->parts_of = step->parts_of;
    if (!wants_parts(p, result)) return LUNA_OK;
    const size_t runs = (size_t)to->extent.channels / GPU_PART_CHANNELS;
    LUNA_TRY(gpu_plan_buffer(p->program,
                             gpu_part_count(&step->parts_of) * runs * sizeof(gpu_moments),
                             &to->parts));
    step->parts = to->parts;
    return LUNA_OK;
}

//  The kernel always adds a bias.
static luna_err no_bias(gpu_planner *p, size_t channels, long *at)
{
    float *zeros = calloc(channels, sizeof *zeros);
    if (!zeros) return gpu_plan_no_memory();
    const luna_err err = gpu_plan_vector(p, LUNA_NONE, channels, 0, zeros, at);
    free(zeros);
    return err;
}

//  The shortcut's own bias, on top of the convolution's.
static luna_err add_shortcut(gpu_planner *p, size_t shortcut, int e_to, gpu_step *step,
                             gpu_fused_request *request)
{
    const luna_node *node = gpu_node_at(p, shortcut);
    const gpu_value *from = &p->value[node->input[0]];
    request->beside = node;
    request->beside_channels = (size_t)from->extent.channels;
    request->beside_exponent = e_to - gpu_exponent(p, (size_t)node->input[0]);
    step->v = from->buffer;
    step->beside = from->extent.channels;
    p->done[shortcut] = true;
    return gpu_plan_add_vector(p, node->bias, node->channels, e_to, step->bias);
}

static luna_err emit(gpu_planner *p, size_t conv, size_t input, const addend *more,
                     bool folded)
{
    const luna_node *node = gpu_node_at(p, conv);
    const size_t result = more->addition ? more->addition : conv;
    const gpu_value *from = &p->value[input];
    const int e_from = gpu_exponent(p, input), e_to = gpu_exponent(p, result);
    const gpu_fusion fusion = {.result = result, .residual = more->residual};
    gpu_step step = gpu_plan_step(p, GPU_STEP_CONV_FUSED, result);
    gpu_value to;
    step.from = from->extent;
    step.x = from->buffer;
    step.pairs = from->pairs;
    step.z = more->residual ? more->residual->buffer : LUNA_NONE;
    step.kernel = folded ? 4 : 3;
    step.parts_of = (gpu_parts){from->extent.height, from->extent.width, folded};
    gpu_fused_request request = {.node = node,
                                 .from_channels = (size_t)from->extent.channels,
                                 .exponent = e_to - e_from,
                                 .folded = folded};
    LUNA_TRY(gpu_plan_conv_bias(p, conv, &fusion, e_from, e_to, &step.bias));
    if (step.bias == LUNA_NONE) LUNA_TRY(no_bias(p, node->channels, &step.bias));
    if (more->shortcut) LUNA_TRY(add_shortcut(p, more->shortcut, e_to, &step, &request));
    LUNA_TRY(gpu_lane_fused(p->program->lane, &request, &step.weight));
    LUNA_TRY(new_result(p, result, &step, &to));
    p->value[result] = to;
    p->done[result] = true;
    return gpu_plan_append(p, &step);
}

luna_err gpu_emit_fused(gpu_planner *p, size_t conv)
{
    addend more = addend_of(p, conv);
    const size_t input = (size_t)gpu_node_at(p, conv)->input[0];
    LUNA_TRY(gpu_plan_settle(p, input));
    if (more.shortcut && may_lie_over(p, more.shortcut)) {
        LUNA_TRY(emit_over(p, more.shortcut));
        more.residual = &p->value[more.shortcut];
        more.shortcut = 0;
    }
    return emit(p, conv, input, &more, false);
}

luna_err gpu_emit_fused_folded(gpu_planner *p, size_t upsample, size_t conv)
{
    const size_t input = (size_t)gpu_node_at(p, upsample)->input[0];
    LUNA_TRY(gpu_plan_settle(p, input));
    return emit(p, conv, input, &(addend){0}, true);
}
