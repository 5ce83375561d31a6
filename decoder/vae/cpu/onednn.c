//  The oneDNN backend: fp32 on any x86-64 or AArch64 CPU that Debian's library serves.

#include "decoder/vae/cpu/onednn.h"

#include <stdlib.h>
#include <string.h>

luna_err cpu_check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return LUNA_OK;
    if (status == dnnl_out_of_memory)
        return luna_error(LUNA_NO_MEMORY, "oneDNN has no memory for %s", what);
    return luna_error(LUNA_DEVICE, "oneDNN cannot do %s (status %d)", what, (int)status);
}

#define TEXT_OF(macro)  TEXT_OF_(macro)
#define TEXT_OF_(value) #value

static const char *describe(void)
{
    return "oneDNN " TEXT_OF(DNNL_VERSION_MAJOR) "." TEXT_OF(DNNL_VERSION_MINOR);
}

//  Debian's oneDNN runs on OpenMP. In a build on its own threads these are not there, and
//  the number is the library's choice.
extern void omp_set_num_threads(int) __attribute__((weak));
extern int omp_get_max_threads(void) __attribute__((weak));

//  Sets the calling thread's number, and returns the one before. 0 changes nothing. A
//  plan is made and run with the same number: its scratch memory depends on it.
static int set_threads(int threads)
{
    if (threads <= 0 || !omp_set_num_threads || !omp_get_max_threads) return 0;
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    return before;
}

static luna_err precision(luna_vae_precision wanted, luna_vae_precision *out)
{
    return luna_backend_reference.precision(wanted, out);
}

static void close_state(void *opaque);

static luna_err open_state(const luna_backend_options *options, void **out)
{
    cpu_state *s = calloc(1, sizeof *s);
    if (!s) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder");
    s->weights = options->weights;
    s->threads = options->threads;
    s->step = options->step;
    s->step_context = options->step_context;
    luna_err err = cpu_check(dnnl_engine_create(&s->engine, dnnl_cpu, 0), "an engine");
    if (err == LUNA_OK)
        err = cpu_check(
            dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags),
            "a stream");
    if (err != LUNA_OK) close_state(s);
    if (err == LUNA_OK) *out = s;
    return err;
}

static void trim(void *opaque)
{
    cpu_state *s = opaque;
    for (size_t i = 0; i < s->kept_count; i++) free(s->kept[i].data);
    free(s->kept);
    free(s->arena);
    s->kept = NULL;
    s->arena = NULL;
    s->kept_count = s->kept_room = s->weight_bytes = s->arena_bytes = 0;
}

static void close_state(void *opaque)
{
    cpu_state *s = opaque;
    trim(s);
    if (s->stream) dnnl_stream_destroy(s->stream);
    if (s->engine) dnnl_engine_destroy(s->engine);
    free(s);
}

//  [out, in, k, k] of a convolution or [channels], as the file has it.
static dnnl_memory_desc_t file_layout(const dnnl_memory_desc_t *layout)
{
    dnnl_memory_desc_t plain;
    dnnl_memory_desc_init_by_tag(&plain, layout->ndims, layout->dims, dnnl_f32,
                                 layout->ndims == 4 ? dnnl_abcd : dnnl_a);
    return plain;
}

//  Rewrites `from` of layout `plain` into `to` of `layout`.
static luna_err rewrite(cpu_state *s, const dnnl_memory_desc_t *plain, void *from,
                        const dnnl_memory_desc_t *layout, void *to)
{
    dnnl_memory_t source = NULL, target = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_status_t st = dnnl_memory_create(&source, plain, s->engine, from);
    if (st == dnnl_success) st = dnnl_memory_create(&target, layout, s->engine, to);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&desc, plain, s->engine, layout,
                                                s->engine, NULL);
    if (st == dnnl_success) st = dnnl_primitive_create(&reorder, desc);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
    if (st == dnnl_success) st = dnnl_primitive_execute(reorder, s->stream, 2, args);
    if (st == dnnl_success) st = dnnl_stream_wait(s->stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (source) dnnl_memory_destroy(source);
    if (target) dnnl_memory_destroy(target);
    return cpu_check(st, "the weights' layout");
}

static luna_err make_room(cpu_state *s)
{
    if (s->kept_count < s->kept_room) return LUNA_OK;
    const size_t room = s->kept_room ? 2 * s->kept_room : 128;
    cpu_weight *larger = realloc(s->kept, room * sizeof *larger);
    if (!larger) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's weights");
    s->kept = larger;
    s->kept_room = room;
    return LUNA_OK;
}

static luna_err make_weight(cpu_state *s, int number, const dnnl_memory_desc_t *layout,
                            void **out)
{
    float *values = NULL;
    const dnnl_memory_desc_t plain = file_layout(layout);
    const size_t bytes = dnnl_memory_desc_get_size(layout);
    const size_t room =
        (bytes + LUNA_MEMORY_ALIGN) / LUNA_MEMORY_ALIGN * LUNA_MEMORY_ALIGN;
    LUNA_TRY(make_room(s));
    LUNA_TRY(luna_backend_floats(&s->weights->item[number], &values));
    void *data = aligned_alloc(LUNA_MEMORY_ALIGN, room);
    luna_err err =
        data ? LUNA_OK
             : luna_error(LUNA_NO_MEMORY, "no memory for the decoder's weights");
    if (err == LUNA_OK) err = rewrite(s, &plain, values, layout, data);
    free(values);
    if (err != LUNA_OK) {
        free(data);
        return err;
    }
    s->kept[s->kept_count++] =
        (cpu_weight){.number = number, .layout = *layout, .data = data};
    s->weight_bytes += bytes;
    *out = data;
    return LUNA_OK;
}

luna_err cpu_weight_get(cpu_state *s, int number, const dnnl_memory_desc_t *layout,
                        void **data)
{
    for (size_t i = 0; i < s->kept_count; i++) {
        const cpu_weight *kept = &s->kept[i];
        if (kept->number != number || !dnnl_memory_desc_equal(&kept->layout, layout))
            continue;
        *data = kept->data;
        return LUNA_OK;
    }
    return make_weight(s, number, layout, data);
}

static luna_err compile(void *opaque, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost)
{
    cpu_state *s = opaque;
    luna_plan *plan = NULL;
    const int before = set_threads(s->threads);
    const luna_err built = cpu_plan_build(s, request, &plan);
    set_threads(before);
    LUNA_TRY(built);
    cost->weight_bytes = s->weight_bytes;
    cost->peak_bytes = s->weight_bytes + plan->arena_bytes;
    const luna_err err = luna_backend_over_limit(request, cost->peak_bytes);
    if (err != LUNA_OK) cpu_plan_free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

static luna_err run(void *opaque, luna_plan *plan, const float *input, float *output)
{
    cpu_state *s = opaque;
    const int before = set_threads(s->threads);
    const luna_err err = cpu_run(s, plan, input, output);
    set_threads(before);
    return err;
}

static void free_plan(void *opaque, luna_plan *plan)
{
    (void)opaque;
    cpu_plan_free(plan);
}

const luna_backend luna_backend_onednn = {.device = "cpu",
                                          .describe = describe,
                                          .precision = precision,
                                          .open = open_state,
                                          .close = close_state,
                                          .compile = compile,
                                          .run = run,
                                          .free_plan = free_plan,
                                          .trim = trim};
