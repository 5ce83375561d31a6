//  The choice among cuDNN's plans for one convolution. The library's own order is a
//  guess; the best plan is often a third faster than its first, so each problem is timed
//  once per card and version, and the choice kept on disk.

#include "decoder/vae/cuda/conv.h"
#include "decoder/vae/cuda/timing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum { CONFIGS = 16, ROUNDS = 4 };

static const float turn_ms = 6.0F;   //  of a plan in each round
static const float near = 1.25F;     //  times the best: worth a second look
static const float hopeless = 4.0F;  //  times the best, at the very first run

static const size_t workspace_max = (size_t)256 << 20;

typedef struct candidates {
    gpu_desc item[3 * CONFIGS];
    size_t count;
} candidates;

static void free_candidates(candidates *c)
{
    while (c->count > 0) (void)cudnnBackendDestroyDescriptor(c->item[--c->count]);
}

//  What must not be: another result each time, less than fp32 sums, transforms that lose
//  digits.
static bool is_refused(cudnnBackendNumericalNote_t note)
{
    return note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
           note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
           note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
           note == CUDNN_NUMERICAL_NOTE_FFT ||
           (note >= CUDNN_NUMERICAL_NOTE_WINOGRAD &&
            note <= CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);
}

static bool is_allowed(gpu_desc config)
{
    gpu_desc engine = NULL;
    int64_t count = 0;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine))
        return false;
    bool good = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                         &engine) == CUDNN_STATUS_SUCCESS;
    if (good)
        good = cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                        CUDNN_TYPE_NUMERICAL_NOTE,
                                        CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                        notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; good && i < count; i++) good = !is_refused(notes[i]);
    (void)cudnnBackendDestroyDescriptor(engine);
    return good;
}

//  Keeps those of `configs` that are allowed, frees the others.
static void sift(gpu_desc *configs, int64_t made, int64_t got, candidates *out)
{
    for (int64_t i = 0; i < made; i++) {
        if (i < got && is_allowed(configs[i]))
            out->item[out->count++] = configs[i];
        else
            (void)cudnnBackendDestroyDescriptor(configs[i]);
    }
}

static void ask(gpu_desc graph, cudnnBackendHeurMode_t mode, candidates *out)
{
    gpu_desc heuristic = NULL, configs[CONFIGS];
    int64_t made = 0, got = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic))
        return;
    (void)cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    (void)cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE,
                                   CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (cudnnBackendFinalize(heuristic) == CUDNN_STATUS_SUCCESS) {
        while (made < CONFIGS &&
               cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                            &configs[made]) == CUDNN_STATUS_SUCCESS)
            made++;
        if (cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &got, configs))
            got = 0;
    }
    sift(configs, made, got, out);
    (void)cudnnBackendDestroyDescriptor(heuristic);
}

//  ---- plans ------------------------------------------------------------------------

static gpu_desc finish_plan(gpu_device *device, gpu_desc plan, bool set)
{
    if (set &&
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                                 CUDNN_TYPE_HANDLE, 1,
                                 &device->dnn) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS)
        return plan;
    (void)cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

static gpu_desc plan_of(gpu_device *device, gpu_desc config)
{
    gpu_desc plan = NULL;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan))
        return NULL;
    return finish_plan(
        device, plan,
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &config) == CUDNN_STATUS_SUCCESS);
}

static gpu_desc plan_from_text(gpu_device *device, const char *text)
{
    gpu_desc plan = NULL;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan))
        return NULL;
    return finish_plan(
        device, plan,
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, (int64_t)strlen(text),
                                 text) == CUDNN_STATUS_SUCCESS);
}

static void keep_plan(const gpu_device *device, const gpu_conv *conv)
{
    int64_t size = 0;
    const cudnnBackendAttributeName_t name =
        CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
    if (cudnnBackendGetAttribute(conv->plan, name, CUDNN_TYPE_CHAR, 0, &size, NULL) ||
        size <= 0)
        return;
    char *text = calloc((size_t)size + 1, 1);
    if (text && cudnnBackendGetAttribute(conv->plan, name, CUDNN_TYPE_CHAR, size, &size,
                                         text) == CUDNN_STATUS_SUCCESS)
        gpu_cache_write(device, &conv->problem, text);
    free(text);
}

static size_t workspace_of(gpu_desc plan)
{
    int64_t bytes = 0, count = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                 CUDNN_TYPE_INT64, 1, &count, &bytes) ||
        bytes < 0)
        return SIZE_MAX;
    return (size_t)bytes;
}

//  ---- timing -----------------------------------------------------------------------

//  A convolution on what it is tried with.
typedef struct trial {
    gpu_device *device;
    gpu_clock clock;
    gpu_conv_call call;
} trial;

