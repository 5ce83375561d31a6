#include "decoder/vae/vae.h"

#include "decoder/vae/backend.h"
#include "decoder/vae/family.h"
#include "decoder/vae/latents.h"
#include "decoder/vae/memory_budget.h"
#include "decoder/vae/output_check.h"
#include "decoder/vae/pixels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum { PLANS = 4 };  //  sizes kept: users mix a few aspect ratios

//  A compiled size; `plan` is NULL in a free place.
typedef struct cached_plan {
    luna_plan *plan;
    const luna_graph *graph;
    size_t height;  //  of the input, in latents
    size_t width;
    luna_vae_cost cost;
    uint64_t used;  //  luna_vae.clock at the last use
} cached_plan;

struct luna_vae {
    luna_safetensors *file;
    luna_model model;
    luna_vae_info info;
    char device[LUNA_DEVICE_BYTES];
    luna_vae_precision precision;
    size_t memory_limit_bytes;
    bool limit_is_own;  //  nobody set it: it is what the device had to give
    int device_index;
    const luna_backend *backend;
    void *state;
    cached_plan plans[PLANS];
    uint64_t clock;
};

static const char *const precision_names[] = {"auto", "fp32", "fp16", "bf16"};

const char *luna_vae_precision_name(luna_vae_precision precision)
{
    return (unsigned)precision < 4 ? precision_names[precision] : "unknown";
}

luna_err luna_vae_precision_parse(const char *word, luna_vae_precision *out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(word, precision_names[i]) != 0) continue;
        *out = (luna_vae_precision)i;
        return LUNA_OK;
    }
    return luna_error(LUNA_USAGE, "the precision '%.40s' is not one: fp32, fp16 or bf16",
                      word);
}

luna_vae_options luna_vae_options_default(void)
{
    return (luna_vae_options){.device = "auto", .precision = LUNA_VAE_PRECISION_AUTO};
}

static void fill_info(luna_vae *vae, luna_vae_precision precision)
{
    vae->info = luna_model_info(&vae->model);
    vae->info.device = vae->device;
    vae->info.backend = vae->backend->describe();
    vae->info.precision = luna_vae_precision_name(precision);
}

//  Without a limit, what the device has to give: other programs may be on it. It grows
//  when they leave.
static luna_err limit_memory(luna_vae *vae)
{
    luna_backend_memory memory;
    if (!vae->limit_is_own) return LUNA_OK;
    LUNA_TRY(vae->backend->memory(vae->device_index, &memory));
    const size_t now = luna_memory_budget(memory.free_bytes, memory.total_bytes);
    if (now > vae->memory_limit_bytes) vae->memory_limit_bytes = now;
    return LUNA_OK;
}

static luna_err open_backend(luna_vae *vae, const luna_vae_options *options)
{
    luna_backend_options settings = {.weights = &vae->model.weights,
                                     .threads = options->threads,
                                     .step = options->step,
                                     .step_context = options->step_context,
                                     .trial = options->trial};
    LUNA_TRY(luna_backend_find(options->device, &vae->backend, &settings.device));
    LUNA_TRY(vae->backend->precision(options->precision, &settings.precision));
    luna_backend_name(vae->backend, settings.device, vae->device);
    vae->precision = settings.precision;
    vae->device_index = settings.device;
    vae->limit_is_own = !vae->memory_limit_bytes && vae->backend->memory;
    LUNA_TRY(limit_memory(vae));
    fill_info(vae, settings.precision);
    return vae->backend->open(&settings, &vae->state);
}

//  The damaged file of a user who named it as a model.
static luna_err as_bad_model(luna_err err)
{
    return err == LUNA_BAD_REQUEST ? luna_error(LUNA_BAD_MODEL, "%s", luna_error_text())
                                   : err;
}

