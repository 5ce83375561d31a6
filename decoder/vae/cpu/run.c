#include "decoder/vae/cpu/onednn.h"
#include "decoder/vae/elementwise.h"
#include "decoder/vae/group_norm.h"

#include <stdint.h>
#include <stdlib.h>

typedef struct run_memory {
    const luna_plan *plan;
    uint8_t *arena;
    float *input;
    float *output;
} run_memory;

static void *buffer_at(const run_memory *memory, int buffer)
{
    if (buffer == CPU_INPUT) return memory->input;
    if (buffer == CPU_OUTPUT) return memory->output;
    return memory->arena + memory->plan->spans[buffer].offset;
}

static luna_err run_primitive(cpu_state *s, const cpu_step *step,
                              const run_memory *memory)
{
    dnnl_exec_arg_t args[CPU_ARGS];
    for (int i = 0; i < step->arg_count; i++) {
        const cpu_arg *arg = &step->arg[i];
        args[i] = (dnnl_exec_arg_t){.arg = arg->role, .memory = arg->memory};
        if (arg->buffer == LUNA_NONE) continue;
        LUNA_TRY(cpu_check(
            dnnl_memory_set_data_handle(arg->memory, buffer_at(memory, arg->buffer)),
            "a view of memory"));
    }
    return cpu_check(
        dnnl_primitive_execute(step->primitive, s->stream, step->arg_count, args),
        "an operation");
}

static void run_norm(const cpu_step *step, const float *from, float *to)
{
    const luna_group_norm norm = {.channels = step->shape.channels,
                                  .groups = step->node->groups,
                                  .pixels = step->shape.height * step->shape.width,
                                  .block = step->block,
                                  .epsilon = step->node->epsilon,
                                  .weight = step->weight,
                                  .bias = step->bias};
    luna_group_norm_run(&norm, from, to);
}

static luna_err run_attention(const cpu_step *step, const run_memory *memory)
{
    return cpu_attention_run(
        &step->shape, buffer_at(memory, step->from[0]), buffer_at(memory, step->from[1]),
        buffer_at(memory, step->from[2]), buffer_at(memory, step->scratch),
        buffer_at(memory, step->to));
}

static luna_err run_step(cpu_state *s, const cpu_step *step, const run_memory *memory)
{
    if (step->kind == CPU_PRIMITIVE) return run_primitive(s, step, memory);
    LUNA_TRY(cpu_check(dnnl_stream_wait(s->stream), "waiting"));
    const float *from = buffer_at(memory, step->from[0]);
    float *to = buffer_at(memory, step->to);
    if (step->kind == CPU_ATTENTION) return run_attention(step, memory);
    if (step->kind == CPU_GROUP_NORM) run_norm(step, from, to);
    if (step->kind == CPU_UNPACK) luna_unpack_run(&step->shape, from, to);
    if (step->kind == CPU_ELEMENTWISE)
        luna_elementwise_run(step->node, from, step->shape.count, to);
    if (step->kind == CPU_RMS_NORM)
        luna_rms_norm_run(&step->shape, step->node->epsilon, step->weight, from, to);
    if (step->kind == CPU_BATCH_NORM_INVERSE)
        luna_batch_norm_inverse_run(&step->shape, step->node->epsilon, step->weight,
                                    step->bias, from, to);
    return LUNA_OK;
}

static luna_err grow_arena(cpu_state *s, size_t bytes)
{
    if (s->arena && bytes <= s->arena_bytes) return LUNA_OK;
    const size_t room = bytes < LUNA_MEMORY_ALIGN ? LUNA_MEMORY_ALIGN : bytes;
    free(s->arena);
    s->arena_bytes = 0;
    s->arena = aligned_alloc(LUNA_MEMORY_ALIGN, room);
    if (!s->arena)
        return luna_error(LUNA_NO_MEMORY, "no memory for a decode of %zu bytes", bytes);
    s->arena_bytes = room;
    return LUNA_OK;
}

luna_err cpu_run(cpu_state *s, luna_plan *plan, const float *input, float *output)
{
    LUNA_TRY(grow_arena(s, plan->arena_bytes));
    const run_memory memory = {.plan = plan,
                               .arena = s->arena,
                               .input = (float *)(uintptr_t)input,
                               .output = output};
    for (size_t i = 0; i < plan->step_count; i++) {
        LUNA_TRY(run_step(s, &plan->steps[i], &memory));
        if (s->step) s->step(s->step_context);
    }
    return cpu_check(dnnl_stream_wait(s->stream), "waiting");
}
