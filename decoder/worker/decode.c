#include "decoder/worker/decode.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "decoder/image/encode.h"
#include "decoder/worker/accept.h"
#include "decoder/worker/picture.h"
#include "proto/job.h"

//  What is missing: one byte an image, inputs one after the other.
typedef struct todo {
    const luna_msg_job *job;
    uint8_t *missing;
    size_t start[LUNA_MAX_INPUTS];  //  of each input in `missing`
    size_t images;
    size_t count;  //  not 0 in `missing`
} todo;

struct luna_decode {
    luna_parking parking;  //  must be first
    const luna_decode_tools *tools;
    luna_attempt *attempt;  //  held by the caller
    todo list;
    luna_engine *engine;  //  NULL when nothing is missing
};

static size_t batch_of(const luna_msg_job *job, size_t input)
{
    return (size_t)job->inputs.items[input].shape.at[0];
}

static luna_err todo_new(const luna_msg_job *job, todo *out)
{
    *out = (todo){.job = job, .images = (size_t)luna_job_images(job)};
    size_t at = 0;
    for (size_t i = 0; i < job->inputs.count; i++) {
        out->start[i] = at;
        at += batch_of(job, i);
    }
    out->missing = malloc(out->images);
    if (!out->missing)
        return luna_error(LUNA_NO_MEMORY, "no memory for a list of images");
    memset(out->missing, 1, out->images);
    out->count = out->images;
    return LUNA_OK;
}

//  ---- what is kept already ----------------------------------------------------------

#define LISTED 2  //  in `missing`: the broker has it as saved

static void mark_listed(const luna_msg_work *work, todo *list)
{
    for (size_t i = 0; i < work->done.count; i++) {
        const luna_msg_image_key *key = &work->done.items[i];
        if (key->input < list->job->inputs.count &&
            key->index < batch_of(list->job, (size_t)key->input))
            list->missing[list->start[key->input] + key->index] = LISTED;
    }
}

//  An image is done when the sink knows it, or when the broker does: its picture may
//  have been moved away since, or lie on another host's disk, and the broker has its
//  record.
static luna_err check_image(const luna_decode *decode, todo *list,
                            const luna_image_key *key, size_t *unknown)
{
    static const luna_timings none = {0};
    uint8_t *at = &list->missing[list->start[key->input] + key->index];
    luna_image_record record;
    bool found = false;
    LUNA_TRY(luna_sink_find(decode->tools->sink, key, &record, &found));
    if (found) LUNA_TRY(luna_attempt_saved(decode->attempt, &record, &none));
    *unknown += !found && *at == LISTED;
    if (found || *at == LISTED) {
        *at = 0;
        list->count--;
    }
    return LUNA_OK;
}

static luna_err find_kept(const luna_decode *decode, todo *list)
{
    size_t unknown = 0;
    mark_listed(luna_work_message(luna_attempt_work(decode->attempt)), list);
    for (size_t i = 0; i < list->job->inputs.count; i++)
        for (size_t n = 0; n < batch_of(list->job, i); n++) {
            const luna_image_key key = {list->job->id, i, n};
            LUNA_TRY(check_image(decode, list, &key, &unknown));
        }
    if (unknown) luna_attempt_expect_less(decode->attempt, unknown);
    return LUNA_OK;
}

//  ---- the VAE -----------------------------------------------------------------------

static luna_err read_latents(const luna_msg_input *input, luna_vae_latents *out)
{
    const luna_dtype dtype = luna_dtype_parse(input->dtype.data, input->dtype.len);
    size_t shape[LUNA_MAX_DIMS];
    for (size_t i = 0; i < input->shape.count; i++) shape[i] = (size_t)input->shape.at[i];
    return luna_vae_latents_from(input->latent.data, dtype, shape, input->shape.count,
                                 out);
}

static luna_err choose_vae(luna_decode *decode, const luna_msg_job *job)
{
    const luna_decode_tools *tools = decode->tools;
    const luna_dims *shape = &job->inputs.items[0].shape;
    const luna_vae_question question = {.vae = job->vae,
                                        .model_name = job->model_name,
                                        .channels = (size_t)shape->at[1],
                                        .rank = shape->count};
    const luna_vae_entry *entry = NULL;
    LUNA_TRY(luna_registry_resolve(tools->registry, &question, luna_takes_probe,
                                   tools->takes, &entry));
    LUNA_TRY(luna_attempt_vae(decode->attempt, entry->name, entry->path));
    return luna_models_ask(tools->models, entry, &decode->engine);
}

