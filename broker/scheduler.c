//  scheduler.c - jobs in and out, places, and what is asked

#include "broker/scheduler_state.h"

#include <stdlib.h>
#include <string.h>

//  Strict priorities: more head start than any two fair times can differ.
static const int64_t strict_ageing_ms = INT64_C(1) << 40;

luna_rules luna_scheduler_rules(const luna_rules *rules)
{
    luna_rules used = *rules;
    if (used.ageing_ms == 0) used.ageing_ms = strict_ageing_ms;
    return used;
}

luna_err luna_scheduler_new(const luna_rules *rules, const luna_calls *calls,
                            luna_scheduler **out)
{
    luna_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler) return luna_error(LUNA_NO_MEMORY, "no memory for the scheduler");
    scheduler->rules = luna_scheduler_rules(rules);
    scheduler->calls = *calls;
    scheduler->timers.before = luna_job_wakes_before;
    scheduler->deadlines.before = luna_job_expires_before;
    scheduler->deadlines.kind = LUNA_HEAP_DEADLINE;
    scheduler->pace = luna_pace_start();
    scheduler->random = rules->seed | 1;
    scheduler->jobs.seed = rules->seed;
    scheduler->clients.seed = rules->seed;
    *out = scheduler;
    return LUNA_OK;
}

static void free_job(luna_job *job)
{
    free(job->saved);
    free(job);
}

void luna_scheduler_free(luna_scheduler **scheduler)
{
    luna_scheduler *s = *scheduler;
    if (!s) return;
    luna_job *job;
    luna_client *client;
    for (size_t at = 0; (job = luna_id_table_next(&s->jobs, &at));) free_job(job);
    for (size_t at = 0; (client = luna_id_table_next(&s->clients, &at));) free(client);
    luna_queues_free(&s->queues);
    free(s->jobs.slots);
    free(s->clients.slots);
    free(s->timers.at);
    free(s->deadlines.at);
    luna_fleet_clear(&s->fleet);
    free(s);
    *scheduler = NULL;
}

//  ---- places --------------------------------------------------------------------

static luna_job_heap *heap_of(luna_scheduler *s, const luna_job *job)
{
    if (job->place == LUNA_PLACE_WAITING) return &job->lane->waiting;
    const bool timed =
        job->place == LUNA_PLACE_DEFERRED || job->place == LUNA_PLACE_ORPHAN;
    return timed ? &s->timers : NULL;
}

//  What is being made durable is let finish first.
static bool can_expire(const luna_job *job)
{
    return job->expires_ms != 0 && job->place != LUNA_PLACE_STORING &&
           job->place != LUNA_PLACE_STARTING && job->place != LUNA_PLACE_ENDING;
}

static void leave_lane(luna_job *job)
{
    luna_lane *lane = job->lane;
    lane->queue->waiting_bytes -= job->bytes;
    if (lane->waiting.count > 0) return;
    lane->denied_ms = 0;
    lane->idled_ms = 0;
}

void luna_scheduler_leave(luna_scheduler *s, luna_job *job)
{
    luna_job_heap *heap = heap_of(s, job);
    if (heap) luna_job_heap_remove(heap, job);
    if (can_expire(job)) luna_job_heap_remove(&s->deadlines, job);
    if (job->place == LUNA_PLACE_WAITING) leave_lane(job);
    if (job->place == LUNA_PLACE_STORING) s->storing--;
    if (!luna_place_is_pending(job->place)) return;
    s->backlog[job->priority]--;
    job->queue->pending[job->priority]--;
}

void luna_scheduler_enter(luna_scheduler *s, luna_job *job, luna_job_place place)
{
    job->place = place;
    luna_job_heap *heap = heap_of(s, job);
    if (heap) luna_job_heap_push(heap, job);
    if (can_expire(job)) luna_job_heap_push(&s->deadlines, job);
    if (place == LUNA_PLACE_WAITING) job->queue->waiting_bytes += job->bytes;
    if (place == LUNA_PLACE_STORING) s->storing++;
    if (!luna_place_is_pending(place)) return;
    s->backlog[job->priority]++;
    job->queue->pending[job->priority]++;
}

void luna_scheduler_move(luna_scheduler *s, luna_job *job, luna_job_place place)
{
    luna_scheduler_leave(s, job);
    luna_scheduler_enter(s, job, place);
}

//  ---- adding and forgetting -----------------------------------------------------

