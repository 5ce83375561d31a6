//  luna_submit: the caller's structs become one message in one buffer
//
//  The message is sized first and written in place, so the latents are copied exactly
//  once, in the caller's thread and outside of the lock.

#include "common/arena.h"
#include "common/clock.h"
#include "producer/luna/client.h"
#include "proto/job.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_EXTRAS 64

static luna_latent default_latent(void)
{
    return (luna_latent){.dtype = "float32",
                         .affix = "",
                         .format = "png",
                         .png_compression = 4,
                         .lossy_quality = 90,
                         .png_bits = 8,
                         .subdir = 1};
}

void luna_submission_init(luna_submission *submission)
{
    *submission = (luna_submission){.priority = LUNA_PRIORITY_DEFAULT,
                                    .vae = "auto",
                                    .save_mode = "daemon",
                                    .quality_gate = "disabled",
                                    .min_quality = LUNA_MIN_QUALITY_DEFAULT,
                                    .embed_workflow = 1};
    for (size_t i = 0; i < LUNA_INPUTS_MAX; i++) submission->inputs[i] = default_latent();
}

//  NULL and "" are both nothing.
static luna_text text_or_none(const char *text)
{
    return luna_text_of(text && *text ? text : NULL);
}

static luna_blob blob_of(const char *json)
{
    return (luna_blob){.data = json && *json ? json : NULL,
                       .len = json ? strlen(json) : 0};
}

static luna_err fill_input(const luna_latent *from, size_t number, luna_msg_input *to)
{
    const luna_latent fallback = default_latent();
    if (!from->data)
        return luna_error(LUNA_BAD_LATENT, "latent %zu: its data is NULL", number + 1);
    if (from->dims > LUNA_DIMS_MAX)
        return luna_error(LUNA_BAD_LATENT,
                          "latent %zu: %u dimensions; its shape must be "
                          "[N, C, H, W]",
                          number + 1, (unsigned)from->dims);
    *to = (luna_msg_input){
        .affix = text_or_none(from->affix),
        .format = luna_text_of(from->format ? from->format : fallback.format),
        .png_compression = from->png_compression,
        .lossy_quality = from->lossy_quality,
        .lossless_webp = from->lossless_webp != 0,
        .png_bits = from->png_bits,
        .subdir = from->subdir != 0,
        .dtype = luna_text_of(from->dtype ? from->dtype : fallback.dtype),
        .shape.count = from->dims,
        .latent = {.data = from->data, .len = from->bytes}};
    memcpy(to->shape.at, from->shape, from->dims * sizeof from->shape[0]);
    return LUNA_OK;
}

//  The parts a message is made of while it is packed; all borrowed from the caller.
typedef struct draft {
    luna_msg_job job;
    luna_msg_input inputs[LUNA_INPUTS_MAX];
    luna_pair extras[MAX_EXTRAS];
    luna_msg_heatmaps heatmaps[LUNA_HEATMAPS_MAX];
    luna_arena tokens;
} draft;

static bool is_saved(const luna_latent *latent)
{
    return !latent->format || strcmp(latent->format, "no save") != 0;
}

static luna_err fill_inputs(const luna_submission *from, draft *to)
{
    if (from->input_count > LUNA_INPUTS_MAX)
        return luna_error(LUNA_BAD_REQUEST, "a job has 1 to %d latents, not %u",
                          LUNA_INPUTS_MAX, (unsigned)from->input_count);
    size_t count = 0;
    for (size_t i = 0; i < from->input_count; i++)
        if (is_saved(&from->inputs[i]))
            LUNA_TRY(fill_input(&from->inputs[i], i, &to->inputs[count++]));
    to->job.inputs.items = to->inputs;
    to->job.inputs.count = count;
    if (count > 0 || from->input_count == 0) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST,
                      "every latent has the format \"no save\"; there is nothing to do");
}

