//  plan.h - shared by plan.c, which decides what becomes one step, and emit.c, which
//  appends the steps

#ifndef LUNA_DECODER_VAE_CUDA_PLAN_H
#define LUNA_DECODER_VAE_CUDA_PLAN_H

#include "decoder/vae/cuda/gpu.h"

//  A node's value while the program is made.
typedef struct gpu_value {
    int buffer;
    gpu_extent extent;
    const float
        *pending;  //  [channels], still to be added by whoever reads; NULL: nothing
} gpu_value;

typedef struct gpu_planner {
    gpu_program *program;
    const luna_graph *graph;
    const luna_shape *shapes;
    const int8_t *exponents;
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

#endif
