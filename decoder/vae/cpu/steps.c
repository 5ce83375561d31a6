#include "decoder/vae/cpu/onednn.h"

#include <stdlib.h>
#include <string.h>

dnnl_memory_desc_t cpu_planar(const luna_shape *shape)
{
    dnnl_memory_desc_t layout;
    const dnnl_dims_t sizes = {1, (dnnl_dim_t)shape->channels, (dnnl_dim_t)shape->height,
                               (dnnl_dim_t)shape->width};
    dnnl_memory_desc_init_by_tag(&layout, 4, sizes, dnnl_f32, dnnl_nchw);
    return layout;
}

//  The library chooses the layout.
static dnnl_memory_desc_t any_layout(const luna_shape *shape)
{
    dnnl_memory_desc_t layout;
    const dnnl_dims_t sizes = {1, (dnnl_dim_t)shape->channels, (dnnl_dim_t)shape->height,
                               (dnnl_dim_t)shape->width};
    dnnl_memory_desc_init_by_tag(&layout, 4, sizes, dnnl_f32, dnnl_format_tag_any);
    return layout;
}

int cpu_buffer(luna_plan *plan, const dnnl_memory_desc_t *layout)
{
    if (plan->buffer_count == plan->buffer_room) {
        const size_t room = plan->buffer_room ? 2 * plan->buffer_room : 256;
        luna_span *larger = realloc(plan->spans, room * sizeof *larger);
        if (!larger) return LUNA_NONE;
        plan->spans = larger;
        plan->buffer_room = room;
    }
    plan->spans[plan->buffer_count] =
        (luna_span){.bytes = dnnl_memory_desc_get_size(layout),
                    .first = plan->step_count,
                    .last = plan->step_count};
    return (int)plan->buffer_count++;
}

static luna_err new_value(cpu_maker *m, const dnnl_memory_desc_t *layout, cpu_value *out)
{
    *out = (cpu_value){.layout = *layout, .buffer = cpu_buffer(m->plan, layout)};
    if (out->buffer != LUNA_NONE) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
}

//  A step still without arguments, the plan's last.
static luna_err new_step(luna_plan *plan, cpu_step **out)
{
    if (plan->step_count == plan->step_room) {
        const size_t room = plan->step_room ? 2 * plan->step_room : 256;
        cpu_step *larger = realloc(plan->steps, room * sizeof *larger);
        if (!larger)
            return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
        plan->steps = larger;
        plan->step_room = room;
    }
    *out = &plan->steps[plan->step_count++];
    **out = (cpu_step){.kind = CPU_PRIMITIVE};
    return LUNA_OK;
}

//  The buffer is needed up to the plan's last step.
static void touch(luna_plan *plan, int buffer)
{
    plan->spans[buffer].last = plan->step_count - 1;
}

static luna_err add_arg(cpu_maker *m, cpu_step *step, int role, const cpu_value *value)
{
    cpu_arg *arg = &step->arg[step->arg_count++];
    *arg = (cpu_arg){.role = role, .buffer = value->buffer};
    touch(m->plan, value->buffer);
    return cpu_check(dnnl_memory_create(&arg->memory, &value->layout, m->state->engine,
                                        DNNL_MEMORY_NONE),
                     "a view of memory");
}

static luna_err add_weight(cpu_maker *m, cpu_step *step, int role, int number,
                           const dnnl_memory_desc_t *layout)
{
    void *data = NULL;
    LUNA_TRY(cpu_weight_get(m->state, number, layout, &data));
    cpu_arg *arg = &step->arg[step->arg_count++];
    *arg = (cpu_arg){.role = role, .buffer = LUNA_NONE};
    return cpu_check(dnnl_memory_create(&arg->memory, layout, m->state->engine, data),
                     "a view of weights");
}

static dnnl_memory_desc_t layout_of(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return *dnnl_primitive_desc_query_md(desc, what, 0);
}

