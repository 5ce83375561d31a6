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

static luna_err decode_into(const batch *from, size_t index, luna_picture *picture)
{
    const int64_t start_ns = luna_now_ns();
    const luna_vae_target target = {
        .data = picture->pixels,
        .bytes = picture->task.bytes,
        .format = picture->format,
        .rule = from->job->round_pixels ? LUNA_PIXELS_ROUND : LUNA_PIXELS_TRUNCATE};
    LUNA_TRY(luna_vae_decode(from->vae, &from->latents, index, 1, &target));
    picture->decode_ms = (double)(luna_now_ns() - start_ns) / 1e6;
    return LUNA_OK;
}

static luna_err decode_image(const luna_decode *decode, const batch *from, size_t index)
{
    luna_picture *picture = luna_picture_new(decode->attempt, &from->shape, from->format);
    if (!picture) return LUNA_NO_MEMORY;
    picture->sink = decode->tools->sink;
    picture->job = from->job;
    picture->key = (luna_image_key){from->job->id, from->input, index};
    const luna_err err = decode_into(from, index, picture);
    if (err != LUNA_OK) {
        luna_picture_free(picture);
        return err;
    }
    luna_attempts_tick(decode->tools->attempts);
    luna_pool_submit(decode->tools->pool, &picture->task);
    return LUNA_OK;
}

static luna_err decode_batch(const luna_decode *decode, const batch *from,
                             const uint8_t *missing)
{
    const size_t bytes = luna_pixels_bytes(&from->shape, 1, from->format);
    for (size_t n = 0; n < from->latents.count; n++) {
        if (!missing[n]) continue;
        luna_pool_reserve(decode->tools->pool, bytes);
        const bool over = luna_attempt_is_over(decode->attempt);
        const luna_err err = over ? LUNA_OK : decode_image(decode, from, n);
        if (over || err != LUNA_OK) {
            luna_pool_unreserve(decode->tools->pool, bytes);
            return err;
        }
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
    for (size_t i = 0; i < list->job->inputs.count; i++) {
        const luna_err err =
            decode_batch(decode, &batches[i], list->missing + list->start[i]);
        if (err == LUNA_DEVICE) luna_engine_spoil(decode->engine);
        LUNA_TRY(err);
    }
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