typedef struct trial_sizes {
    size_t x, w, y, bias;  //  values
} trial_sizes;

static trial_sizes sizes_of(const gpu_conv_problem *p)
{
    const size_t in = (size_t)p->from.channels, out = (size_t)p->channels;
    const size_t pixels = gpu_pixels(&p->from),
                 taps = (size_t)p->kernel * (size_t)p->kernel;
    return (trial_sizes){.x = pixels * in,
                         .w = in * out * taps,
                         .y = pixels * out * (p->folded ? 4 : 1),
                         .bias = out};
}

static size_t lay_out(const gpu_conv_problem *p, void *base, gpu_conv_call *call)
{
    gpu_shelf shelf = {base, 0};
    const size_t size = gpu_size(p->from.type);
    const trial_sizes s = sizes_of(p);
    call->x = gpu_shelf_take(&shelf, s.x * size);
    call->weight = gpu_shelf_take(&shelf, s.w * size);
    call->residual = gpu_shelf_take(&shelf, s.y * size);
    call->y = gpu_shelf_take(&shelf, s.y * size);
    call->bias = gpu_shelf_take(&shelf, s.bias * sizeof(float));
    return shelf.used;
}

static luna_err fill(const gpu_device *device, gpu_type type, const void *x, size_t count)
{
    return gpu_check(gpu_fill(type, (void *)(uintptr_t)x, count, device->stream),
                     "a trial");
}

//  Everything the problem needs, in the arena, filled with numbers: zeros would run
//  faster than pictures do.
static luna_err prepare(const gpu_conv_problem *p, trial *t)
{
    gpu_device *device = t->device;
    const gpu_type type = p->from.type;
    const trial_sizes s = sizes_of(p);
    LUNA_TRY(gpu_arena_grow(device, lay_out(p, NULL, &t->call)));
    (void)lay_out(p, device->arena, &t->call);
    LUNA_TRY(fill(device, type, t->call.x, s.x));
    LUNA_TRY(fill(device, type, t->call.weight, s.w));
    LUNA_TRY(fill(device, type, t->call.residual, s.y));
    LUNA_TRY(fill(device, GPU_FP32, t->call.bias, s.bias));
    return gpu_clock_open(&t->clock);
}

typedef struct attempt {
    const trial *trial;
    const gpu_conv *conv;
} attempt;

static luna_err run_once(const void *what)
{
    const attempt *a = what;
    return gpu_conv_run(a->trial->device, a->conv, &a->trial->call);
}

//  Milliseconds of one of `runs` runs; infinite when it does not run.
static float time_runs(const trial *t, const gpu_conv *conv, int runs)
{
    float ms = 0.0F;
    const attempt one = {t, conv};
    const luna_err err = gpu_clock_runs(t->device, &t->clock, run_once, &one, runs, &ms);
    return err == LUNA_OK ? ms : INFINITY;
}

static void report(const gpu_conv_problem *p, size_t number, float first, float ms)
{
    luna_log(
        LUNA_LOG_DEBUG, "tune",
        "kernel=%d%s from=%dx%dx%d to=%d epilogue=%d%d%d plan=%zu first=%.4f ms=%.4f",
        p->kernel, p->folded ? "t" : "", p->from.channels, p->from.height, p->from.width,
        p->channels, p->bias, p->residual, p->relu, number, (double)first, (double)ms);
}

typedef struct contender {
    gpu_conv conv;
    float first;  //  ms of a run on a rested card
    float ms;     //  summed over the rounds under load
} contender;

typedef struct contest {
    contender item[3 * CONFIGS];
    size_t count;
    float best;  //  of all `first`
} contest;

//  Plans that run at all, each run once to load it and twice for a first look.
static void enter(const candidates *from, const trial *t, const gpu_conv *conv,
                  contest *c)
{
    gpu_device *device = t->device;
    c->best = INFINITY;
    for (size_t i = 0; i < from->count && c->count < device->tries; i++) {
        contender next = {.conv = *conv};
        next.conv.plan = plan_of(device, from->item[i]);
        if (!next.conv.plan) continue;
        next.conv.workspace_bytes = workspace_of(next.conv.plan);
        next.first = INFINITY;
        if (next.conv.workspace_bytes <= workspace_max &&
            gpu_workspace_grow(device, next.conv.workspace_bytes) == LUNA_OK)
            next.first = time_runs(t, &next.conv, 1);
        if (next.first < hopeless * c->best) next.first = time_runs(t, &next.conv, 2);
        gpu_device_step(device);
        if (isfinite(next.first))
            c->item[c->count++] = next;
        else
            (void)cudnnBackendDestroyDescriptor(next.conv.plan);
        c->best = fminf(c->best, next.first);
    }
}