//  ---- decoding ----------------------------------------------------------------------

typedef struct batch {
    luna_vae *vae;
    const luna_msg_job *job;
    size_t input;
    luna_vae_latents latents;
    luna_vae_shape shape;
    luna_pixels_format format;
} batch;

//  A picture on its way from the engine to the pool.
typedef struct outlet {
    const luna_decode *decode;
    const batch *from;
    luna_picture *picture;  //  has its place, not yet its pixels
    int64_t start_ns;       //  of its decode, less what it waited for its place
    size_t next;            //  the first image that is not handed on
} outlet;

static size_t picture_bytes(const batch *from)
{
    return luna_pixels_bytes(&from->shape, 1, from->format);
}

static luna_err new_picture(outlet *to, size_t index)
{
    const luna_decode *decode = to->decode;
    if (luna_attempt_is_over(decode->attempt)) return LUNA_CANCELLED;
    to->picture = luna_picture_new(decode->attempt, &to->from->shape, to->from->format);
    if (!to->picture) return LUNA_NO_MEMORY;
    to->picture->sink = decode->tools->sink;
    to->picture->job = to->from->job;
    to->picture->key = (luna_image_key){to->from->job->id, to->from->input, index};
    return LUNA_OK;
}

//  Waits until there is room for its pixels.
static luna_err place(void *context, size_t index, void **room)
{
    outlet *to = context;
    const int64_t waiting_ns = luna_now_ns();
    luna_pool_reserve(to->decode->tools->pool, picture_bytes(to->from));
    to->start_ns += luna_now_ns() - waiting_ns;
    const luna_err err = new_picture(to, index);
    if (err != LUNA_OK)
        luna_pool_unreserve(to->decode->tools->pool, picture_bytes(to->from));
    else
        *room = to->picture->pixels;
    return err;
}

static void hand_on(void *context, size_t index)
{
    outlet *to = context;
    const int64_t now_ns = luna_now_ns();
    to->next = index + 1;
    to->picture->decode_ms = (double)(now_ns - to->start_ns) / 1e6;
    to->start_ns = now_ns;
    luna_attempts_tick(to->decode->tools->attempts);
    luna_pool_submit(to->decode->tools->pool, &to->picture->task);
    to->picture = NULL;
}

static void drop_picture(outlet *to)
{
    if (!to->picture) return;
    luna_picture_free(to->picture);
    to->picture = NULL;
    luna_pool_unreserve(to->decode->tools->pool, picture_bytes(to->from));
}

static luna_err decode_until(outlet *to, size_t end)
{
    const batch *from = to->from;
    const luna_vae_outlet pictures = {
        .format = from->format,
        .rule = from->job->round_pixels ? LUNA_PIXELS_ROUND : LUNA_PIXELS_TRUNCATE,
        .place = place,
        .done = hand_on,
        .context = to};
    const luna_err err = luna_vae_decode_to(from->vae, &from->latents, to->next,
                                            end - to->next, &pictures);
    drop_picture(to);
    return err;
}

//  Images that follow one another. When the device's memory is short, the other VAEs that
//  are kept there go first.
static luna_err decode_run(const luna_decode *decode, const batch *from, size_t first,
                           size_t end)
{
    outlet to = {
        .decode = decode, .from = from, .start_ns = luna_now_ns(), .next = first};
    const luna_err err = decode_until(&to, end);
    const bool again = err == LUNA_NO_MEMORY && luna_models_spare(decode->tools->models);
    return again ? decode_until(&to, end) : err;
}

//  The missing images, in as few runs as there are gaps between them. An attempt that is
//  over needs no error.
static luna_err decode_batch(const luna_decode *decode, const batch *from,
                             const uint8_t *missing)
{
    const size_t count = from->latents.count;
    for (size_t first = 0; first < count; first++) {
        size_t end = first;
        while (end < count && missing[end]) end++;
        if (end == first) continue;
        const luna_err err = decode_run(decode, from, first, end);
        if (err != LUNA_OK) return err == LUNA_CANCELLED ? LUNA_OK : err;
        first = end;  //  which is not missing
    }
    return LUNA_OK;
}

