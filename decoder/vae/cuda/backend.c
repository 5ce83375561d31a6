//  The engine's interface to a GPU.

#include "decoder/vae/cuda/gpu.h"
#include "decoder/vae/memory_budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2, GRAPHS = 2 };  //  slots: run_batch relies on two

//  An image on its way in and out, so that the next one can be started meanwhile.
typedef struct slot {
    void *host_in;  //  pinned
    void *host_out;
    void *device_out;
    size_t in_bytes;
    size_t out_bytes;
    cudaEvent_t decoded;
    cudaEvent_t fetched;
} slot;

typedef struct scaling {
    const luna_graph *graph;  //  NULL: free
    int8_t exponents[LUNA_GRAPH_MAX];
} scaling;

typedef struct state {
    gpu_device device;
    gpu_lane lane;    //  in the precision asked for
    gpu_lane rescue;  //  in a wider range, for pictures that fp16 cannot hold
    scaling scalings[GRAPHS];
    slot slots[SLOTS];
} state;

struct luna_plan {
    const luna_graph *graph;
    luna_shape shapes[LUNA_GRAPH_MAX];
    size_t memory_limit_bytes;
    size_t staging_bytes;
    size_t slots;  //  images on their way at once, 1 or SLOTS
    bool lean;     //  in less memory
    gpu_program *program;
    gpu_program *rescue;  //  NULL: not needed yet
};

static const char *describe(void)
{
    static char text[64];
    int runtime = 0;
    const size_t dnn = cudnnGetVersion();
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text, "CUDA %d.%d, cuDNN %zu.%zu.%zu", runtime / 1000,
             runtime % 1000 / 10, dnn / 10000, dnn % 10000 / 100, dnn % 100);
    return text;
}

static luna_err precision(luna_vae_precision wanted, luna_vae_precision *out)
{
    *out = wanted == LUNA_VAE_PRECISION_AUTO ? LUNA_VAE_PRECISION_FP16 : wanted;
    return LUNA_OK;
}

static gpu_type type_of(luna_vae_precision precision)
{
    if (precision == LUNA_VAE_PRECISION_FP32) return GPU_FP32;
    return precision == LUNA_VAE_PRECISION_BF16 ? GPU_BF16 : GPU_FP16;
}

static luna_err start(state *s, const luna_backend_options *options)
{
    const gpu_type type = type_of(options->precision);
    LUNA_TRY(gpu_device_open(options->device, &s->device));
    if (options->trial) gpu_device_set_trial(&s->device);
    s->device.step = options->step;
    s->device.step_context = options->step_context;
    const bool brain = gpu_device_has_bf16(&s->device);
    s->lane = (gpu_lane){.device = &s->device, .type = type, .weights = options->weights};
    s->rescue = s->lane;
    s->rescue.type = brain ? GPU_BF16 : GPU_FP32;
    if (type != GPU_BF16 || brain) return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED, "%s has no bf16; use fp16 or fp32",
                      s->device.properties.name);
}

static void slot_free(slot *s)
{
    if (s->host_in) (void)cudaFreeHost(s->host_in);
    if (s->host_out) (void)cudaFreeHost(s->host_out);
    if (s->device_out) (void)cudaFree(s->device_out);
    if (s->decoded) (void)cudaEventDestroy(s->decoded);
    if (s->fetched) (void)cudaEventDestroy(s->fetched);
    memset(s, 0, sizeof *s);
}

static void close_state(void *opaque)
{
    state *s = opaque;
    (void)cudaSetDevice(s->device.index);
    gpu_device_finish(&s->device);
    for (int i = 0; i < SLOTS; i++) slot_free(&s->slots[i]);
    gpu_lane_free(&s->lane);
    gpu_lane_free(&s->rescue);
    gpu_device_close(&s->device);
    free(s);
}

static luna_err open_state(const luna_backend_options *options, void **out)
{
    state *s = calloc(1, sizeof *s);
    if (!s) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder");
    const luna_err err = start(s, options);
    if (err != LUNA_OK) close_state(s);
    if (err == LUNA_OK) *out = s;
    return err;
}

//  ---- plans ------------------------------------------------------------------------

//  The exponents of a graph in fp16; NULL for the other types, which need none.
static luna_err exponents_of(state *s, const luna_graph *graph, const int8_t **out)
{
    *out = NULL;
    if (s->lane.type != GPU_FP16) return LUNA_OK;
    scaling *place = &s->scalings[0];
    for (int i = 0; i < GRAPHS; i++)
        if (s->scalings[i].graph == graph || !s->scalings[i].graph) {
            place = &s->scalings[i];
            break;
        }
    if (place->graph != graph) {
        LUNA_TRY(gpu_scale_choose(&s->device, s->lane.weights, graph, place->exponents));
        place->graph = graph;
    }
    *out = place->exponents;
    return LUNA_OK;
}

