//  A stand-in for the GPU backend, for machines without one: a plugin of the same
//  interface that decodes on the CPU and fails as it is told by its environment.
//
//  LUNA_FAULTY_CARDS=UUID[,UUID]  the cards there are
//  LUNA_FAULTY_MEMORY=FILE        FREE,TOTAL bytes of each, as the file says now
//  LUNA_FAULTY_SELFTEST=WHAT      of an engine on trial, the self-test's, the pixels are
//                                 `wrong` or `unsteady`, the `device` fails, or is `full`
//  LUNA_FAULTY_DEVICE_AT=N        the N-th picture after the self-test: the device fails,
//                                 for good, as a CUDA context does
//  LUNA_FAULTY_HANG_AT=N          the N-th picture never ends
//  LUNA_FAULTY_GONE_AT=N          with the N-th picture done there is no card any more
//  LUNA_FAULTY_BATCH_MAX=N        no memory for more than N pictures; -1: for none

#include "decoder/vae/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if LUNA_VAE_CPU
#define INNER luna_backend_cpu
#else
#define INNER luna_backend_reference
#endif

typedef struct engine {
    void *inner;
    bool selftest;
} engine;

struct luna_plan {
    luna_plan *inner;  //  of the inner backend, which has another struct of this name
    luna_shape from;
    luna_shape to;
};

static int pictures;  //  after the self-test
static bool failed;

static long number(const char *variable)
{
    const char *text = getenv(variable);
    return text ? strtol(text, NULL, 10) : 0;
}

static bool selftest_is(const engine *e, const char *what)
{
    const char *text = getenv("LUNA_FAULTY_SELFTEST");
    return e->selftest && text && strcmp(text, what) == 0;
}

static luna_err device_failed(void)
{
    failed = true;
    return luna_error(LUNA_DEVICE, "the GPU failed at a decode: an illegal memory access "
                                   "was encountered; start the decoder again");
}

static luna_err no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory on the GPU for the 1402 MiB of a decode: "
                                      "310 of its 16303 MiB are free");
}

static bool is_gone(void)
{
    const long at = number("LUNA_FAULTY_GONE_AT");
    return failed || (at && pictures >= at);
}

static luna_err no_driver(void)
{
    return luna_error(LUNA_UNAVAILABLE, "no GPU can be used: no CUDA-capable device is "
                                        "detected");
}

//  ---- the cards ----------------------------------------------------------------------

static luna_err cards(luna_card *out, size_t room, size_t *count)
{
    const char *text = getenv("LUNA_FAULTY_CARDS");
    char list[1024], *rest = NULL;
    if (is_gone()) return no_driver();
    snprintf(list, sizeof list, "%s",
             text ? text : "GPU-00000000-0000-0000-0000-000000000001");
    *count = 0;
    for (char *uuid = strtok_r(list, ",", &rest); uuid && *count < room;
         uuid = strtok_r(NULL, ",", &rest)) {
        luna_card *card = &out[(*count)++];
        snprintf(card->uuid, sizeof card->uuid, "%s", uuid);
        snprintf(card->name, sizeof card->name, "Stand-in");
    }
    return LUNA_OK;
}

static luna_err probe(int index)
{
    luna_card all[LUNA_CARDS_MAX];
    size_t count = 0;
    LUNA_TRY(cards(all, LUNA_CARDS_MAX, &count));
    return (size_t)index < count ? LUNA_OK : no_driver();
}

static luna_err memory(int index, luna_backend_memory *out)
{
    const char *path = getenv("LUNA_FAULTY_MEMORY");
    FILE *file = path ? fopen(path, "r") : NULL;
    (void)index;
    *out = (luna_backend_memory){(size_t)8 << 30, (size_t)16 << 30};
    if (file && fscanf(file, "%zu,%zu", &out->free_bytes, &out->total_bytes) != 2)
        *out = (luna_backend_memory){0};
    if (file) fclose(file);
    return LUNA_OK;
}

static const char *describe(void)
{
    return "a stand-in for CUDA";
}

static luna_err precision(luna_vae_precision wanted, luna_vae_precision *out)
{
    return INNER.precision(wanted, out);
}

