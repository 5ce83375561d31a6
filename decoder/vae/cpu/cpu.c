//  The CPU backend: fp32, on all processors of the machine or as many as asked for.

#include "decoder/vae/cpu/cpu.h"

#include <stdlib.h>

static const char *describe(void)
{
    return cpu_kernels_find(NULL)->name;
}

static luna_err precision(luna_vae_precision wanted, luna_vae_precision *out)
{
    return luna_backend_reference.precision(wanted, out);
}

static void trim(void *opaque)
{
    cpu_state *s = opaque;
    cpu_weights_free(&s->weights);
    free(s->arena);
    s->arena = NULL;
    s->arena_bytes = 0;
}

static void close_state(void *opaque)
{
    cpu_state *s = opaque;
    trim(s);
    cpu_team_destroy(&s->team);
    free(s);
}

static luna_err open_state(const luna_backend_options *options, void **out)
{
    cpu_state *s = calloc(1, sizeof *s);
    if (!s) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder");
    s->kernels = cpu_kernels_find(NULL);
    s->step = options->step;
    s->step_context = options->step_context;
    const luna_err err = cpu_team_create(options->threads, &s->team);
    if (err != LUNA_OK) {
        free(s);
        return err;
    }
    s->weights =
        (cpu_weights){.file = options->weights, .kernels = s->kernels, .team = s->team};
    *out = s;
    return LUNA_OK;
}

//  Packed weights of the largest convolution: the least that is held beside values.
static size_t largest_weights(const luna_graph *graph)
{
    size_t most = 0;
    for (size_t i = 0; i < graph->count; i++) {
        if (graph->node[i].op != LUNA_OP_CONV2D) continue;
        const size_t bytes = cpu_weights_size(graph, i);
        if (bytes > most) most = bytes;
    }
    return most;
}

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

//  Values come first, for a file is dear; then packed weights.
static luna_err fit(cpu_state *s, const luna_plan_request *request, luna_plan **out)
{
    const size_t limit =
        request->memory_limit_bytes ? request->memory_limit_bytes : CPU_DEFAULT_BYTES;
    const size_t reserve = request->staging_bytes + largest_weights(request->graph);
    const size_t room = less(limit, reserve);
    LUNA_TRY(cpu_plan_build(request, cpu_team_size(s->team), room, out));
    return cpu_weights_prepare(&s->weights, request->graph,
                               less(room, (*out)->arena_bytes));
}

static luna_err compile(void *opaque, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost)
{
    cpu_state *s = opaque;
    luna_plan *plan = NULL;
    luna_err err = fit(s, request, &plan);
    if (err == LUNA_OK) {
        cost->steps = cpu_plan_steps(plan);
        cost->weight_bytes = s->weights.bytes;
        cost->peak_bytes =
            s->weights.bytes + plan->arena_bytes + largest_weights(request->graph);
        err = luna_backend_over_limit(request, cost->peak_bytes);
    }
    if (err != LUNA_OK) cpu_plan_free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

static luna_err run(void *opaque, luna_plan *plan, const float *input, float *output)
{
    return cpu_plan_run(opaque, plan, input, output);
}

static void free_plan(void *opaque, luna_plan *plan)
{
    (void)opaque;
    cpu_plan_free(plan);
}

const luna_backend luna_backend_cpu = {.device = "cpu",
                                       .describe = describe,
                                       .precision = precision,
                                       .open = open_state,
                                       .close = close_state,
                                       .compile = compile,
                                       .run = run,
                                       .free_plan = free_plan,
                                       .trim = trim};