//  Takes *file over, whatever happens.
static luna_err open_file(luna_safetensors *file, const luna_vae_options *options,
                          luna_vae **out)
{
    luna_vae *vae = calloc(1, sizeof *vae);
    if (!vae) {
        luna_safetensors_close(&file);
        return luna_error(LUNA_NO_MEMORY, "no memory to open a model");
    }
    vae->file = file;
    vae->memory_limit_bytes = options->memory_limit_bytes;
    vae->model = (luna_model){.file = file,
                              .latent_scale = options->latent_scale,
                              .latent_shift = options->latent_shift};
    luna_err err = luna_model_build(&vae->model);
    if (err == LUNA_OK && options->loading)
        err = luna_model_read(&vae->model, options->loading, options->loading_context);
    if (err == LUNA_OK) err = open_backend(vae, options);
    if (err != LUNA_OK) luna_vae_close(&vae);
    if (err == LUNA_OK) *out = vae;
    return err;
}

luna_err luna_vae_open(const char *path, const luna_vae_options *options, luna_vae **out)
{
    luna_safetensors *file = NULL;
    LUNA_TRY(as_bad_model(luna_safetensors_open(path, &file)));
    return open_file(file, options, out);
}

luna_err luna_vae_open_bytes(const void *data, size_t len, const char *label,
                             const luna_vae_options *options, luna_vae **out)
{
    luna_safetensors *file = NULL;
    LUNA_TRY(as_bad_model(luna_safetensors_parse(data, len, label, &file)));
    return open_file(file, options, out);
}

luna_err luna_vae_inspect(const char *path, const luna_vae_options *options,
                          luna_vae_info *out)
{
    luna_safetensors *file = NULL;
    LUNA_TRY(as_bad_model(luna_safetensors_open(path, &file)));
    luna_model *model = calloc(1, sizeof *model);
    luna_err err = luna_error(LUNA_NO_MEMORY, "no memory to look at a model");
    if (model) {
        *model = (luna_model){.file = file,
                              .latent_scale = options->latent_scale,
                              .latent_shift = options->latent_shift};
        err = luna_model_build(model);
    }
    if (err == LUNA_OK) *out = luna_model_info(model);
    free(model);
    luna_safetensors_close(&file);
    return err;
}

static void drop(luna_vae *vae, cached_plan *entry)
{
    if (entry->plan) vae->backend->free_plan(vae->state, entry->plan);
    *entry = (cached_plan){0};
}

void luna_vae_close(luna_vae **vae)
{
    luna_vae *v = *vae;
    if (!v) return;
    for (size_t i = 0; i < PLANS; i++) drop(v, &v->plans[i]);
    if (v->state) v->backend->close(v->state);
    luna_safetensors_close(&v->file);
    free(v);
    *vae = NULL;
}

void luna_vae_trim(luna_vae *vae)
{
    for (size_t i = 0; i < PLANS; i++) drop(vae, &vae->plans[i]);
    vae->backend->trim(vae->state);
}

size_t luna_vae_memory_limit(const luna_vae *vae)
{
    return vae->memory_limit_bytes;
}

const luna_vae_info *luna_vae_describe(const luna_vae *vae)
{
    return &vae->info;
}

static luna_err choose_graph(const luna_vae *vae, size_t channels, const luna_graph **out)
{
    const luna_model *model = &vae->model;
    *out = channels == model->latent_channels ? &model->plain : &model->packed;
    if (channels == model->latent_channels) return LUNA_OK;
    if (model->packed_channels && channels == model->packed_channels) return LUNA_OK;
    char packed[40] = "";
    if (model->packed_channels)
        snprintf(packed, sizeof packed, " (or %zu, packed)", model->packed_channels);
    return luna_error(LUNA_BAD_LATENT,
                      "the latents have %zu channels; this VAE takes %zu%s", channels,
                      model->latent_channels, packed);
}

//  Shapes of all nodes for these latents; the last is the picture's.
static luna_err infer(const luna_vae *vae, const luna_vae_latents *latents,
                      const luna_graph **graph, luna_shape *shapes)
{
    size_t values;
    LUNA_TRY(choose_graph(vae, latents->channels, graph));
    LUNA_TRY(luna_graph_infer(*graph, latents->height, latents->width, shapes));
    const size_t one = shapes[(*graph)->count - 1].count;
    if (latents->count == 0) return luna_error(LUNA_BAD_LATENT, "the latents are empty");
    if (__builtin_mul_overflow(one, latents->count, &values) || values > SIZE_MAX / 8)
        return luna_error(LUNA_BAD_LATENT,
                          "%zu pictures of this size are too large to count",
                          latents->count);
    return LUNA_OK;
}