//  Appends the step of a primitive, takes `desc` over, and gives it its scratch memory.
static luna_err new_primitive(cpu_maker *m, dnnl_primitive_desc_t desc, cpu_step **out)
{
    cpu_value scratch;
    cpu_step *step = NULL;
    const dnnl_memory_desc_t layout = layout_of(desc, dnnl_query_scratchpad_md);
    luna_err err = new_value(m, &layout, &scratch);
    if (err == LUNA_OK) err = new_step(m->plan, &step);
    if (err == LUNA_OK)
        err = cpu_check(dnnl_primitive_create(&step->primitive, desc), "an operation");
    dnnl_primitive_desc_destroy(desc);
    LUNA_TRY(err);
    *out = step;
    if (m->plan->spans[scratch.buffer].bytes == 0) return LUNA_OK;
    return add_arg(m, step, DNNL_ARG_SCRATCHPAD, &scratch);
}

//  Attributes: scratch memory comes from the plan, and what follows the sums.
static dnnl_status_t new_attr(const cpu_fusion *fusion, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t after = NULL;
    dnnl_status_t st = dnnl_primitive_attr_create(out);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (st == dnnl_success) st = dnnl_post_ops_create(&after);
    if (st == dnnl_success && fusion && fusion->residual)
        st = dnnl_post_ops_append_sum(after, 1.0F);
    if (st == dnnl_success && fusion && fusion->relu)
        st = dnnl_post_ops_append_eltwise(after, 1.0F, dnnl_eltwise_relu, 0.0F, 0.0F);
    if (st == dnnl_success) st = dnnl_primitive_attr_set_post_ops(*out, after);
    if (after) dnnl_post_ops_destroy(after);
    return st;
}

luna_err cpu_emit_reorder(cpu_maker *m, const cpu_value *from, const cpu_value *to)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    cpu_step *step = NULL;
    dnnl_status_t st = new_attr(NULL, &attr);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&desc, &from->layout, m->state->engine,
                                                &to->layout, m->state->engine, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    LUNA_TRY(cpu_check(st, "a change of layout"));
    LUNA_TRY(new_primitive(m, desc, &step));
    LUNA_TRY(add_arg(m, step, DNNL_ARG_FROM, from));
    return add_arg(m, step, DNNL_ARG_TO, to);
}

//  `from` itself when it lies as wanted, else a copy that does.
static luna_err in_layout(cpu_maker *m, const cpu_value *from,
                          const dnnl_memory_desc_t *layout, cpu_value *out)
{
    *out = *from;
    if (dnnl_memory_desc_equal(&from->layout, layout)) return LUNA_OK;
    LUNA_TRY(new_value(m, layout, out));
    return cpu_emit_reorder(m, from, out);
}

static dnnl_memory_desc_t vector_layout(size_t channels)
{
    dnnl_memory_desc_t layout;
    const dnnl_dims_t sizes = {(dnnl_dim_t)channels};
    dnnl_memory_desc_init_by_tag(&layout, 1, sizes, dnnl_f32, dnnl_a);
    return layout;
}

static dnnl_memory_desc_t kernel_layout(const luna_node *node, size_t from_channels)
{
    dnnl_memory_desc_t layout;
    const dnnl_dims_t sizes = {(dnnl_dim_t)node->channels, (dnnl_dim_t)from_channels,
                               (dnnl_dim_t)node->kernel, (dnnl_dim_t)node->kernel};
    dnnl_memory_desc_init_by_tag(&layout, 4, sizes, dnnl_f32, dnnl_format_tag_any);
    return layout;
}

static bool is_planar(const cpu_maker *m, size_t node, const cpu_value *value)
{
    const dnnl_memory_desc_t planar = cpu_planar(&m->shapes[node]);
    return dnnl_memory_desc_equal(&planar, &value->layout);
}

static dnnl_status_t describe_conv(cpu_maker *m, size_t i,
                                   const dnnl_memory_desc_t *source,
                                   dnnl_alg_kind_t algorithm,
                                   const_dnnl_primitive_attr_t attr,
                                   dnnl_primitive_desc_t *out)
{
    dnnl_convolution_desc_t conv;
    const luna_node *node = &m->graph->node[i];
    const dnnl_memory_desc_t target = any_layout(&m->shapes[i]);
    const dnnl_memory_desc_t weight =
        kernel_layout(node, m->shapes[node->input[0]].channels);
    const dnnl_memory_desc_t bias = vector_layout(node->channels);
    const dnnl_dims_t stride = {1, 1};
    const dnnl_dims_t border = {(dnnl_dim_t)node->kernel / 2,
                                (dnnl_dim_t)node->kernel / 2};
    const dnnl_status_t st = dnnl_convolution_forward_desc_init(
        &conv, dnnl_forward_inference, algorithm, source, &weight,
        node->bias == LUNA_NONE ? NULL : &bias, &target, stride, border, border);
    if (st != dnnl_success) return st;
    return dnnl_primitive_desc_create(out, &conv, attr, m->state->engine, NULL);
}

