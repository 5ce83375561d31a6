//  What steps are made of: buffers, constants, and what is still to be added to a value.

#include "decoder/vae/cuda/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

//  ---- buffers ----------------------------------------------------------------------

luna_err gpu_plan_no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
}

//  A new buffer, alive from the next step on.
luna_err gpu_plan_buffer(gpu_program *program, size_t bytes, int *out)
{
    if (program->buffer_count == program->buffer_room) {
        const size_t room = 2 * program->buffer_room + 32;
        luna_span *larger = realloc(program->spans, room * sizeof *larger);
        if (!larger) return gpu_plan_no_memory();
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
                      .to = gpu_extent_of(p, node),
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
        if (!larger) return gpu_plan_no_memory();
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
    *out = (gpu_value){
        .extent = gpu_extent_of(p, node), .pairs = LUNA_NONE, .parts = LUNA_NONE};
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
luna_err gpu_plan_constants(gpu_planner *p, size_t count, long *at, float **out)
{
    const size_t room = gpu_room(count);
    if (p->constant_count + room > p->constant_room) {
        const size_t wanted = 2 * (p->constant_count + room);
        float *larger = realloc(p->constants, wanted * sizeof *larger);
        if (!larger) return gpu_plan_no_memory();
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
    LUNA_TRY(gpu_plan_constants(p, channels, at, &out));
    for (size_t i = 0; more && i < channels; i++) out[i] = more[i];
    if (number == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(luna_backend_floats(&gpu_lane_of(p)->weights->item[number], &values));
    for (size_t i = 0; i < channels; i++) out[i] += ldexpf(values[i], exponent);
    free(values);
    return LUNA_OK;
}

luna_err gpu_plan_add_vector(gpu_planner *p, int number, size_t channels, int exponent,
                             long at)
{
    float *values = NULL;
    if (number == LUNA_NONE) return LUNA_OK;
    LUNA_TRY(luna_backend_floats(&gpu_lane_of(p)->weights->item[number], &values));
    for (size_t i = 0; i < channels; i++)
        p->constants[(size_t)at + i] += ldexpf(values[i], exponent);
    free(values);
    return LUNA_OK;
}

//  ---- values -----------------------------------------------------------------------

//  Adds what is pending to a value.
luna_err gpu_plan_settle(gpu_planner *p, size_t node)
{
    gpu_value *value = &p->value[node];
    gpu_step step = gpu_plan_step(p, GPU_STEP_ADD, 0);
    if (!value->pending) return LUNA_OK;
    LUNA_TRY(gpu_plan_vector(p, LUNA_NONE, (size_t)value->extent.channels, 0,
                             value->pending, &step.bias));
    step.to = value->extent;
    step.x = step.y = value->buffer;
    value->pending = NULL;
    return gpu_plan_append(p, &step);
}

luna_err gpu_plan_settle_input(gpu_planner *p, size_t node)
{
    return gpu_plan_settle(p, (size_t)p->graph->node[node].input[0]);
}

//  An elementwise step: over its input where that may be, else to a new buffer.
luna_err gpu_plan_result(gpu_planner *p, size_t value, size_t reader, size_t result,
                         gpu_value *to)
{
    if (!may_overwrite(p, value, reader)) return gpu_plan_value(p, result, to);
    *to = (gpu_value){.buffer = p->value[value].buffer,
                      .extent = gpu_extent_of(p, result),
                      .pairs = LUNA_NONE,
                      .parts = LUNA_NONE};
    return LUNA_OK;
}
