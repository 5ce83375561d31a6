#include "decoder/vae/cpu/cpu.h"

#include <math.h>
#include <string.h>

static const luna_node *node_at(const luna_plan *plan, size_t node)
{
    return &plan->graph->node[node];
}

static size_t input_of(const luna_plan *plan, size_t node, int k)
{
    return (size_t)node_at(plan, node)->input[k];
}

float *cpu_row_stored(const cpu_run *r, size_t node, size_t y)
{
    const cpu_value *value = &r->plan->value[node];
    if (!value->stored || value->spilled || value->span == LUNA_NONE) return NULL;
    const size_t offset = r->plan->spans[value->span].offset / sizeof(float);
    return (float *)r->state->arena + offset + y * value->row_floats;
}

static size_t file_offset(const luna_plan *plan, size_t node, size_t y)
{
    const cpu_value *value = &plan->value[node];
    return plan->file_spans[value->span].offset + y * value->row_floats * sizeof(float);
}

//  A decode whose file fails goes on with zeros, and says so at its end.
static void note(cpu_run *r, int error)
{
    int none = 0;
    if (error) atomic_compare_exchange_strong(&r->file_error, &none, error);
}

static void fetch(cpu_run *r, size_t node, size_t y, float *out)
{
    const cpu_value *value = &r->plan->value[node];
    const size_t bytes = value->row_floats * sizeof *out;
    const float *stored = cpu_row_stored(r, node, y);
    if (stored) {
        memcpy(out, stored, bytes);
        return;
    }
    const int error = cpu_spill_read(r->file, out, bytes, file_offset(r->plan, node, y));
    if (error) memset(out, 0, bytes);
    note(r, error);
}

void cpu_row(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    if (r->plan->value[node].stored)
        fetch(r, node, y, out);
    else
        cpu_row_define(r, node, y, work, out);
}

//  Row y of an input, where it is or worked out into `room`.
static const float *reach(cpu_run *r, size_t node, size_t y, float *work, float *room)
{
    const float *stored = cpu_row_stored(r, node, y);
    if (stored) return stored;
    cpu_row(r, node, y, work, room);
    return room;
}

//  Operations that read another width, or more rows than they make, take a row of their
//  own for it.
static size_t own_work(const luna_plan *plan, size_t node)
{
    const luna_node *n = node_at(plan, node);
    const size_t input = input_of(plan, node, n->op == LUNA_OP_ADD ? 1 : 0);
    switch (n->op) {
        case LUNA_OP_CONV2D:
        case LUNA_OP_UPSAMPLE:
        case LUNA_OP_UNPACK:
        case LUNA_OP_ADD:
            return plan->value[input].row_floats;
        default:
            return 0;
    }
}

static size_t define_work(const luna_plan *plan, size_t node)
{
    size_t most = 0;
    for (int k = 0; k < LUNA_INPUTS; k++) {
        if (node_at(plan, node)->input[k] == LUNA_NONE) continue;
        const size_t input = input_of(plan, node, k);
        const size_t work = plan->value[input].stored ? 0 : define_work(plan, input);
        if (work > most) most = work;
    }
    return most + (node_at(plan, node)->op == LUNA_OP_INPUT ? 0 : own_work(plan, node));
}

size_t cpu_row_work(const luna_plan *plan, size_t node)
{
    return define_work(plan, node);
}

static void define_input(const cpu_run *r, size_t y, float *out)
{
    const cpu_value *value = &r->plan->value[0];
    const luna_shape *s = &value->shape;
    memset(out, 0, value->row_floats * sizeof *out);
    for (size_t c = 0; c < s->channels; c++)
        for (size_t x = 0; x < s->width; x++)
            out[x * value->channels + c] = r->input[(c * s->height + y) * s->width + x];
}

static void define_conv(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const luna_node *n = node_at(r->plan, node);
    const cpu_value *value = &r->plan->value[node];
    const cpu_value *from = &r->plan->value[n->input[0]];
    const cpu_product product = {
        .a = reach(r, (size_t)n->input[0], y, work + from->row_floats, work),
        .a_stride = from->channels,
        .rows = value->shape.width,
        .b = r->state->weights.packed[n->weight],
        .panel_stride = from->channels * CPU_PANEL,
        .depth = from->channels,
        .columns = value->channels,
        .c = out,
        .c_stride = value->channels,
        .add = true};
    r->kernels->fill(cpu_weights_vector(&r->state->weights, n->bias), value->shape.width,
                     value->channels, out);
    r->kernels->product(&product);
}

static void define_add(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const cpu_value *value = &r->plan->value[node];
    float *rest = work + value->row_floats;
    cpu_row(r, input_of(r->plan, node, 0), y, work, out);
    const float *other = reach(r, input_of(r->plan, node, 1), y, rest, work);
    r->kernels->add(out, other, value->row_floats, out);
}

static void define_upsample(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const size_t input = input_of(r->plan, node, 0);
    const cpu_value *from = &r->plan->value[input];
    const size_t bytes = from->channels * sizeof *out;
    const float *x = reach(r, input, y / 2, work + from->row_floats, work);
    for (size_t i = 0; i < from->shape.width; i++, x += from->channels) {
        memcpy(out + 2 * i * from->channels, x, bytes);
        memcpy(out + (2 * i + 1) * from->channels, x, bytes);
    }
}

