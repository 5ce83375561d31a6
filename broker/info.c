#include "broker/loop.h"
#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

static luna_text fixed(const char *text)
{
    return text[0] ? luna_text_of(text) : (luna_text){0};
}

static luna_job_state state_of(const luna_job *job)
{
    return luna_place_is_pending(job->place) ? LUNA_JOB_PENDING : LUNA_JOB_IN_PROGRESS;
}

static luna_text decoder_of(const luna_broker *b, const luna_job *job)
{
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, job->session);
    return decoder ? fixed(decoder->name) : (luna_text){0};
}

//  The scheduler's deadline on the wall clock.
static uint64_t deadline_of(const luna_job *job)
{
    if (job->expires_ms == 0) return 0;
    return (uint64_t)(luna_wall_ms() + job->expires_ms - luna_now_ms());
}

luna_msg_job_info luna_info_job(const luna_broker *b, const luna_job *job)
{
    return (luna_msg_job_info){
        .id = job->id,
        .state = luna_text_of(luna_job_state_name(state_of(job))),
        .priority = job->priority,
        .images = job->images,
        .images_done = job->images_done,
        .bytes = job->bytes,
        .attempts = job->attempts,
        .lost = job->lost,
        .refused = job->refused,
        .created_ms = (uint64_t)job->created_ms,
        .accepted_ms = (uint64_t)job->accepted_ms,
        .started_ms = (uint64_t)job->started_ms,
        .vae = luna_text_of(luna_job_vae(job)),
        .decoder = decoder_of(b, job),
        .deadline_ms = deadline_of(job),
        .next = job->next_ms != 0,
    };
}

void luna_info_refresh(const luna_broker *b, luna_msg_job_info *info)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &info->id);
    if (!job || job->place == LUNA_PLACE_STORING || job->place == LUNA_PLACE_ENDING)
        return;
    info->state = luna_text_of(luna_job_state_name(state_of(job)));
    info->priority = job->priority;
    info->next = job->next_ms != 0;
    info->images_done = job->images_done;
    info->attempts = job->attempts;
    info->lost = job->lost;
    info->refused = job->refused;
    info->decoder = decoder_of(b, job);
}

void luna_info_position(const luna_broker *b, luna_msg_job_info *info)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &info->id);
    if (job && luna_place_is_pending(job->place))
        info->position = luna_scheduler_ahead(b->scheduler, job);
}

static const char *decoder_state(const luna_decoder *decoder)
{
    switch (decoder->state) {
        case LUNA_DECODER_LEAVING:
        case LUNA_DECODER_LOST:
            return "lost";
        case LUNA_DECODER_GREETED:
        case LUNA_DECODER_READY:
            break;
    }
    if (decoder->draining || decoder->credit_jobs == 0) return "draining";
    return decoder->hold_count > 0 ? "busy" : "ready";
}

luna_msg_decoder_info luna_info_decoder(const luna_decoder *decoder, int64_t now_ms)
{
    return (luna_msg_decoder_info){
        .name = luna_text_of(decoder->name),
        .state = luna_text_of(decoder_state(decoder)),
        .device = fixed(decoder->device),
        .version = fixed(decoder->version),
        .host = fixed(decoder->host),
        .pid = decoder->pid,
        .running = decoder->hold_count,
        .credit_jobs = decoder->credit_jobs,
        .images_done = decoder->images_done,
        .jobs_done = decoder->jobs_done,
        .jobs_failed = decoder->jobs_failed,
        .seen_ms = (uint64_t)(now_ms - decoder->seen_ms),
        .vaes = {.items = decoder->vaes, .count = decoder->vae_count},
        .vae = fixed(decoder->last_vae),
        .formats = fixed(decoder->format_words),
    };
}

size_t luna_info_decoders(const luna_broker *b, luna_msg_decoder_info **out)
{
    const luna_fleet *fleet = luna_scheduler_fleet(b->scheduler);
    const int64_t now_ms = luna_now_ms();
    luna_msg_decoder_info *infos = calloc(fleet->count + 1, sizeof *infos);
    for (size_t i = 0; infos && i < fleet->count; i++)
        infos[i] = luna_info_decoder(fleet->at[i], now_ms);
    *out = infos;
    return infos ? fleet->count : 0;
}

luna_msg_status luna_info_status(luna_broker *b)
{
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    const int64_t oldest_ms = luna_scheduler_oldest(b->scheduler);
    const int64_t age_ms = oldest_ms ? luna_wall_ms() - oldest_ms : 0;
    return (luna_msg_status){
        .pending = depth.pending,
        .in_progress = depth.in_progress,
        .completed = b->ended[LUNA_JOB_COMPLETED],
        .failed = b->ended[LUNA_JOB_FAILED],
        .cancelled = b->ended[LUNA_JOB_CANCELLED],
        .queued_bytes = depth.bytes,
        .oldest_ms = age_ms > 0 ? (uint64_t)age_ms : 0,
        .decoders = depth.decoders,
        .accepting = luna_text_of(luna_credit_accepting(b)),
        .version = luna_text_of(LUNA_VERSION),
        .paused = luna_scheduler_paused(b->scheduler),
        .images = b->tally.images,
        .free_bytes = b->free_bytes,
        .uptime_ms = (uint64_t)(luna_now_ms() - b->started_ms),
        .alarm = fixed(b->alarm),
    };
}