//  Winograd where it exists for the shape (it wants a layout of its own), else direct, in
//  the value's own layout unless that is planar, for which there is only slow code.
static dnnl_status_t choose_conv(cpu_maker *m, size_t i, const cpu_value *from,
                                 const_dnnl_primitive_attr_t attr,
                                 dnnl_primitive_desc_t *out)
{
    const size_t source = (size_t)m->graph->node[i].input[0];
    const dnnl_memory_desc_t any = any_layout(&m->shapes[source]);
    dnnl_status_t st = describe_conv(m, i, &any, dnnl_convolution_winograd, attr, out);
    if (st == dnnl_success) return st;
    const dnnl_memory_desc_t *as_is = is_planar(m, source, from) ? &any : &from->layout;
    st = describe_conv(m, i, as_is, dnnl_convolution_direct, attr, out);
    if (st == dnnl_success) return st;
    return describe_conv(m, i, &any, dnnl_convolution_auto, attr, out);
}

//  Where the sums go: a new buffer, or the residual's own memory or a copy of it, to
//  which oneDNN adds.
static luna_err conv_target(cpu_maker *m, const dnnl_memory_desc_t *layout,
                            const cpu_fusion *fusion, cpu_value *out)
{
    if (fusion->residual && fusion->overwrite &&
        dnnl_memory_desc_equal(&fusion->residual->layout, layout)) {
        *out = *fusion->residual;
        return LUNA_OK;
    }
    LUNA_TRY(new_value(m, layout, out));
    return fusion->residual ? cpu_emit_reorder(m, fusion->residual, out) : LUNA_OK;
}

static luna_err conv_step(cpu_maker *m, size_t i, dnnl_primitive_desc_t desc,
                          const cpu_value *source, const cpu_value *target)
{
    cpu_step *step = NULL;
    const luna_node *node = &m->graph->node[i];
    const dnnl_memory_desc_t weight = layout_of(desc, dnnl_query_weights_md);
    const dnnl_memory_desc_t bias = vector_layout(node->channels);
    LUNA_TRY(new_primitive(m, desc, &step));
    LUNA_TRY(add_arg(m, step, DNNL_ARG_SRC, source));
    LUNA_TRY(add_weight(m, step, DNNL_ARG_WEIGHTS, node->weight, &weight));
    if (node->bias != LUNA_NONE)
        LUNA_TRY(add_weight(m, step, DNNL_ARG_BIAS, node->bias, &bias));
    return add_arg(m, step, DNNL_ARG_DST, target);
}

luna_err cpu_emit_conv(cpu_maker *m, size_t i, const cpu_value *from,
                       const cpu_fusion *fusion, cpu_value *out)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    cpu_value source;
    dnnl_status_t st = new_attr(fusion, &attr);
    if (st == dnnl_success) st = choose_conv(m, i, from, attr, &desc);
    if (attr) dnnl_primitive_attr_destroy(attr);
    LUNA_TRY(cpu_check(st, "a convolution"));
    const dnnl_memory_desc_t wanted = layout_of(desc, dnnl_query_src_md);
    const dnnl_memory_desc_t target = layout_of(desc, dnnl_query_dst_md);
    luna_err err = in_layout(m, from, &wanted, &source);
    if (err == LUNA_OK) err = conv_target(m, &target, fusion, out);
    if (err == LUNA_OK) return conv_step(m, i, desc, &source, out);
    dnnl_primitive_desc_destroy(desc);
    return err;
}

