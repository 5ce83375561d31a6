#define _GNU_SOURCE  //  madvise
#include "decoder/vae/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

float *cpu_area(const cpu_run *r, const cpu_pass *pass, int area)
{
    const int span = pass->area[area];
    if (span == LUNA_NONE) return NULL;
    return (float *)r->state->arena + r->plan->spans[span].offset / sizeof(float);
}

float *cpu_work_of(const cpu_run *r, const cpu_pass *pass, size_t thread)
{
    return cpu_area(r, pass, CPU_WORK) + thread * pass->work;
}

void cpu_step(cpu_run *r)
{
    if (r->state->step) r->state->step(r->state->step_context);
}

static void make_row(cpu_run *r, const cpu_pass *pass, size_t y, size_t thread)
{
    float *work = cpu_work_of(r, pass, thread);
    float *row = cpu_row_stored(r, pass->node, y);
    if (!row) row = work + pass->row_work;
    cpu_row_define(r, pass->node, y, work, row);
    cpu_row_finish(r, pass, y, row);
}

typedef struct rows {
    cpu_run *run;
    const cpu_pass *pass;
} rows;

static void take_row(void *context, size_t y, size_t thread)
{
    const rows *all = context;
    make_row(all->run, all->pass, y, thread);
}

static void run_rows(cpu_run *r, const cpu_pass *pass)
{
    rows all = {.run = r, .pass = pass};
    cpu_team_run(r->state->team, r->plan->value[pass->node].shape.height, take_row, &all);
    cpu_step(r);
}

typedef struct loader {
    cpu_weights *weights;
    const luna_graph *graph;
    luna_err err;
} loader;

static void load(void *context, size_t node)
{
    loader *l = context;
    if (l->err == LUNA_OK && l->graph->node[node].op == LUNA_OP_CONV2D)
        l->err = cpu_weights_load(l->weights, l->graph, node);
}

static luna_err run_pass(cpu_run *r, const cpu_pass *pass)
{
    loader l = {.weights = &r->state->weights, .graph = r->plan->graph};
    cpu_plan_visit(r->plan, pass, load, &l);
    if (l.err == LUNA_OK) {
        if (pass->kind == CPU_ROWS) run_rows(r, pass);
        if (pass->kind == CPU_BANDS) cpu_bands_run(r, pass);
        if (pass->kind == CPU_ATTENTION) cpu_attention_run(r, pass);
        if (pass->area[CPU_MOMENTS] != LUNA_NONE) cpu_moments_finish(r, pass);
    }
    cpu_weights_unload(&r->state->weights);
    return l.err;
}

//  Large pages: a row of a picture touches many small ones.
static luna_err grow_arena(cpu_state *s, size_t bytes)
{
    enum { LARGE = 2 << 20 };
    if (s->arena && bytes <= s->arena_bytes) return LUNA_OK;
    const size_t room = (bytes / LARGE + 1) * LARGE;
    free(s->arena);
    s->arena_bytes = 0;
    s->arena = aligned_alloc(LARGE, room);
    if (!s->arena)
        return luna_error(LUNA_NO_MEMORY, "no memory for a decode of %zu bytes", bytes);
    madvise(s->arena, room, MADV_HUGEPAGE);
    s->arena_bytes = room;
    return LUNA_OK;
}

static luna_err check_file(cpu_run *r)
{
    const int error = atomic_load(&r->file_error);
    if (error == 0) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "the temporary file of a decode failed: %s",
                      strerror(error));
}

static luna_err run_passes(cpu_run *r)
{
    for (size_t i = 0; i < r->plan->pass_count; i++) {
        LUNA_TRY(run_pass(r, &r->plan->passes[i]));
        LUNA_TRY(check_file(r));
    }
    return LUNA_OK;
}

luna_err cpu_plan_run(cpu_state *s, luna_plan *plan, const float *input, float *output)
{
    cpu_run r = {.state = s,
                 .kernels = s->kernels,
                 .plan = plan,
                 .input = input,
                 .output = output,
                 .file = -1};
    LUNA_TRY(grow_arena(s, plan->arena_bytes));
    if (plan->file_bytes) LUNA_TRY(cpu_spill_open(plan->file_bytes, &r.file));
    const luna_err err = run_passes(&r);
    if (r.file >= 0) close(r.file);
    return err;
}