//  ---- engines and plans --------------------------------------------------------------

static luna_err open_engine(const luna_backend_options *options, void **state)
{
    if (failed) return device_failed();
    engine *e = calloc(1, sizeof *e);
    if (!e) return luna_error(LUNA_NO_MEMORY, "no memory for an engine");
    const luna_err err = INNER.open(options, &e->inner);
    if (err != LUNA_OK) {
        free(e);
        return err;
    }
    e->selftest = options->trial;
    *state = e;
    return LUNA_OK;
}

static void close_engine(void *state)
{
    engine *e = state;
    INNER.close(e->inner);
    free(e);
}

static luna_err compile(void *state, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost)
{
    const engine *e = state;
    if (failed) return device_failed();
    if (selftest_is(e, "full")) return no_memory();
    luna_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return luna_error(LUNA_NO_MEMORY, "no memory for a plan");
    plan->from = request->shapes[0];
    plan->to = request->shapes[request->graph->count - 1];
    const luna_err err = INNER.compile(e->inner, request, &plan->inner, cost);
    if (err != LUNA_OK) free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

static void free_plan(void *state, luna_plan *plan)
{
    INNER.free_plan(((engine *)state)->inner, plan->inner);
    free(plan);
}

static void trim(void *state)
{
    INNER.trim(((engine *)state)->inner);
}

//  ---- runs ---------------------------------------------------------------------------

static void spoil(const engine *e, const luna_plan *plan, float *output)
{
    static float turn;
    const bool unsteady = selftest_is(e, "unsteady");
    if (!unsteady && !selftest_is(e, "wrong")) return;
    output[plan->to.count / 2] += unsteady ? (turn += 1e-6F) : 1.0F;
}

static luna_err run(void *state, luna_plan *plan, const float *input, float *output)
{
    const engine *e = state;
    if (failed || selftest_is(e, "device")) return device_failed();
    pictures += !e->selftest;
    if (!e->selftest && pictures == number("LUNA_FAULTY_DEVICE_AT"))
        return device_failed();
    while (!e->selftest && pictures == number("LUNA_FAULTY_HANG_AT")) pause();
    LUNA_TRY(INNER.run(e->inner, plan->inner, input, output));
    spoil(e, plan, output);
    return LUNA_OK;
}

static luna_err run_image(void *state, luna_plan *plan, const luna_backend_batch *batch,
                          size_t image, float *values)
{
    float *output = values + plan->from.count;
    const luna_vae_shape shape = {1, plan->to.channels, plan->to.height, plan->to.width};
    const luna_vae_target form = {.format = batch->format, .rule = batch->rule};
    void *room = NULL;
    LUNA_TRY(batch->read(batch->context, image, values));
    LUNA_TRY(run(state, plan, values, output));
    LUNA_TRY(batch->place(batch->outlet, image, &room));
    luna_pixels_convert(output, &shape, batch->range, &form, room);
    batch->done(batch->outlet, image);
    return LUNA_OK;
}

static luna_err run_batch(void *state, luna_plan *plan, const luna_backend_batch *batch)
{
    const long most = number("LUNA_FAULTY_BATCH_MAX");
    const engine *e = state;
    const bool full = most < 0 || (most && batch->count > (size_t)most);
    if (full && !e->selftest) return no_memory();
    float *values = malloc((plan->from.count + plan->to.count) * sizeof *values);
    if (!values) return luna_error(LUNA_NO_MEMORY, "no memory for a picture");
    luna_err err = LUNA_OK;
    for (size_t i = 0; err == LUNA_OK && i < batch->count; i++)
        err = run_image(state, plan, batch, batch->first + i, values);
    free(values);
    return err;
}

const luna_backend luna_backend_cuda = {.device = "cuda",
                                        .cards = cards,
                                        .probe = probe,
                                        .memory = memory,
                                        .describe = describe,
                                        .precision = precision,
                                        .open = open_engine,
                                        .close = close_engine,
                                        .compile = compile,
                                        .run = run,
                                        .run_batch = run_batch,
                                        .free_plan = free_plan,
                                        .trim = trim};
