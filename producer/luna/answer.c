//  Wire structs, which borrow from a received frame, to the plain structs of luna.h,
//  which own their texts: all of it in one arena behind the answer.

#include "common/arena.h"
#include "producer/luna/client.h"

#include <stdlib.h>

typedef struct owned_answer {
    luna_answer answer;  //  first: the public pointer is the private one
    luna_arena arena;
} owned_answer;

//  Copies texts; after a failure it keeps saying so, so that callers check once.
typedef struct copier {
    luna_arena *arena;
    bool failed;
} copier;

static const char *copy_text(copier *to, luna_text text)
{
    const char *copy = luna_arena_text(to->arena, text.len ? text.data : "", text.len);
    if (!copy) to->failed = true;
    return copy;
}

static const char *copy_id(copier *to, const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return copy_text(to, luna_text_of(text));
}

//  NULL for an empty list, too.
static void *copy_room(copier *to, size_t count, size_t size)
{
    if (count == 0) return NULL;
    void *room = luna_arena_alloc(to->arena, count, size);
    if (!room) to->failed = true;
    return room;
}

static void copy_status(copier *to, const luna_msg_status *from, luna_answer *answer)
{
    luna_status *status = copy_room(to, 1, sizeof *status);
    if (!status) return;
    *status = (luna_status){.pending = from->pending,
                            .in_progress = from->in_progress,
                            .completed = from->completed,
                            .failed = from->failed,
                            .cancelled = from->cancelled,
                            .queued_bytes = from->queued_bytes,
                            .oldest_ms = from->oldest_ms,
                            .decoders = from->decoders,
                            .accepting = copy_text(to, from->accepting),
                            .version = copy_text(to, from->version),
                            .paused = from->paused,
                            .images = from->images,
                            .free_bytes = from->free_bytes,
                            .uptime_ms = from->uptime_ms,
                            .alarm = copy_text(to, from->alarm)};
    answer->status = status;
}

static luna_image copy_image(copier *to, const luna_msg_image *from)
{
    return (luna_image){.input = from->input,
                        .index = from->index,
                        .path = copy_text(to, from->path),
                        .bytes = from->bytes,
                        .sha256 = copy_text(to, from->sha256),
                        .width = from->width,
                        .height = from->height,
                        .decode_ms = from->decode_ms,
                        .encode_ms = from->encode_ms,
                        .write_ms = from->write_ms,
                        .note = copy_text(to, from->note)};
}

static void copy_files(copier *to, const luna_msg_job_info *from, luna_job *job)
{
    luna_image *files = copy_room(to, from->files.count, sizeof *files);
    if (!files) return;
    for (size_t i = 0; i < from->files.count && !to->failed; i++)
        files[i] = copy_image(to, &from->files.items[i]);
    job->files = files;
    job->file_count = from->files.count;
}

static void copy_job(copier *to, const luna_msg_job_info *from, luna_job *job)
{
    *job = (luna_job){.id = copy_id(to, &from->id),
                      .state = copy_text(to, from->state),
                      .priority = from->priority,
                      .position = from->position,
                      .images = from->images,
                      .images_done = from->images_done,
                      .bytes = from->bytes,
                      .attempts = from->attempts,
                      .lost = from->lost,
                      .refused = from->refused,
                      .created_ms = from->created_ms,
                      .accepted_ms = from->accepted_ms,
                      .started_ms = from->started_ms,
                      .finished_ms = from->finished_ms,
                      .vae = copy_text(to, from->vae),
                      .decoder = copy_text(to, from->decoder),
                      .error = copy_text(to, from->error),
                      .detail = copy_text(to, from->detail),
                      .deadline_ms = from->deadline_ms,
                      .next = from->next,
                      .vae_name = copy_text(to, from->vae_name),
                      .vae_path = copy_text(to, from->vae_path),
                      .vae_sha256 = copy_text(to, from->vae_sha256)};
    copy_files(to, from, job);
}

static void copy_jobs(copier *to, const luna_msg_answer *from, luna_answer *answer)
{
    luna_job *jobs = copy_room(to, from->jobs.count, sizeof *jobs);
    if (!jobs) return;
    for (size_t i = 0; i < from->jobs.count && !to->failed; i++)
        copy_job(to, &from->jobs.items[i], &jobs[i]);
    answer->jobs = jobs;
    answer->job_count = from->jobs.count;
}

static void copy_vaes(copier *to, const luna_msg_decoder_info *from,
                      luna_decoder *decoder)
{
    const char **vaes = copy_room(to, from->vaes.count, sizeof *vaes);
    if (!vaes) return;
    for (size_t i = 0; i < from->vaes.count; i++)
        vaes[i] = copy_text(to, from->vaes.items[i].name);
    decoder->vaes = vaes;
    decoder->vae_count = from->vaes.count;
}

static void copy_decoder(copier *to, const luna_msg_decoder_info *from,
                         luna_decoder *decoder)
{
    *decoder = (luna_decoder){.name = copy_text(to, from->name),
                              .state = copy_text(to, from->state),
                              .device = copy_text(to, from->device),
                              .version = copy_text(to, from->version),
                              .host = copy_text(to, from->host),
                              .pid = from->pid,
                              .running = from->running,
                              .credit_jobs = from->credit_jobs,
                              .images_done = from->images_done,
                              .jobs_done = from->jobs_done,
                              .jobs_failed = from->jobs_failed,
                              .seen_ms = from->seen_ms,
                              .vae = copy_text(to, from->vae),
                              .formats = copy_text(to, from->formats)};
    copy_vaes(to, from, decoder);
}

static void copy_decoders(copier *to, const luna_msg_answer *from, luna_answer *answer)
{
    luna_decoder *decoders = copy_room(to, from->decoders.count, sizeof *decoders);
    if (!decoders) return;
    for (size_t i = 0; i < from->decoders.count && !to->failed; i++)
        copy_decoder(to, &from->decoders.items[i], &decoders[i]);
    answer->decoders = decoders;
    answer->decoder_count = from->decoders.count;
}

luna_err luna_answer_make(const luna_msg_answer *from, luna_answer **out)
{
    owned_answer *owned = calloc(1, sizeof *owned);
    if (!owned) return luna_error(LUNA_NO_MEMORY, "out of memory");
    copier to = {.arena = &owned->arena};
    luna_answer *answer = &owned->answer;
    if (from->status) copy_status(&to, from->status, answer);
    copy_jobs(&to, from, answer);
    copy_decoders(&to, from, answer);
    answer->text = copy_text(&to, from->text);
    if (to.failed) {
        luna_answer_free(&answer);
        return luna_error(LUNA_NO_MEMORY, "out of memory");
    }
    *out = answer;
    return LUNA_OK;
}

void luna_answer_free(luna_answer **answer)
{
    owned_answer *owned = answer ? (owned_answer *)*answer : NULL;
    if (!owned) return;
    luna_arena_free(&owned->arena);
    free(owned);
    *answer = NULL;
}