static luna_err check_fits(const luna_msg_input *input, const luna_picture_is *is)
{
    luna_format format;
    LUNA_TRY(luna_format_parse(input->format.data, input->format.len, &format));
    return luna_image_fits(format, is->width, is->height);
}

//  Every batch is measured and has its place before the first is decoded, so that a job
//  whose second input does not fit leaves no half of itself behind.
static luna_err open_batches(luna_sink *sink, const luna_msg_job *job, luna_vae *vae,
                             batch *batches)
{
    for (size_t i = 0; i < job->inputs.count; i++) {
        luna_name name;
        luna_picture_is is = {.key = {job->id, i, 0}};
        batches[i] = (batch){.vae = vae,
                             .job = job,
                             .input = i,
                             .format = luna_picture_format(&job->inputs.items[i])};
        LUNA_TRY(read_latents(&job->inputs.items[i], &batches[i].latents));
        LUNA_TRY(luna_vae_output_shape(vae, &batches[i].latents, &batches[i].shape));
        is.width = batches[i].shape.width;
        is.height = batches[i].shape.height;
        LUNA_TRY(check_fits(&job->inputs.items[i], &is));
        LUNA_TRY(luna_picture_name(job, &is, &name));
        LUNA_TRY(luna_sink_check(sink, job->output_dir, &name));
    }
    return LUNA_OK;
}

static luna_err decode_missing(const luna_decode *decode)
{
    batch batches[LUNA_MAX_INPUTS];
    const todo *list = &decode->list;
    luna_vae *vae = luna_engine_vae(decode->engine);
    LUNA_TRY(open_batches(decode->tools->sink, list->job, vae, batches));
    luna_attempt_stage(decode->attempt, "decoding");
    for (size_t i = 0; i < list->job->inputs.count; i++)
        LUNA_TRY(decode_batch(decode, &batches[i], list->missing + list->start[i]));
    return LUNA_OK;
}

luna_err luna_decode_run(luna_decode *decode)
{
    if (!decode->engine || luna_attempt_is_over(decode->attempt)) return LUNA_OK;
    LUNA_TRY(luna_engine_result(decode->engine));
    luna_hashes_begin(decode->tools->hashes, luna_engine_file(decode->engine));
    LUNA_TRY(decode_missing(decode));
    luna_hashes_tell(decode->tools->hashes, luna_engine_file(decode->engine),
                     decode->attempt);
    return LUNA_OK;
}

//  ---- before the first image --------------------------------------------------------

static bool is_loaded(const luna_parking *parking)
{
    const luna_decode *decode = (const luna_decode *)parking;
    return !decode->engine || !luna_engine_is_loading(decode->engine);
}

luna_parking *luna_decode_parking(luna_decode *decode)
{
    return &decode->parking;
}

luna_decode *luna_decode_of(luna_parking *parking)
{
    return (luna_decode *)parking;
}

static luna_err prepare(luna_decode *decode)
{
    luna_work *work = luna_attempt_work(decode->attempt);
    LUNA_TRY(luna_work_load(work));
    LUNA_TRY(luna_accept_job(luna_work_job(work)));
    LUNA_TRY(todo_new(luna_work_job(work), &decode->list));
    LUNA_TRY(luna_attempt_expect(decode->attempt, decode->list.images));
    LUNA_TRY(find_kept(decode, &decode->list));
    if (decode->list.count == 0) return LUNA_OK;
    luna_attempt_stage(decode->attempt, "loading");
    return choose_vae(decode, luna_work_job(work));
}

luna_err luna_decode_open(const luna_decode_tools *tools, luna_attempt *attempt,
                          luna_decode **out)
{
    luna_decode *decode = calloc(1, sizeof *decode);
    if (!decode) return luna_error(LUNA_NO_MEMORY, "no memory for a decode");
    *decode = (luna_decode){{is_loaded}, tools, attempt, {0}, NULL};
    const luna_err err = prepare(decode);
    if (err != LUNA_OK) luna_decode_close(&decode);
    if (err == LUNA_OK) *out = decode;
    return err;
}

void luna_decode_close(luna_decode **held)
{
    luna_decode *decode = *held;
    if (!decode) return;
    luna_engine_release(&decode->engine);
    free(decode->list.missing);
    free(decode);
    *held = NULL;
}