static size_t program_bytes(const gpu_program *program)
{
    return program->arena_bytes + program->constant_bytes;
}

//  The program and what it needs, which must be within the limit.
static luna_err build_plan(state *s, const luna_plan_request *request, luna_plan *plan,
                           const int8_t *exponents, luna_vae_cost *cost)
{
    const luna_shape *picture = &plan->shapes[plan->graph->count - 1];
    const size_t pixels = picture->count * sizeof(float);
    LUNA_TRY(gpu_program_build(&s->lane, plan->graph, plan->shapes, exponents, plan->lean,
                               &plan->program));
    cost->weight_bytes = s->lane.weight_bytes + s->rescue.weight_bytes;
    const size_t fixed =
        cost->weight_bytes + program_bytes(plan->program) + s->device.workspace_bytes;
    plan->slots = luna_sub_batch(request->memory_limit_bytes,
                                 fixed + request->staging_bytes, pixels, SLOTS);
    cost->peak_bytes = fixed + plan->slots * pixels;
    return luna_backend_over_limit(request, cost->peak_bytes);
}

//  Only the fused convolution adds a shortcut that lies over its input.
static bool may_be_lean(const state *s)
{
    return s->device.fusing != GPU_FUSES_NOTHING;
}

static luna_err fill_plan(state *s, const luna_plan_request *request, luna_plan *plan,
                          luna_vae_cost *cost)
{
    const int8_t *exponents = NULL;
    //  A picture that cannot fit is refused before anything is tried out. (Half, for some
    //  steps write over what they read.)
    const size_t least = gpu_least_bytes(plan->graph, plan->shapes, s->lane.type) / 2;
    LUNA_TRY(luna_backend_over_limit(request, least));
    LUNA_TRY(exponents_of(s, plan->graph, &exponents));
    luna_err err = build_plan(s, request, plan, exponents, cost);
    if (err == LUNA_NO_MEMORY && may_be_lean(s)) {
        plan->lean = true;
        gpu_program_free(plan->program);
        plan->program = NULL;
        err = build_plan(s, request, plan, exponents, cost);
    }
    LUNA_TRY(err);
    //  What the search for plans took beyond what this picture takes goes back.
    if (s->device.arena_bytes > plan->program->arena_bytes) gpu_arena_free(&s->device);
    return gpu_arena_grow(&s->device, plan->program->arena_bytes);
}

static void plan_free(luna_plan *plan)
{
    gpu_program_free(plan->program);
    gpu_program_free(plan->rescue);
    free(plan);
}

