//  plan.h - shared by plan.c, which decides what becomes one step, the emit*.c, which
//  append the steps, and plan_parts.c, of which steps are made

#ifndef LUNA_DECODER_VAE_CUDA_PLAN_H
#define LUNA_DECODER_VAE_CUDA_PLAN_H

#include "decoder/vae/cuda/gpu.h"

//  A node's value while the program is made.
typedef struct gpu_value {
    int buffer;
    gpu_extent extent;
    const float
        *pending;  //  [channels], still to be added by whoever reads; NULL: nothing
    int pairs;  //  a buffer of pairs: the value is silu(scale * what is stored + offset),
                //  which the fused convolution that alone reads it makes; else LUNA_NONE
    int parts;  //  a buffer of statistics that its maker has left; else LUNA_NONE
    gpu_parts parts_of;
} gpu_value;

typedef struct gpu_planner {
    gpu_program *program;
    const luna_graph *graph;
    const luna_shape *shapes;
    const int8_t *exponents;
    bool lean;
    float *constants;  //  grows
    size_t constant_count;
    size_t constant_room;
    gpu_value value[LUNA_GRAPH_MAX];
    float *pending[LUNA_GRAPH_MAX];  //  owned; behind the values'
    size_t last[LUNA_GRAPH_MAX];
    size_t uses[LUNA_GRAPH_MAX];
    bool done[LUNA_GRAPH_MAX];  //  made already, inside an earlier step
} gpu_planner;

//  What is done to a convolution's sums before they are stored.
typedef struct gpu_fusion {
    size_t result;              //  the node whose value is stored
    const gpu_value *residual;  //  NULL: none
    bool relu;
} gpu_fusion;

static inline int gpu_exponent(const gpu_planner *p, size_t node)
{
    return p->exponents ? p->exponents[node] : 0;
}

//  A norm's parts: its pairs are in `pairs`, of the value `from`.
typedef struct gpu_normed {
    size_t node;  //  the norm's
    const gpu_value *from;
    int pairs;
    gpu_act act;
} gpu_normed;

static inline const luna_node *gpu_node_at(const gpu_planner *p, size_t i)
{
    return &p->graph->node[i];
}

static inline gpu_lane *gpu_lane_of(const gpu_planner *p)
{
    return p->program->lane;
}

//  The value that a node reads first.
static inline const gpu_value *gpu_input_of(const gpu_planner *p, size_t node)
{
    return &p->value[p->graph->node[node].input[0]];
}

static inline gpu_extent gpu_extent_of(const gpu_planner *p, size_t node)
{
    const luna_shape *s = &p->shapes[node];
    return (gpu_extent){.type = gpu_lane_of(p)->type,
                        .channels = (int)s->channels,
                        .height = (int)s->height,
                        .width = (int)s->width};
}

//  ---- plan_parts.c ----------------------------------------------------------------

//  A new buffer, alive from the next step on.
LUNA_MUST_USE luna_err gpu_plan_buffer(gpu_program *program, size_t bytes, int *out);
//  A buffer for the value of `node`.
LUNA_MUST_USE luna_err gpu_plan_value(gpu_planner *p, size_t node, gpu_value *out);
//  A vector of the model among the constants, times 2^exponent, plus `more` when there is
//  one.
LUNA_MUST_USE luna_err gpu_plan_vector(gpu_planner *p, int number, size_t channels,
                                       int exponent, const float *more, long *at);
//  Adds one to a vector that is there.
LUNA_MUST_USE luna_err gpu_plan_add_vector(gpu_planner *p, int number, size_t channels,
                                           int exponent, long at);
//  Adds to a node's value what is pending.
LUNA_MUST_USE luna_err gpu_plan_settle(gpu_planner *p, size_t node);
//  The same to the value that a node reads first.
LUNA_MUST_USE luna_err gpu_plan_settle_input(gpu_planner *p, size_t node);
//  A place for an elementwise step's result: over its input where that may be, else a new
//  buffer.
LUNA_MUST_USE luna_err gpu_plan_result(gpu_planner *p, size_t value, size_t reader,
                                       size_t result, gpu_value *to);