static void define_unpack(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const size_t input = input_of(r->plan, node, 0);
    const cpu_value *from = &r->plan->value[input], *value = &r->plan->value[node];
    const float *x = reach(r, input, y / 2, work + from->row_floats, work);
    memset(out, 0, value->row_floats * sizeof *out);
    for (size_t i = 0; i < value->shape.width; i++)
        for (size_t c = 0; c < value->shape.channels; c++)
            out[i * value->channels + c] =
                x[i / 2 * from->channels + 4 * c + 2 * (y % 2) + i % 2];
}

static void tanh_clamp(const luna_node *n, const float *x, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) out[i] = n->scale * tanhf(x[i] / n->scale);
}

//  Lanes that fill up stay zero, as everywhere.
static void affine(const luna_node *n, const float *x, const cpu_value *value, float *out)
{
    for (size_t i = 0; i < value->row_floats; i++)
        out[i] = i % value->channels < n->channels ? (x[i] - n->shift) * n->scale : 0.0F;
}

static void batch_norm_inverse(const cpu_run *r, size_t node, const float *x, float *out)
{
    const luna_node *n = node_at(r->plan, node);
    const cpu_value *value = &r->plan->value[node];
    const float *variance = cpu_weights_vector(&r->state->weights, n->weight);
    const float *mean = cpu_weights_vector(&r->state->weights, n->bias);
    for (size_t i = 0; i < value->row_floats; i++) {
        const size_t c = i % value->channels;
        out[i] = x[i] * sqrtf(variance[c] + n->epsilon) + mean[c];
    }
}

//  SiLU of a group norm that is not stored: both at once.
static bool silu_of_norm(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const size_t norm = input_of(r->plan, node, 0);
    const cpu_value *value = &r->plan->value[norm];
    if (node_at(r->plan, norm)->op != LUNA_OP_GROUP_NORM || value->stored) return false;
    const float *x = reach(r, input_of(r->plan, norm, 0), y, work, out);
    r->kernels->scale(x, value->shape.width, value->channels, value->coefficients, true,
                      out);
    return true;
}

static void define_simple(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    const luna_node *n = node_at(r->plan, node);
    const cpu_value *value = &r->plan->value[node];
    const size_t count = value->row_floats;
    if (n->op == LUNA_OP_SILU && silu_of_norm(r, node, y, work, out)) return;
    const float *x = reach(r, (size_t)n->input[0], y, work, out);
    if (n->op == LUNA_OP_SILU) r->kernels->silu(x, count, out);
    if (n->op == LUNA_OP_RELU) r->kernels->relu(x, count, out);
    if (n->op == LUNA_OP_TANH_CLAMP) tanh_clamp(n, x, count, out);
    if (n->op == LUNA_OP_AFFINE) affine(n, x, value, out);
    if (n->op == LUNA_OP_BATCH_NORM_INVERSE) batch_norm_inverse(r, node, x, out);
    if (n->op == LUNA_OP_GROUP_NORM)
        r->kernels->scale(x, value->shape.width, value->channels, value->coefficients,
                          false, out);
    if (n->op == LUNA_OP_RMS_NORM)
        r->kernels->rms(x, value->shape.width, value->channels, sqrtf((float)n->channels),
                        n->epsilon, cpu_weights_vector(&r->state->weights, n->weight),
                        out);
}

void cpu_row_define(cpu_run *r, size_t node, size_t y, float *work, float *out)
{
    switch (node_at(r->plan, node)->op) {
        case LUNA_OP_INPUT:
            define_input(r, y, out);
            break;
        case LUNA_OP_CONV2D:
            define_conv(r, node, y, work, out);
            break;
        case LUNA_OP_ADD:
            define_add(r, node, y, work, out);
            break;
        case LUNA_OP_UPSAMPLE:
            define_upsample(r, node, y, work, out);
            break;
        case LUNA_OP_UNPACK:
            define_unpack(r, node, y, work, out);
            break;
        default:
            define_simple(r, node, y, work, out);
            break;
    }
}

static void give(const cpu_run *r, const cpu_value *value, size_t y, const float *row)
{
    const luna_shape *s = &value->shape;
    for (size_t c = 0; c < s->channels; c++) {
        float *out = r->output + (c * s->height + y) * s->width;
        for (size_t x = 0; x < s->width; x++) out[x] = row[x * value->channels + c];
    }
}

void cpu_row_finish(cpu_run *r, const cpu_pass *pass, size_t y, const float *row)
{
    const cpu_value *value = &r->plan->value[pass->node];
    if (pass->area[CPU_MOMENTS] != LUNA_NONE) cpu_moments_take(r, pass, y, row);
    if (pass->node + 1 == r->plan->graph->count) give(r, value, y, row);
    if (!value->spilled) return;
    note(r, cpu_spill_write(r->file, row, value->row_floats * sizeof *row,
                            file_offset(r->plan, pass->node, y)));
}