luna_err luna_vae_output_shape(const luna_vae *vae, const luna_vae_latents *latents,
                               luna_vae_shape *out)
{
    luna_shape shapes[LUNA_GRAPH_MAX];
    const luna_graph *graph = NULL;
    LUNA_TRY(infer(vae, latents, &graph, shapes));
    const luna_shape *last = &shapes[graph->count - 1];
    *out = (luna_vae_shape){.count = latents->count,
                            .channels = last->channels,
                            .height = last->height,
                            .width = last->width};
    return LUNA_OK;
}

static cached_plan *find_plan(luna_vae *vae, const luna_graph *graph,
                              const luna_vae_latents *latents)
{
    for (size_t i = 0; i < PLANS; i++) {
        cached_plan *entry = &vae->plans[i];
        if (entry->plan && entry->graph == graph && entry->height == latents->height &&
            entry->width == latents->width)
            return entry;
    }
    return NULL;
}

//  The place of the plan used longest ago, emptied.
static cached_plan *free_place(luna_vae *vae)
{
    cached_plan *oldest = &vae->plans[0];
    for (size_t i = 1; i < PLANS; i++)
        if (vae->plans[i].used < oldest->used) oldest = &vae->plans[i];
    drop(vae, oldest);
    return oldest;
}

//  The engine's own buffers of a decode: one image in, one out.
static size_t staging_bytes(const luna_graph *graph, const luna_shape *shapes)
{
    return (shapes[0].count + shapes[graph->count - 1].count) * sizeof(float);
}

static luna_err make_plan(luna_vae *vae, const luna_graph *graph,
                          const luna_shape *shapes, cached_plan *entry)
{
    const luna_plan_request request = {.graph = graph,
                                       .shapes = shapes,
                                       .memory_limit_bytes = vae->memory_limit_bytes,
                                       .staging_bytes = staging_bytes(graph, shapes)};
    LUNA_TRY(vae->backend->compile(vae->state, &request, &entry->plan, &entry->cost));
    entry->cost.peak_bytes += request.staging_bytes;
    entry->cost.flop = luna_graph_flop(graph, shapes);
    entry->graph = graph;
    entry->height = shapes[0].height;
    entry->width = shapes[0].width;
    return LUNA_OK;
}

//  Never less than what the kept plans hold together: their weights are shared, and so is
//  their working memory.
static bool within_limit(const luna_vae *vae)
{
    size_t sum = 0;
    for (size_t i = 0; i < PLANS; i++)
        if (vae->plans[i].plan) sum += vae->plans[i].cost.peak_bytes;
    return vae->memory_limit_bytes == 0 || sum <= vae->memory_limit_bytes;
}

//  A plan beside the kept ones, or alone when there is no memory for both.
static luna_err add_plan(luna_vae *vae, const luna_graph *graph, const luna_shape *shapes,
                         cached_plan *entry)
{
    luna_err err = make_plan(vae, graph, shapes, entry);
    if (err == LUNA_OK ? within_limit(vae) : err != LUNA_NO_MEMORY) return err;
    luna_vae_trim(vae);
    LUNA_TRY(limit_memory(vae));
    err = make_plan(vae, graph, shapes, entry);
    if (err != LUNA_OK) luna_vae_trim(vae);
    return err;
}

static luna_err get_plan(luna_vae *vae, const luna_vae_latents *latents,
                         cached_plan **out)
{
    luna_shape shapes[LUNA_GRAPH_MAX];
    const luna_graph *graph = NULL;
    LUNA_TRY(infer(vae, latents, &graph, shapes));
    cached_plan *entry = find_plan(vae, graph, latents);
    if (!entry) {
        entry = free_place(vae);
        LUNA_TRY(add_plan(vae, graph, shapes, entry));
    }
    entry->used = ++vae->clock;
    *out = entry;
    return LUNA_OK;
}

