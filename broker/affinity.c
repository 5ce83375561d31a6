//  affinity.c - what loading a VAE costs, and what a swap may wait for

#include "broker/scheduler_state.h"

#include <string.h>

#define LOAD_MAX_MS 60000  //  so long a load is believed at most

int64_t luna_affinity_load_ms(const luna_scheduler *s, const luna_queue *queue)
{
    const int64_t ms = queue->load_ms < 0 ? s->rules.load_ms : queue->load_ms;
    return ms < LOAD_MAX_MS ? ms : LOAD_MAX_MS;
}

static bool is_own_work(const luna_scheduler *s, luna_lane *lane, const luna_job *job,
                        size_t place)
{
    const luna_decoder *decoder = s->fleet.at[place];
    const luna_job *first = luna_job_heap_first(&lane->waiting);
    return first && first->priority >= job->priority &&
           luna_decoder_set_has(luna_lane_allowed(lane, &s->fleet), place) &&
           luna_decoder_has_room(decoder, first->bytes) &&
           !luna_decoder_holds_job(decoder, &first->id);
}

bool luna_affinity_has_own_work(const luna_scheduler *s, const luna_job *job,
                                size_t place)
{
    const luna_queue *own = s->fleet.at[place]->queue;
    for (size_t i = 0; own && i < own->lane_count; i++)
        if (is_own_work(s, own->lanes[i], job, place)) return true;
    return false;
}

//  Waits only for one that works and has not refused the job.
static bool would_be_warm(const luna_scheduler *s, const luna_job *job, size_t place)
{
    const luna_decoder *decoder = s->fleet.at[place];
    return decoder->queue == job->queue && luna_decoder_works(decoder) &&
           luna_decoder_set_has(luna_lane_allowed(job->lane, &s->fleet), place) &&
           luna_id_compare(&decoder->instance, &job->avoid) != 0;
}

//  Whether decoders that have the VAE are expected to begin with all that waits for it
//  before another one could have loaded it.
static bool is_soon_served(const luna_scheduler *s, const luna_job *job, int64_t load_ms)
{
    const uint64_t behind_bytes = job->queue->waiting_bytes - job->bytes;
    int64_t count = 0;
    bool soon = false;
    for (size_t i = 0; i < s->fleet.count; i++) {
        const luna_decoder *each = s->fleet.at[i];
        if (!would_be_warm(s, job, i)) continue;
        count++;
        if (each->loaded && luna_pace_predict_ms(&s->pace, each->held_bytes) <= load_ms)
            soon = true;
    }
    return soon && luna_pace_predict_ms(&s->pace, behind_bytes) / count <= load_ms;
}

int64_t *luna_affinity_waits(const luna_scheduler *s, const luna_job *job, size_t place,
                             int64_t now_ms)
{
    luna_queue *queue = job->queue;
    const int64_t load_ms = luna_affinity_load_ms(s, queue);
    int64_t *since_ms = NULL;
    if (job->next_ms || load_ms == 0 || s->fleet.at[place]->queue == queue) return NULL;
    if (luna_affinity_has_own_work(s, job, place))
        since_ms = &job->lane->denied_ms;
    else if (is_soon_served(s, job, load_ms))
        since_ms = &job->lane->idled_ms;
    const bool over = since_ms && *since_ms && now_ms - *since_ms >= load_ms;
    return over ? NULL : since_ms;
}

bool luna_affinity_given(luna_decoder *decoder, const luna_job *job)
{
    luna_queue *queue = job->queue;
    const bool cold = decoder->queue != queue;
    job->lane->denied_ms = 0;
    if (!cold) return false;
    job->lane->idled_ms = 0;
    decoder->queue = queue;
    decoder->loaded = false;
    luna_text_copy(luna_text_of(queue->vae), decoder->last_vae, sizeof decoder->last_vae);
    return true;
}

//  A quarter for the latest load.
static void learn_load(luna_queue *queue, int64_t ms)
{
    if (ms > LOAD_MAX_MS) ms = LOAD_MAX_MS;
    queue->load_ms = queue->load_ms < 0 ? ms : (queue->load_ms * 3 + ms) / 4;
}

//  The load is no part of the service. One that was over before it could be told was
//  none.
void luna_affinity_loaded(luna_decoder *decoder, luna_hold *hold, const luna_job *job,
                          int64_t now_ms)
{
    if (decoder->queue == job->queue) decoder->loaded = true;
    if (!hold->cold) return;
    hold->cold = false;
    learn_load(job->queue, hold->loading_ms ? now_ms - hold->loading_ms : 0);
    if (hold->served_ms) hold->served_ms = now_ms;
}