static luna_err check_entry(const luna_scheduler *s, const luna_entry *entry)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LUNA_MAX_INPUTS; i++) sum += entry->batches[i];
    if (luna_id_table_find(&s->jobs, &entry->id))
        return luna_error(LUNA_EXISTS, "the job is active already");
    if (entry->priority > LUNA_PRIORITY_MAX)
        return luna_error(LUNA_BAD_REQUEST, "the priority must be 0 to %d",
                          LUNA_PRIORITY_MAX);
    if (entry->images > LUNA_MAX_INPUTS * LUNA_MAX_BATCH || (sum && sum != entry->images))
        return luna_error(LUNA_BAD_REQUEST, "the job's inputs have %llu images, not %llu",
                          (unsigned long long)sum, (unsigned long long)entry->images);
    return LUNA_OK;
}

//  All the room the job can ever need is taken now.
static luna_err reserve(luna_scheduler *s, const luna_entry *entry, luna_lane *lane)
{
    LUNA_TRY(luna_id_table_reserve(&s->jobs));
    LUNA_TRY(luna_job_heap_reserve(&s->timers, s->jobs.count + 1));
    if (entry->expires_ms)
        LUNA_TRY(luna_job_heap_reserve(&s->deadlines, s->jobs.count + 1));
    return luna_job_heap_reserve(&lane->waiting, lane->jobs + 1);
}

static luna_job *new_job(const luna_entry *entry, luna_lane *lane, luna_client *client)
{
    luna_job *job = calloc(1, sizeof *job);
    if (!job) return NULL;
    *job = (luna_job){.id = entry->id,
                      .priority = (uint32_t)entry->priority,
                      .attempts = (uint32_t)entry->attempts,
                      .lost = (uint32_t)entry->lost,
                      .lost_in_row = (uint32_t)entry->lost,
                      .refused = (uint32_t)entry->refused,
                      .next_ms = entry->next_ms,
                      .created_ms = entry->created_ms,
                      .accepted_ms = entry->accepted_ms,
                      .started_ms = entry->started_ms,
                      .expires_ms = entry->expires_ms,
                      .bytes = entry->bytes,
                      .queue = lane->queue,
                      .lane = lane,
                      .client = client,
                      .images = (uint32_t)entry->images};
    memcpy(job->batches, entry->batches, sizeof job->batches);
    luna_job_mark_saved(job, entry->saved, entry->saved_count);
    return job;
}

static void count_in(luna_scheduler *s, luna_job *job)
{
    job->order = ++s->order;
    job->queue->jobs++;
    job->lane->jobs++;
    job->client->jobs++;
    job->client->bytes += job->bytes;
    s->bytes += job->bytes;
    luna_id_table_add(&s->jobs, job);
}

//  The lane and the client of an entry, with room for the job.
static luna_err open_both(luna_scheduler *s, const luna_entry *entry, luna_lane **lane,
                          luna_client **client)
{
    LUNA_TRY(luna_queues_open(&s->queues, &s->fleet, entry->vae, entry->formats, lane));
    LUNA_TRY(luna_clients_open(&s->clients, &entry->client, client));
    return reserve(s, entry, *lane);
}

static void close_both(luna_scheduler *s, luna_lane *lane, luna_client *client)
{
    if (lane) luna_queues_close(&s->queues, &s->fleet, lane->queue);
    if (client) luna_clients_close(&s->clients, client);
}

luna_err luna_scheduler_add(luna_scheduler *s, const luna_entry *entry, int64_t now_ms)
{
    luna_lane *lane = NULL;
    luna_client *client = NULL;
    LUNA_TRY(check_entry(s, entry));
    luna_err err = open_both(s, entry, &lane, &client);
    luna_job *job = err == LUNA_OK ? new_job(entry, lane, client) : NULL;
    if (!job) {
        close_both(s, lane, client);
        if (err != LUNA_OK) return err;
        return luna_error(LUNA_NO_MEMORY, "no memory for one more job");
    }
    count_in(s, job);
    job->wake_ms = now_ms + s->rules.adopt_ms;
    if (entry->former) job->regroup_ms = job->wake_ms;
    luna_fairness_place(s, job);
    if (entry->place != LUNA_PLACE_ORPHAN) luna_chain_append(job);
    luna_scheduler_enter(s, job, entry->place);
    return LUNA_OK;
}