luna_err luna_vae_prepare(luna_vae *vae, const luna_vae_latents *latents,
                          luna_vae_cost *out)
{
    cached_plan *entry = NULL;
    LUNA_TRY(get_plan(vae, latents, &entry));
    if (out) *out = entry->cost;
    return LUNA_OK;
}

static luna_err check_output(const luna_vae *vae, const float *values,
                             const luna_vae_shape *shape, size_t image)
{
    const luna_output output = {.values = values, .shape = shape, .image = image};
    return luna_output_check(&output, &vae->model.weights, vae->precision);
}

//  ---- decoding ---------------------------------------------------------------------

//  A decode: what is asked for, and how far it has come.
typedef struct decoding {
    luna_vae *vae;
    luna_vae_latents latents;
    luna_vae_shape shape;
    const luna_vae_outlet *outlet;
    size_t next;  //  the first image that is not complete
    size_t end;
} decoding;

static luna_err check_range(const decoding *d, size_t first, size_t count)
{
    if (count > d->shape.count || first > d->shape.count - count)
        return luna_error(LUNA_USAGE, "images %zu to %zu asked for; the batch has %zu",
                          first, first + count - 1, d->shape.count);
    if (d->outlet->format == LUNA_PIXELS_U8 && d->outlet->rule == LUNA_PIXELS_RAW)
        return luna_error(LUNA_USAGE, "bytes cannot hold a decoder's raw output");
    return LUNA_OK;
}

static luna_err read_latents(void *context, size_t image, float *to)
{
    const decoding *d = context;
    return luna_latents_read(&d->latents, image, to);
}

static luna_err place_image(void *context, size_t image, void **room)
{
    const decoding *d = context;
    return d->outlet->place(d->outlet->context, image, room);
}

static void image_done(void *context, size_t image)
{
    decoding *d = context;
    d->next = image + 1;
    d->outlet->done(d->outlet->context, image);
}

//  By a backend that makes the pixels itself.
static luna_err decode_batch(decoding *d, size_t count, const cached_plan *entry)
{
    const luna_vae *vae = d->vae;
    const luna_backend_batch batch = {.first = d->next,
                                      .count = count,
                                      .read = read_latents,
                                      .context = d,
                                      .range = vae->model.range,
                                      .format = d->outlet->format,
                                      .rule = d->outlet->rule,
                                      .must_be_finite = true,
                                      .place = place_image,
                                      .done = image_done,
                                      .outlet = d};
    const luna_err err = vae->backend->run_batch(vae->state, entry->plan, &batch);
    if (err != LUNA_OVERFLOW) return err;
    return luna_output_explain(&vae->model.weights, vae->precision);
}

typedef struct staging {
    float *input;
    float *output;
} staging;

static luna_err run_one(decoding *d, const cached_plan *entry, const staging *stage)
{
    luna_vae *vae = d->vae;
    LUNA_TRY(luna_latents_read(&d->latents, d->next, stage->input));
    LUNA_TRY(vae->backend->run(vae->state, entry->plan, stage->input, stage->output));
    return check_output(vae, stage->output, &d->shape, d->next);
}

static luna_err decode_one(decoding *d, const cached_plan *entry, const staging *stage)
{
    const luna_vae_target form = {.format = d->outlet->format, .rule = d->outlet->rule};
    void *room = NULL;
    LUNA_TRY(place_image(d, d->next, &room));
    LUNA_TRY(run_one(d, entry, stage));
    luna_pixels_convert(stage->output, &d->shape, d->vae->model.range, &form, room);
    image_done(d, d->next);
    return LUNA_OK;
}

static luna_err allocate_staging(const decoding *d, staging *out)
{
    const luna_vae_latents *l = &d->latents;
    out->input = malloc(l->channels * l->height * l->width * sizeof(float));
    out->output = malloc(luna_pixels_bytes(&d->shape, 1, LUNA_PIXELS_F32_PLANAR));
    if (out->input && out->output) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "no memory for a picture of %zu x %zu",
                      d->shape.width, d->shape.height);
}