static luna_err fill_extras(const luna_submission *from, draft *to)
{
    if (from->extra_count > MAX_EXTRAS)
        return luna_error(LUNA_BAD_REQUEST, "%u extra keys; at most %d",
                          (unsigned)from->extra_count, MAX_EXTRAS);
    for (size_t i = 0; i < from->extra_count; i++) {
        if (!from->extras[i].key || !from->extras[i].value)
            return luna_error(LUNA_BAD_REQUEST, "extra %zu: its key or value is NULL",
                              i + 1);
        to->extras[i] = (luna_pair){.key = luna_text_of(from->extras[i].key),
                                    .value = blob_of(from->extras[i].value)};
    }
    to->job.extra.items = to->extras;
    to->job.extra.count = from->extra_count;
    return LUNA_OK;
}

static luna_err fill_tokens(const luna_heatmaps *from, luna_arena *memory,
                            luna_msg_heatmaps *to)
{
    if (from->token_count > LUNA_MAX_TOKENS)
        return luna_error(LUNA_BAD_REQUEST, "heatmaps of %u tokens; at most %d",
                          (unsigned)from->token_count, LUNA_MAX_TOKENS);
    luna_msg_token *tokens =
        luna_arena_alloc(memory, (size_t)from->token_count + 1, sizeof *tokens);
    if (!tokens) return luna_error(LUNA_NO_MEMORY, "no memory for a job's heatmaps");
    for (size_t i = 0; i < from->token_count; i++)
        tokens[i] = (luna_msg_token){.text = text_or_none(from->tokens[i].text),
                                     .index = from->tokens[i].index};
    to->tokens.items = tokens;
    to->tokens.count = from->token_count;
    return LUNA_OK;
}

//  Sizes that no set can have are refused by the check; here they only must not overflow.
static luna_err fill_heatmap(const luna_heatmaps *from, luna_arena *memory,
                             luna_msg_heatmaps *to)
{
    if (!from->data || (!from->tokens && from->token_count))
        return luna_error(LUNA_BAD_REQUEST, "heatmaps: their data or tokens are NULL");
    *to = (luna_msg_heatmaps){
        .prompt = text_or_none(from->prompt),
        .variant = text_or_none(from->variant),
        .shape = {{from->images, from->token_count, from->height, from->width}, 4},
        .maps.data = from->data};
    size_t values;
    if (__builtin_mul_overflow((size_t)from->images, from->token_count, &values) ||
        __builtin_mul_overflow(values, (size_t)from->height * from->width, &values) ||
        __builtin_mul_overflow(values, sizeof(float), &to->maps.len))
        return luna_error(LUNA_TOO_LARGE, "heatmaps: their sizes are beyond every limit");
    return fill_tokens(from, memory, to);
}

static luna_err fill_heatmaps(const luna_submission *from, draft *to)
{
    if (from->heatmap_count > LUNA_HEATMAPS_MAX)
        return luna_error(LUNA_BAD_REQUEST, "%u sets of heatmaps; at most %d",
                          (unsigned)from->heatmap_count, LUNA_HEATMAPS_MAX);
    for (size_t i = 0; i < from->heatmap_count; i++)
        LUNA_TRY(fill_heatmap(&from->heatmaps[i], &to->tokens, &to->heatmaps[i]));
    to->job.heatmaps.items = to->heatmaps;
    to->job.heatmaps.count = from->heatmap_count;
    return LUNA_OK;
}

static void fill_settings(const luna_submission *from, luna_msg_job *job)
{
    job->priority = from->priority;
    job->deadline_ms = from->deadline_ms;
    if (from->vae) job->vae = luna_text_of(from->vae);
    job->output_dir = text_or_none(from->output_dir);
    job->save_path = text_or_none(from->save_path);
    job->filename = text_or_none(from->filename);
    job->model_name = text_or_none(from->model_name);
    job->filename_index = from->filename_index;
    job->save_mode = text_or_none(from->save_mode);
    job->quality_gate = text_or_none(from->quality_gate);
    job->min_quality = from->min_quality;
    job->embed_workflow = from->embed_workflow != 0;
    job->round_pixels = from->round_pixels != 0;
    job->sidecar = from->sidecar != 0;
    job->parameters = from->parameters != 0;
    job->custom_metadata = text_or_none(from->custom_metadata);
    job->prompt_id = text_or_none(from->prompt_id);
    job->prompt = blob_of(from->prompt);
    job->workflow = blob_of(from->workflow);
    job->metadata = blob_of(from->metadata);
}