static void drop(luna_scheduler *s, luna_job *job)
{
    luna_scheduler_leave(s, job);
    luna_chain_remove(job);
    luna_id_table_remove(&s->jobs, &job->id);
    s->bytes -= job->bytes;
    job->queue->jobs--;
    job->lane->jobs--;
    job->client->jobs--;
    job->client->bytes -= job->bytes;
    close_both(s, job->lane, job->client);
    free_job(job);
}

void luna_scheduler_ended(luna_scheduler *s, const luna_id *id)
{
    luna_job *job = luna_id_table_find(&s->jobs, id);
    if (job && job->place == LUNA_PLACE_ENDING) drop(s, job);
}

void luna_scheduler_stored(luna_scheduler *s, const luna_id *id, bool durable)
{
    luna_job *job = luna_id_table_find(&s->jobs, id);
    if (!job || job->place != LUNA_PLACE_STORING) return;
    if (durable)
        luna_scheduler_move(s, job, LUNA_PLACE_WAITING);
    else
        drop(s, job);
}

//  ---- starting ------------------------------------------------------------------

static void start(luna_scheduler *s, luna_job *job, luna_decoder *decoder, int64_t now_ms)
{
    luna_scheduler_move(s, job, LUNA_PLACE_STARTING);
    luna_fairness_started(job);
    const bool cold = luna_affinity_given(decoder, job);
    job->attempts++;
    job->session = decoder->session;
    luna_decoder_take(decoder, &(luna_hold){.id = job->id,
                                            .attempt = job->attempts,
                                            .bytes = job->bytes,
                                            .wanted = true,
                                            .cold = cold,
                                            .deadline_ms = now_ms + s->rules.lease_ms});
    s->calls.start(s->calls.context, job, decoder);
}

void luna_scheduler_dispatch(luna_scheduler *s, int64_t now_ms)
{
    luna_choice choice;
    while (!s->paused && luna_choice_next(s, now_ms, &choice))
        start(s, choice.job, choice.decoder, now_ms);
}

//  ---- questions -----------------------------------------------------------------

const luna_job *luna_scheduler_find(const luna_scheduler *s, const luna_id *id)
{
    return luna_id_table_find(&s->jobs, id);
}

const luna_job *luna_scheduler_next(const luna_scheduler *s, size_t *at)
{
    return luna_id_table_next(&s->jobs, at);
}

const char *luna_job_vae(const luna_job *job)
{
    return job->queue->vae;
}

luna_usage luna_scheduler_client(const luna_scheduler *s, const luna_id *id)
{
    const luna_client *client = luna_id_table_find(&s->clients, id);
    if (!client) return (luna_usage){0};
    return (luna_usage){.jobs = client->jobs, .bytes = client->bytes};
}

const luna_fleet *luna_scheduler_fleet(const luna_scheduler *s)
{
    return &s->fleet;
}

const luna_decoder *luna_scheduler_decoder(const luna_scheduler *s, uint32_t session)
{
    return luna_fleet_find(&s->fleet, session);
}

uint64_t luna_scheduler_backlog(const luna_scheduler *s, uint64_t priority)
{
    uint64_t count = 0;
    for (uint64_t i = priority; i <= LUNA_PRIORITY_MAX; i++) count += s->backlog[i];
    return count;
}

luna_depth luna_scheduler_depth(const luna_scheduler *s)
{
    luna_depth depth = {.pending = luna_scheduler_backlog(s, 0), .bytes = s->bytes};
    depth.storing = s->storing;
    depth.in_progress = s->jobs.count - depth.pending - s->storing;
    for (size_t i = 0; i < s->fleet.count; i++) {
        const luna_decoder *each = s->fleet.at[i];
        if (each->state == LUNA_DECODER_READY) depth.decoders++;
        for (size_t h = 0; h < each->hold_count; h++)
            if (each->holds[h].wanted) depth.sent++;
    }
    return depth;
}

int64_t luna_scheduler_oldest(const luna_scheduler *s)
{
    int64_t oldest = 0;
    const luna_job *job;
    for (size_t at = 0; (job = luna_id_table_next(&s->jobs, &at));)
        if (luna_place_is_pending(job->place) && (!oldest || job->accepted_ms < oldest))
            oldest = job->accepted_ms;
    return oldest;
}

uint64_t luna_scheduler_ahead(const luna_scheduler *s, const luna_job *job)
{
    uint64_t ahead = 0;
    const luna_job *each;
    for (size_t at = 0; (each = luna_id_table_next(&s->jobs, &at));)
        if (luna_place_is_pending(each->place) && luna_job_ranks_before(each, job))
            ahead++;
    return ahead;
}