//  Image by image, with the pixels made here.
static luna_err decode_each(decoding *d, size_t count, const cached_plan *entry)
{
    staging stage = {0};
    luna_err err = allocate_staging(d, &stage);
    for (size_t i = 0; err == LUNA_OK && i < count; i++)
        err = decode_one(d, entry, &stage);
    free(stage.input);
    free(stage.output);
    return err;
}

//  The next `count` images.
static luna_err decode_some(decoding *d, size_t count)
{
    cached_plan *entry = NULL;
    LUNA_TRY(get_plan(d->vae, &d->latents, &entry));
    return d->vae->backend->run_batch ? decode_batch(d, count, entry)
                                      : decode_each(d, count, entry);
}

//  Somebody else may have taken the device's memory since the plan was made: all of ours
//  goes back, then one image at a time takes the least.
static luna_err decode_sparingly(decoding *d)
{
    luna_log(LUNA_LOG_WARNING, "memory_short",
             "detail=\"%s\" next=\"one image at a time, with fresh memory\"",
             luna_error_text());
    luna_vae_trim(d->vae);
    while (d->next < d->end) LUNA_TRY(decode_some(d, 1));
    return LUNA_OK;
}

static luna_err decode_all(decoding *d, size_t first, size_t count)
{
    cached_plan *entry = NULL;
    LUNA_TRY(luna_vae_output_shape(d->vae, &d->latents, &d->shape));
    LUNA_TRY(check_range(d, first, count));
    LUNA_TRY(luna_latents_check(&d->latents, first, count));
    //  A plan that does not fit was tried with fresh memory already.
    LUNA_TRY(get_plan(d->vae, &d->latents, &entry));
    d->next = first;
    d->end = first + count;
    const luna_err err = decode_some(d, count);
    const bool again = err == LUNA_NO_MEMORY && d->vae->backend->run_batch;
    return again ? decode_sparingly(d) : err;
}

luna_err luna_vae_decode_to(luna_vae *vae, const luna_vae_latents *latents, size_t first,
                            size_t count, const luna_vae_outlet *outlet)
{
    decoding d = {.vae = vae, .latents = *latents, .outlet = outlet};
    return count == 0 ? LUNA_OK : decode_all(&d, first, count);
}

//  One picture after the other in the caller's memory.
typedef struct row {
    uint8_t *data;
    size_t first;
    size_t step;
} row;

static luna_err place_in_row(void *context, size_t image, void **room)
{
    const row *r = context;
    *room = r->data + (image - r->first) * r->step;
    return LUNA_OK;
}

static void leave_in_row(void *context, size_t image)
{
    (void)context;
    (void)image;
}

static luna_err check_room(const luna_vae *vae, const luna_vae_latents *latents,
                           size_t count, const luna_vae_target *target, size_t *step)
{
    luna_vae_shape shape;
    LUNA_TRY(luna_vae_output_shape(vae, latents, &shape));
    *step = luna_pixels_bytes(&shape, 1, target->format);
    const size_t bytes = luna_pixels_bytes(&shape, count, target->format);
    if (count > shape.count || bytes <= target->bytes) return LUNA_OK;
    return luna_error(LUNA_USAGE, "%zu bytes of pixels do not fit in %zu", bytes,
                      target->bytes);
}

luna_err luna_vae_decode(luna_vae *vae, const luna_vae_latents *latents, size_t first,
                         size_t count, const luna_vae_target *target)
{
    row pictures = {.data = target->data, .first = first};
    const luna_vae_outlet outlet = {.format = target->format,
                                    .rule = target->rule,
                                    .place = place_in_row,
                                    .done = leave_in_row,
                                    .context = &pictures};
    if (count == 0) return LUNA_OK;
    LUNA_TRY(check_room(vae, latents, count, target, &pictures.step));
    return luna_vae_decode_to(vae, latents, first, count, &outlet);
}
