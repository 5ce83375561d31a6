//  onednn.h - inside the oneDNN backend: state, plans and how they are put together
//
//  onednn.c is the backend and keeps the weights, plan.c turns a graph into steps,
//  steps.c makes the single steps, run.c runs them.

#ifndef LUNA_DECODER_VAE_CPU_ONEDNN_H
#define LUNA_DECODER_VAE_CPU_ONEDNN_H

#include "decoder/vae/backend.h"
#include "decoder/vae/memory_plan.h"

#include <oneapi/dnnl/dnnl.h>

//  A weight in the layout that some primitive asked for.
typedef struct cpu_weight {
    int number;  //  in luna_weights
    dnnl_memory_desc_t layout;
    void *data;
} cpu_weight;

typedef struct cpu_state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    const luna_weights *weights;
    cpu_weight *kept;  //  grows; plans point at the data, not at the table
    size_t kept_count;
    size_t kept_room;
    size_t weight_bytes;
    void *arena;  //  working memory of all plans, one at a time
    size_t arena_bytes;
    int threads;
    void (*step)(void *context);  //  as in luna_vae_options
    void *step_context;
} cpu_state;

//  The two buffers that are not in the arena.
enum { CPU_INPUT = 0, CPU_OUTPUT = 1 };

typedef enum cpu_kind {
    CPU_PRIMITIVE,    //  of oneDNN
    CPU_GROUP_NORM,   //  ours: oneDNN 2.6 has none
    CPU_ELEMENTWISE,  //  ours, on planar values: TANH_CLAMP, AFFINE
    CPU_UNPACK,       //  ours, on planar values
    CPU_ATTENTION,    //  ours, on planar values
    CPU_RMS_NORM,     //  ours, on planar values
    CPU_BATCH_NORM_INVERSE
} cpu_kind;

enum { CPU_ARGS = 6 };

typedef struct cpu_arg {
    int role;              //  DNNL_ARG_*
    int buffer;            //  LUNA_NONE: `memory` has its data already
    dnnl_memory_t memory;  //  owned
} cpu_arg;

typedef struct cpu_step {
    cpu_kind kind;
    dnnl_primitive_t primitive;  //  owned; CPU_PRIMITIVE only
    cpu_arg arg[CPU_ARGS];
    int arg_count;
    const luna_node *node;  //  for our own kinds, with all that follows
    luna_shape shape;       //  of the result
    int from[LUNA_INPUTS];  //  buffers
    int to;
    int scratch;   //  CPU_ATTENTION
    size_t block;  //  CPU_GROUP_NORM: channels a block
    const float *weight;
    const float *bias;
} cpu_step;

struct luna_plan {
    cpu_step *steps;
    size_t step_count;
    size_t step_room;
    luna_span *spans;  //  one a buffer; times are step numbers
    size_t buffer_count;
    size_t buffer_room;
    size_t arena_bytes;
};

//  LUNA_OK for success; LUNA_NO_MEMORY or LUNA_DEVICE with `what` in the sentence.
luna_err cpu_check(dnnl_status_t status, const char *what);

//  The weight in `layout`, made on first use. *data stays until the state is trimmed.
LUNA_MUST_USE luna_err cpu_weight_get(cpu_state *s, int number,
                                      const dnnl_memory_desc_t *layout, void **data);

//  ---- plan.c ----------------------------------------------------------------------

LUNA_MUST_USE luna_err cpu_plan_build(cpu_state *s, const luna_plan_request *request,
                                      luna_plan **out);
void cpu_plan_free(luna_plan *plan);

//  ---- steps.c ---------------------------------------------------------------------

//  A value while the plan is made: where it is and how it lies there.
typedef struct cpu_value {
    dnnl_memory_desc_t layout;
    int buffer;
} cpu_value;

typedef struct cpu_maker {
    cpu_state *state;
    luna_plan *plan;
    const luna_graph *graph;
    const luna_shape *shapes;
} cpu_maker;

//  What is done to a convolution's sums before they are stored.
typedef struct cpu_fusion {
    const cpu_value *residual;  //  added; NULL: none
    bool overwrite;             //  the residual's buffer may become the result's
    bool relu;
} cpu_fusion;

//  Planar layout of a shape.
dnnl_memory_desc_t cpu_planar(const luna_shape *shape);

//  A new buffer for `layout`, alive from the next step on; LUNA_NONE without memory.
int cpu_buffer(luna_plan *plan, const dnnl_memory_desc_t *layout);

//  Each appends steps and sets *out.
LUNA_MUST_USE luna_err cpu_emit_reorder(cpu_maker *m, const cpu_value *from,
                                        const cpu_value *to);
LUNA_MUST_USE luna_err cpu_emit_conv(cpu_maker *m, size_t node, const cpu_value *from,
                                     const cpu_fusion *fusion, cpu_value *out);
LUNA_MUST_USE luna_err cpu_emit_eltwise(cpu_maker *m, size_t node, const cpu_value *from,
                                        cpu_value *out);
LUNA_MUST_USE luna_err cpu_emit_add(cpu_maker *m, const cpu_value *a, const cpu_value *b,
                                    cpu_value *out);
LUNA_MUST_USE luna_err cpu_emit_upsample(cpu_maker *m, size_t node, const cpu_value *from,
                                         cpu_value *out);
LUNA_MUST_USE luna_err cpu_emit_own(cpu_maker *m, size_t node, const cpu_value *from,
                                    cpu_value *out);

LUNA_MUST_USE luna_err cpu_emit_attention(cpu_maker *m, size_t node,
                                          const cpu_value *const from[LUNA_INPUTS],
                                          cpu_value *out);

//  ---- attention.c -----------------------------------------------------------------

//  Bytes of working memory.
size_t cpu_attention_bytes(const luna_shape *shape);

//  As luna_attention_run.
LUNA_MUST_USE luna_err cpu_attention_run(const luna_shape *shape, const float *q,
                                         const float *k, const float *v, float *scratch,
                                         float *out);

//  ---- run.c -----------------------------------------------------------------------

LUNA_MUST_USE luna_err cpu_run(cpu_state *s, luna_plan *plan, const float *input,
                               float *output);

#endif