//  Room for `count` floats of 0; *out stays valid until the next call.
LUNA_MUST_USE luna_err gpu_plan_constants(gpu_planner *p, size_t count, long *at,
                                          float **out);
luna_err gpu_plan_no_memory(void);
//  The bias of a convolution with all that is pending on its input and its residual.
LUNA_MUST_USE luna_err gpu_plan_conv_bias(gpu_planner *p, size_t node,
                                          const gpu_fusion *fusion, int from, int to,
                                          long *at);
//  From the next step on only the first `bytes` of a buffer are used.
void gpu_plan_shrink(gpu_program *program, int buffer, size_t bytes);
//  A step that makes the value of `node`, with nothing chosen yet.
gpu_step gpu_plan_step(const gpu_planner *p, gpu_kind kind, size_t node);
LUNA_MUST_USE luna_err gpu_plan_append(gpu_planner *p, const gpu_step *step);

//  ---- emit.c, emit_conv.c, emit_norm.c, emit_attention.c ---------------------------

LUNA_MUST_USE luna_err gpu_emit_input(gpu_planner *p);
LUNA_MUST_USE luna_err gpu_emit_output(gpu_planner *p, size_t node);
LUNA_MUST_USE luna_err gpu_emit_conv(gpu_planner *p, size_t node,
                                     const gpu_fusion *fusion);
//  LUNA_UNSUPPORTED, with nothing done, when cuDNN cannot.
LUNA_MUST_USE luna_err gpu_emit_folded(gpu_planner *p, size_t upsample, size_t conv);
LUNA_MUST_USE luna_err gpu_emit_upsample(gpu_planner *p, size_t node);
LUNA_MUST_USE luna_err gpu_emit_unpack(gpu_planner *p, size_t node);
LUNA_MUST_USE luna_err gpu_emit_norm(gpu_planner *p, size_t node, gpu_normed *out);
//  The norm's value with its activation, as the value of node `result`.
LUNA_MUST_USE luna_err gpu_emit_normed(gpu_planner *p, const gpu_normed *normed,
                                       size_t result);
//  The last convolution reads what the norm reads; `normed->pairs` may be LUNA_NONE.
LUNA_MUST_USE luna_err gpu_emit_last(gpu_planner *p, size_t conv,
                                     const gpu_normed *normed);
LUNA_MUST_USE luna_err gpu_emit_rms_norm(gpu_planner *p, size_t node, gpu_act act,
                                         size_t result);
//  RELU, SILU, TANH_CLAMP, AFFINE, BATCH_NORM_INVERSE.
LUNA_MUST_USE luna_err gpu_emit_map(gpu_planner *p, size_t node);
LUNA_MUST_USE luna_err gpu_emit_add(gpu_planner *p, size_t node, gpu_act act,
                                    size_t result);
LUNA_MUST_USE luna_err gpu_emit_attention(gpu_planner *p, size_t node);

//  ---- emit_fused.c -----------------------------------------------------------------

//  Whether a convolution is done by the fused kernel. `folded`: with the nearest 2 x 2
//  before it.
bool gpu_fuses(const gpu_planner *p, size_t conv, bool folded);
//  Leaves the norm's second half to the fused convolution that alone reads `result`.
void gpu_leave_normed(gpu_planner *p, const gpu_normed *normed, size_t result,
                      size_t conv);
//  The convolution with what is added to it: a value that is there, or the 1 x 1
//  convolution of one.
LUNA_MUST_USE luna_err gpu_emit_fused(gpu_planner *p, size_t conv);
LUNA_MUST_USE luna_err gpu_emit_fused_folded(gpu_planner *p, size_t upsample,
                                             size_t conv);

#endif