static luna_err fill_draft(luna_client *client, const luna_submission *from, draft *to)
{
    to->job = luna_msg_job_default();
    if (from->job_id)
        LUNA_TRY(luna_job_id(from->job_id, &to->job.id));
    else
        to->job.id = luna_id_new();
    to->job.client = client->id;
    const int64_t now_ms = luna_wall_ms();
    to->job.created_ms = now_ms < 0 ? 0 : (uint64_t)now_ms;
    to->job.utc_offset_min = luna_utc_offset_min(now_ms);
    fill_settings(from, &to->job);
    LUNA_TRY(fill_inputs(from, to));
    LUNA_TRY(fill_extras(from, to));
    LUNA_TRY(fill_heatmaps(from, to));
    return luna_job_check(&to->job);
}

//  The client's bound and the broker's limit, before any memory is taken. What leaves the
//  memory for this job are messages that the outbox holds; their buffers are used anew.
static luna_err reserve(luna_client *client, size_t bytes)
{
    pthread_mutex_lock(&client->lock);
    const uint64_t limit = client->max_job_bytes;
    luna_buffer *evicted = luna_jobs_evict(&client->jobs, bytes);
    const luna_err err =
        limit && bytes > limit
            ? luna_error(LUNA_TOO_LARGE,
                         "the job has %zu bytes, the broker takes at most %llu: "
                         "split the batch",
                         bytes, (unsigned long long)limit)
            : luna_jobs_reserve(&client->jobs, bytes);
    pthread_mutex_unlock(&client->lock);
    luna_buffer_release_chain(evicted);
    return err;
}

static luna_err pack(luna_client *client, const luna_msg_job *job, size_t bytes,
                     luna_entry **out)
{
    luna_entry *entry = calloc(1, sizeof *entry);
    if (entry) entry->body = luna_pool_take(client->pool, bytes);
    if (!entry || !entry->body) {
        free(entry);
        return luna_error(LUNA_NO_MEMORY, "no memory for a job of %zu bytes", bytes);
    }
    entry->id = job->id;
    entry->priority = job->priority;
    entry->timeout_ms = client->options.receipt_timeout_ms;
    entry->keep_ms = luna_now_ms() + client->options.outbox_after_ms;
    const luna_err err =
        luna_msg_encode(LUNA_MSG_JOB, job, entry->body->data, bytes, &entry->bytes);
    if (err != LUNA_OK) {
        luna_entry_free(entry);
        return err;
    }
    assert(entry->bytes == bytes);
    *out = entry;
    return LUNA_OK;
}

//  The reservation becomes the job's on LUNA_OK and is taken back else.
static luna_err enqueue(luna_client *client, const luna_msg_job *job, size_t bytes)
{
    luna_entry *entry = NULL;
    luna_err err = pack(client, job, bytes, &entry);
    pthread_mutex_lock(&client->lock);
    if (err == LUNA_OK) err = luna_jobs_add(&client->jobs, entry);
    if (err != LUNA_OK) luna_jobs_unreserve(&client->jobs, bytes);
    pthread_mutex_unlock(&client->lock);
    if (err != LUNA_OK) luna_entry_free(entry);
    return err;
}

static luna_err submit(luna_client *client, const luna_submission *submission,
                       draft *work)
{
    LUNA_TRY(fill_draft(client, submission, work));
    const size_t bytes = luna_msg_size(LUNA_MSG_JOB, &work->job);
    if (bytes == 0) return luna_error(LUNA_BAD_REQUEST, "the job cannot be packed");
    LUNA_TRY(reserve(client, bytes));
    return enqueue(client, &work->job, bytes);
}

int luna_submit(luna_client *client, const luna_submission *submission,
                char job_id[LUNA_JOB_ID_BYTES])
{
    draft work;
    LUNA_TRY(luna_client_check(client));
    if (!submission || !job_id)
        return luna_error(LUNA_USAGE, "the submission or the place for its id is NULL");
    work.tokens = (luna_arena){0};
    const luna_err err = submit(client, submission, &work);
    luna_arena_free(&work.tokens);
    LUNA_TRY(err);
    luna_id_text(&work.job.id, job_id);
    luna_client_ring(client);
    return LUNA_RC_OK;
}