//  A decode keeps the card at its power limit, where another plan may be the fastest than
//  on a rested card: those that come near the best run by turns, for some milliseconds
//  each, and the first round only heats up.
static void run_rounds(const trial *t, contest *c)
{
    const int runs = (int)fminf(200.0F, 1.0F + turn_ms / c->best);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < c->count; i++) {
            contender *one = &c->item[i];
            if (one->first > near * c->best) one->ms = INFINITY;
            if (!isfinite(one->ms)) continue;
            const float ms = time_runs(t, &one->conv, runs);
            if (round > 0) one->ms += ms;
        }
}

//  Leaves the fastest plan in *conv.
static void choose(const candidates *from, const trial *t, gpu_conv *conv)
{
    contest *c = calloc(1, sizeof *c);
    size_t best = 0;
    if (!c) return;
    enter(from, t, conv, c);
    if (c->count > 1) run_rounds(t, c);
    for (size_t i = 1; i < c->count; i++)
        if (c->item[i].ms < c->item[best].ms) best = i;
    for (size_t i = 0; i < c->count; i++) {
        report(&conv->problem, i, c->item[i].first, c->item[i].ms / (ROUNDS - 1));
        if (i == best)
            *conv = c->item[i].conv;
        else
            (void)cudnnBackendDestroyDescriptor(c->item[i].conv.plan);
    }
    free(c);
}

static luna_err tune(gpu_device *device, gpu_conv *conv)
{
    gpu_conv_graph *graph = NULL;
    trial t = {.device = device};
    candidates found = {.count = 0};
    LUNA_TRY(gpu_conv_graph_make(device, &conv->problem, &graph));
    ask(gpu_conv_graph_desc(graph), CUDNN_HEUR_MODE_A, &found);
    if (found.count < device->tries)
        ask(gpu_conv_graph_desc(graph), CUDNN_HEUR_MODE_B, &found);
    if (found.count == 0)
        ask(gpu_conv_graph_desc(graph), CUDNN_HEUR_MODE_FALLBACK, &found);
    const luna_err err = prepare(&conv->problem, &t);
    if (err == LUNA_OK) choose(&found, &t, conv);
    gpu_clock_close(&t.clock);
    free_candidates(&found);
    gpu_conv_graph_free(graph);
    LUNA_TRY(err);
    LUNA_TRY(gpu_check(cudaGetLastError(), "a trial"));
    return conv->plan ? LUNA_OK
                      : luna_error(LUNA_UNSUPPORTED, "cuDNN has no plan for it");
}

static bool read_plan(gpu_device *device, gpu_conv *conv)
{
    char *text = gpu_cache_read(device, &conv->problem);
    if (text) conv->plan = plan_from_text(device, text);
    free(text);
    if (!conv->plan) return false;
    conv->workspace_bytes = workspace_of(conv->plan);
    if (conv->workspace_bytes <= workspace_max &&
        gpu_workspace_grow(device, conv->workspace_bytes) == LUNA_OK)
        return true;
    (void)cudnnBackendDestroyDescriptor(conv->plan);
    conv->plan = NULL;
    return false;
}

static luna_err solve(gpu_device *device, gpu_conv *conv)
{
    if (read_plan(device, conv)) return LUNA_OK;
    LUNA_TRY(tune(device, conv));
    keep_plan(device, conv);
    return LUNA_OK;
}

static gpu_conv *known(const gpu_device *device, const gpu_conv_problem *problem)
{
    gpu_conv *conv = device->convs;
    while (conv && memcmp(&conv->problem, problem, sizeof *problem) != 0)
        conv = conv->next;
    return conv;
}

luna_err gpu_conv_find(gpu_device *device, const gpu_conv_problem *problem,
                       gpu_conv **out)
{
    gpu_conv *conv = known(device, problem);
    if (!conv) {
        conv = calloc(1, sizeof *conv);
        if (!conv) return luna_error(LUNA_NO_MEMORY, "no memory for a convolution");
        memcpy(&conv->problem, problem, sizeof *problem);
        const luna_err err = solve(device, conv);
        if (err != LUNA_OK) free(conv);
        LUNA_TRY(err);
        conv->next = device->convs;
        device->convs = conv;
    }
    *out = conv;
    return LUNA_OK;
}

void gpu_convs_free(gpu_device *device)
{
    while (device->convs) {
        gpu_conv *next = device->convs->next;
        (void)cudnnBackendDestroyDescriptor(device->convs->plan);
        free(device->convs);
        device->convs = next;
    }
}