//  The step of a primitive with one source and one result.
static luna_err simple_step(cpu_maker *m, dnnl_primitive_desc_t desc,
                            const cpu_value *from, cpu_value *out)
{
    cpu_step *step = NULL;
    const dnnl_memory_desc_t target = layout_of(desc, dnnl_query_dst_md);
    luna_err err = new_value(m, &target, out);
    if (err != LUNA_OK) {
        dnnl_primitive_desc_destroy(desc);
        return err;
    }
    LUNA_TRY(new_primitive(m, desc, &step));
    LUNA_TRY(add_arg(m, step, DNNL_ARG_SRC, from));
    return add_arg(m, step, DNNL_ARG_DST, out);
}

static luna_err describe_simple(cpu_maker *m, const_dnnl_op_desc_t operation,
                                const char *what, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t st = new_attr(NULL, &attr);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(out, operation, attr, m->state->engine, NULL);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return cpu_check(st, what);
}

luna_err cpu_emit_eltwise(cpu_maker *m, size_t i, const cpu_value *from, cpu_value *out)
{
    dnnl_eltwise_desc_t operation;
    dnnl_primitive_desc_t desc = NULL;
    const bool silu = m->graph->node[i].op == LUNA_OP_SILU;
    LUNA_TRY(cpu_check(
        dnnl_eltwise_forward_desc_init(&operation, dnnl_forward_inference,
                                       silu ? dnnl_eltwise_swish : dnnl_eltwise_relu,
                                       &from->layout, silu ? 1.0F : 0.0F, 0.0F),
        "an activation"));
    LUNA_TRY(describe_simple(m, &operation, "an activation", &desc));
    return simple_step(m, desc, from, out);
}

luna_err cpu_emit_upsample(cpu_maker *m, size_t i, const cpu_value *from, cpu_value *out)
{
    dnnl_resampling_desc_t operation;
    dnnl_primitive_desc_t desc = NULL;
    const float factors[] = {2.0F, 2.0F};
    const dnnl_memory_desc_t target = any_layout(&m->shapes[i]);
    LUNA_TRY(cpu_check(dnnl_resampling_forward_desc_init(
                           &operation, dnnl_forward_inference, dnnl_resampling_nearest,
                           factors, &from->layout, &target),
                       "an upsampling"));
    LUNA_TRY(describe_simple(m, &operation, "an upsampling", &desc));
    return simple_step(m, desc, from, out);
}

luna_err cpu_emit_add(cpu_maker *m, const cpu_value *a, const cpu_value *b,
                      cpu_value *out)
{
    dnnl_binary_desc_t operation;
    dnnl_primitive_desc_t desc = NULL;
    cpu_step *step = NULL;
    cpu_value second;
    LUNA_TRY(in_layout(m, b, &a->layout, &second));
    LUNA_TRY(cpu_check(dnnl_binary_desc_init(&operation, dnnl_binary_add, &a->layout,
                                             &second.layout, &a->layout),
                       "an addition"));
    LUNA_TRY(new_value(m, &a->layout, out));
    LUNA_TRY(describe_simple(m, &operation, "an addition", &desc));
    LUNA_TRY(new_primitive(m, desc, &step));
    LUNA_TRY(add_arg(m, step, DNNL_ARG_SRC_0, a));
    LUNA_TRY(add_arg(m, step, DNNL_ARG_SRC_1, &second));
    return add_arg(m, step, DNNL_ARG_DST, out);
}

//  Channels a block of [C / block, H, W, block]; 0 for any other layout, and for blocks
//  that the channels do not fill: oneDNN expects zeros in the rest.
static size_t block_of(const luna_shape *shape, const dnnl_memory_desc_t *layout)
{
    const dnnl_dims_t sizes = {1, (dnnl_dim_t)shape->channels, (dnnl_dim_t)shape->height,
                               (dnnl_dim_t)shape->width};
    static const dnnl_format_tag_t tags[] = {dnnl_nchw, dnnl_nChw4c, dnnl_nChw8c,
                                             dnnl_nChw16c, dnnl_nhwc};
    const size_t blocks[] = {1, 4, 8, 16, shape->channels};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        dnnl_memory_desc_t known;
        dnnl_memory_desc_init_by_tag(&known, 4, sizes, dnnl_f32, tags[i]);
        if (dnnl_memory_desc_equal(&known, layout))
            return shape->channels % blocks[i] == 0 ? blocks[i] : 0;
    }
    return 0;
}