static luna_err compile(void *opaque, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost)
{
    state *s = opaque;
    LUNA_TRY(gpu_device_use(&s->device));
    luna_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    plan->graph = request->graph;
    plan->memory_limit_bytes = request->memory_limit_bytes;
    plan->staging_bytes = request->staging_bytes;
    memcpy(plan->shapes, request->shapes, request->graph->count * sizeof plan->shapes[0]);
    const luna_err err = fill_plan(s, request, plan, cost);
    if (err != LUNA_OK) plan_free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

static void free_plan(void *opaque, luna_plan *plan)
{
    state *s = opaque;
    (void)cudaSetDevice(s->device.index);
    (void)cudaStreamSynchronize(s->device.stream);
    plan_free(plan);
}

static void trim(void *opaque)
{
    state *s = opaque;
    (void)cudaSetDevice(s->device.index);
    gpu_device_finish(&s->device);
    gpu_arena_free(&s->device);
    for (int i = 0; i < SLOTS; i++) slot_free(&s->slots[i]);
}

//  ---- runs -------------------------------------------------------------------------

//  Bytes after the pixels in a slot: the flag.
enum { FLAG_BYTES = 64 };

static size_t flag_at(const slot *s)
{
    return (s->out_bytes + FLAG_BYTES - 1) / FLAG_BYTES * FLAG_BYTES;
}

static luna_err slot_make(slot *s, size_t in_bytes, size_t out_bytes)
{
    slot_free(s);
    s->in_bytes = in_bytes;
    s->out_bytes = out_bytes;
    const size_t all = flag_at(s) + FLAG_BYTES;
    LUNA_TRY(gpu_check(cudaMallocHost(&s->host_in, in_bytes), "latents"));
    LUNA_TRY(gpu_check(cudaMallocHost(&s->host_out, all), "a picture"));
    LUNA_TRY(gpu_check(cudaMalloc(&s->device_out, all), "a picture"));
    LUNA_TRY(gpu_check(cudaEventCreateWithFlags(&s->decoded, cudaEventDisableTiming),
                       "an event"));
    return gpu_check(cudaEventCreateWithFlags(&s->fetched, cudaEventDisableTiming),
                     "an event");
}

static luna_err slot_fit(slot *s, size_t in_bytes, size_t out_bytes)
{
    if (s->in_bytes == in_bytes && s->out_bytes == out_bytes) return LUNA_OK;
    const luna_err err = slot_make(s, in_bytes, out_bytes);
    if (err != LUNA_OK) slot_free(s);
    return err;
}

static gpu_pixel_args pixel_args(const luna_plan *plan, const luna_backend_batch *batch)
{
    const luna_shape *picture = &plan->shapes[plan->graph->count - 1];
    return (gpu_pixel_args){.channels = (int)picture->channels,
                            .pixels = picture->height * picture->width,
                            .unit = batch->range == LUNA_RANGE_UNIT,
                            .raw = batch->rule == LUNA_PIXELS_RAW,
                            .round = batch->rule == LUNA_PIXELS_ROUND,
                            .interleaved = batch->format == LUNA_PIXELS_F32,
                            .bytes = batch->format == LUNA_PIXELS_U8};
}

//  Starts the decode of what lies in the slot and the way back of its pixels.
static luna_err start_image(state *s, gpu_program *program, const gpu_pixel_args *args,
                            const slot *at)
{
    gpu_device *d = &s->device;
    const size_t flag = flag_at(at);
    LUNA_TRY(gpu_arena_grow(d, program->arena_bytes));
    int *bad = (int *)(void *)((uint8_t *)at->device_out + flag);
    LUNA_TRY(gpu_check(cudaMemcpyAsync(gpu_buffer(program, GPU_INPUT), at->host_in,
                                       at->in_bytes, cudaMemcpyHostToDevice, d->stream),
                       "bringing latents"));
    LUNA_TRY(gpu_program_start(program));
    LUNA_TRY(gpu_check(cudaMemsetAsync(bad, 0, FLAG_BYTES, d->stream), "a flag"));
    LUNA_TRY(gpu_check(gpu_pixels_convert(args, gpu_buffer(program, GPU_OUTPUT),
                                          at->device_out, bad, d->stream),
                       "making pixels"));
    LUNA_TRY(gpu_check(cudaEventRecord(at->decoded, d->stream), "an event"));
    LUNA_TRY(gpu_check(cudaStreamWaitEvent(d->copies, at->decoded, 0), "an event"));
    LUNA_TRY(gpu_check(cudaMemcpyAsync(at->host_out, at->device_out, flag + FLAG_BYTES,
                                       cudaMemcpyDeviceToHost, d->copies),
                       "fetching pixels"));
    return gpu_check(cudaEventRecord(at->fetched, d->copies), "an event");
}

static luna_err wait_image(state *s, const slot *at, bool *finite)
{
    LUNA_TRY(gpu_check(cudaEventSynchronize(at->fetched), "a decode"));
    gpu_device_step(&s->device);
    *finite =
        *(const int *)(const void *)((const uint8_t *)at->host_out + flag_at(at)) == 0;
    return LUNA_OK;
}

//  The program of the wider range, made when the first picture needs it.
static luna_err rescue_program(state *s, luna_plan *plan)
{
    const luna_plan_request request = {.graph = plan->graph,
                                       .shapes = plan->shapes,
                                       .memory_limit_bytes = plan->memory_limit_bytes,
                                       .staging_bytes = plan->staging_bytes};
    if (plan->rescue) return LUNA_OK;
    LUNA_TRY(gpu_program_build(&s->rescue, plan->graph, plan->shapes, NULL, plan->lean,
                               &plan->rescue));
    const luna_err err = luna_backend_over_limit(
        &request, program_bytes(plan->rescue) + s->lane.weight_bytes +
                      s->rescue.weight_bytes + s->device.workspace_bytes);
    if (err == LUNA_OK) return LUNA_OK;
    gpu_program_free(plan->rescue);
    plan->rescue = NULL;
    return err;
}

//  Decodes the slot's latents again, in the wider range.
static luna_err rescue_image(state *s, luna_plan *plan, const gpu_pixel_args *args,
                             const slot *at, bool *finite)
{
    LUNA_TRY(rescue_program(s, plan));
    LUNA_TRY(start_image(s, plan->rescue, args, at));
    return wait_image(s, at, finite);
}

//  Its pixels go to the caller, who may take his time: the next image is on its way.
static luna_err hand_over(const slot *at, const luna_backend_batch *batch, size_t image)
{
    void *room = NULL;
    LUNA_TRY(batch->place(batch->outlet, batch->first + image, &room));
    memcpy(room, at->host_out, at->out_bytes);
    batch->done(batch->outlet, batch->first + image);
    return LUNA_OK;
}

static luna_err finish_image(state *s, luna_plan *plan, const luna_backend_batch *batch,
                             size_t image, const slot *at)
{
    const gpu_pixel_args args = pixel_args(plan, batch);
    bool finite = false;
    LUNA_TRY(wait_image(s, at, &finite));
    if (!finite && s->lane.type == GPU_FP16)
        LUNA_TRY(rescue_image(s, plan, &args, at, &finite));
    if (finite || !batch->must_be_finite) return hand_over(at, batch, image);
    return luna_error(LUNA_OVERFLOW,
                      "the decode of image %zu gave values that are NaN or infinite",
                      batch->first + image);
}

static size_t picture_bytes(const luna_plan *plan, const luna_backend_batch *batch)
{
    const luna_shape *picture = &plan->shapes[plan->graph->count - 1];
    return picture->count * (batch->format == LUNA_PIXELS_U8 ? 1 : sizeof(float));
}

static luna_err begin_image(state *s, luna_plan *plan, const luna_backend_batch *batch,
                            size_t image, slot *at)
{
    const gpu_pixel_args args = pixel_args(plan, batch);
    LUNA_TRY(
        slot_fit(at, plan->shapes[0].count * sizeof(float), picture_bytes(plan, batch)));
    LUNA_TRY(batch->read(batch->context, batch->first + image, at->host_in));
    return start_image(s, plan->program, &args, at);
}

//  A batch on its way: `begun` images are started, the first `finished` of them handed
//  over, and never more than `slots` lie between.
typedef struct traffic {
    size_t begun;
    size_t finished;
    size_t slots;
} traffic;

//  Starts what there are free slots for. A second slot that there is no memory for is
//  done without: images then follow one another.
static luna_err begin_some(state *s, luna_plan *plan, const luna_backend_batch *batch,
                           traffic *t)
{
    while (t->begun < batch->count && t->begun - t->finished < t->slots) {
        slot *at = &s->slots[t->begun % t->slots];
        const luna_err err = begin_image(s, plan, batch, t->begun, at);
        if (err == LUNA_NO_MEMORY && t->begun > t->finished && t->begun == 1) {
            t->slots = plan->slots = 1;
            return LUNA_OK;
        }
        LUNA_TRY(err);
        t->begun++;
    }
    return LUNA_OK;
}

//  The next image is started before the one before it is waited for.
static luna_err move_on(state *s, luna_plan *plan, const luna_backend_batch *batch,
                        traffic *t)
{
    const luna_err err = begin_some(s, plan, batch, t);
    if (t->begun > t->finished) {
        const size_t image = t->finished;
        LUNA_TRY(finish_image(s, plan, batch, image, &s->slots[image % t->slots]));
        t->finished++;
    }
    return err;
}

static luna_err run_batch(void *opaque, luna_plan *plan, const luna_backend_batch *batch)
{
    state *s = opaque;
    traffic t = {.slots = plan->slots};
    luna_err err = gpu_device_use(&s->device);
    if (err == LUNA_OK && t.slots == 1) slot_free(&s->slots[1]);
    while (err == LUNA_OK && t.finished < batch->count) err = move_on(s, plan, batch, &t);
    if (err != LUNA_OK) (void)cudaStreamSynchronize(s->device.copies);
    return err;
}

//  What `run` is given, as a batch of one.
typedef struct single {
    const float *input;
    size_t count;
    float *output;
} single;

static luna_err read_single(void *context, size_t image, float *to)
{
    const single *one = context;
    (void)image;
    memcpy(to, one->input, one->count * sizeof *to);
    return LUNA_OK;
}

static luna_err place_single(void *context, size_t image, void **room)
{
    (void)image;
    *room = ((single *)context)->output;
    return LUNA_OK;
}

static void single_done(void *context, size_t image)
{
    (void)context;
    (void)image;
}

static luna_err run(void *opaque, luna_plan *plan, const float *input, float *output)
{
    single one = {.input = input, .count = plan->shapes[0].count, .output = output};
    const luna_backend_batch batch = {.count = 1,
                                      .read = read_single,
                                      .context = &one,
                                      .format = LUNA_PIXELS_F32_PLANAR,
                                      .rule = LUNA_PIXELS_RAW,
                                      .place = place_single,
                                      .done = single_done,
                                      .outlet = &one};
    return run_batch(opaque, plan, &batch);
}

const luna_backend luna_backend_cuda = {.device = "cuda",
                                        .cards = gpu_cards,
                                        .probe = gpu_device_probe,
                                        .memory = gpu_memory,
                                        .describe = describe,
                                        .precision = precision,
                                        .open = open_state,
                                        .close = close_state,
                                        .compile = compile,
                                        .run = run,
                                        .run_batch = run_batch,
                                        .free_plan = free_plan,
                                        .trim = trim};