static luna_err norm_weights(cpu_maker *m, const luna_node *node, const float **weight,
                             const float **bias)
{
    void *data = NULL;
    const dnnl_memory_desc_t layout = vector_layout(node->channels);
    LUNA_TRY(cpu_weight_get(m->state, node->weight, &layout, &data));
    *weight = data;
    if (node->bias == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(cpu_weight_get(m->state, node->bias, &layout, &data));
    *bias = data;
    return LUNA_OK;
}

static cpu_kind kind_of(luna_op op)
{
    if (op == LUNA_OP_GROUP_NORM) return CPU_GROUP_NORM;
    if (op == LUNA_OP_RMS_NORM) return CPU_RMS_NORM;
    if (op == LUNA_OP_BATCH_NORM_INVERSE) return CPU_BATCH_NORM_INVERSE;
    return op == LUNA_OP_UNPACK ? CPU_UNPACK : CPU_ELEMENTWISE;
}

luna_err cpu_emit_own(cpu_maker *m, size_t i, const cpu_value *from, cpu_value *out)
{
    cpu_step *step = NULL;
    cpu_value source = *from;
    const luna_node *node = &m->graph->node[i];
    const luna_shape *shape = &m->shapes[node->input[0]];
    const dnnl_memory_desc_t planar = cpu_planar(shape),
                             result = cpu_planar(&m->shapes[i]);
    const bool norm = node->op == LUNA_OP_GROUP_NORM;
    const size_t block = norm ? block_of(shape, &from->layout) : 0;
    const float *weight = NULL, *bias = NULL;
    if (node->weight != LUNA_NONE) LUNA_TRY(norm_weights(m, node, &weight, &bias));
    if (block == 0) LUNA_TRY(in_layout(m, from, &planar, &source));
    LUNA_TRY(new_value(m, norm ? &source.layout : &result, out));
    LUNA_TRY(new_step(m->plan, &step));
    *step = (cpu_step){.kind = kind_of(node->op),
                       .node = node,
                       .shape = m->shapes[i],
                       .from = {source.buffer, LUNA_NONE, LUNA_NONE},
                       .to = out->buffer,
                       .block = block ? block : 1,
                       .weight = weight,
                       .bias = bias};
    touch(m->plan, source.buffer);
    touch(m->plan, out->buffer);
    return LUNA_OK;
}

static luna_err attention_scratch(cpu_maker *m, const luna_shape *shape, int *out)
{
    cpu_value value;
    dnnl_memory_desc_t layout;
    const dnnl_dims_t bytes = {(dnnl_dim_t)cpu_attention_bytes(shape)};
    dnnl_memory_desc_init_by_tag(&layout, 1, bytes, dnnl_u8, dnnl_a);
    LUNA_TRY(new_value(m, &layout, &value));
    *out = value.buffer;
    return LUNA_OK;
}

luna_err cpu_emit_attention(cpu_maker *m, size_t i,
                            const cpu_value *const from[LUNA_INPUTS], cpu_value *out)
{
    const luna_shape *shape = &m->shapes[i];
    const dnnl_memory_desc_t planar = cpu_planar(shape);
    cpu_step made = {
        .kind = CPU_ATTENTION, .node = &m->graph->node[i], .shape = *shape, .block = 1};
    cpu_step *step = NULL;
    for (int k = 0; k < LUNA_INPUTS; k++) {
        cpu_value source;
        LUNA_TRY(in_layout(m, from[k], &planar, &source));
        made.from[k] = source.buffer;
    }
    LUNA_TRY(attention_scratch(m, shape, &made.scratch));
    LUNA_TRY(new_value(m, &planar, out));
    made.to = out->buffer;
    LUNA_TRY(new_step(m->plan, &step));
    *step = made;
    for (int k = 0; k < LUNA_INPUTS; k++) touch(m->plan, made.from[k]);
    touch(m->plan, made.scratch);
    touch(m->plan, made.to);
    return LUNA_OK;
}
