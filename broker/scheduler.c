//  scheduler.c - the queues and the choice; attempts.c and sessions.c have the rest

#include "broker/scheduler_state.h"

#include <stdlib.h>
#include <string.h>

//  Strict priorities: more head start than any two clocks can differ.
static const int64_t strict_ageing_ms = INT64_C(1) << 40;

luna_err luna_scheduler_new(const luna_rules *rules, const luna_calls *calls,
                            luna_scheduler **out)
{
    luna_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler) return luna_error(LUNA_NO_MEMORY, "no memory for the scheduler");
    scheduler->rules = *rules;
    if (rules->ageing_ms == 0) scheduler->rules.ageing_ms = strict_ageing_ms;
    scheduler->calls = *calls;
    scheduler->timers.before = luna_job_wakes_before;
    scheduler->random = rules->seed | 1;
    *out = scheduler;
    return LUNA_OK;
}

static void free_queue(luna_queue *queue)
{
    free(queue->waiting.at);
    free(queue->vae);
    free(queue);
}

void luna_scheduler_free(luna_scheduler **scheduler)
{
    luna_scheduler *s = *scheduler;
    if (!s) return;
    luna_job *job;
    for (size_t at = 0; (job = luna_job_table_next(&s->jobs, &at));) {
        free(job->saved);
        free(job);
    }
    for (size_t i = 0; i < s->queue_count; i++) free_queue(s->queues[i]);
    free(s->jobs.slots);
    free(s->timers.at);
    luna_fleet_clear(&s->fleet);
    free(s);
    *scheduler = NULL;
}

//  ---- places --------------------------------------------------------------------

static luna_job_heap *heap_of(luna_scheduler *s, const luna_job *job)
{
    if (job->place == LUNA_PLACE_WAITING) return &job->queue->waiting;
    const bool timed =
        job->place == LUNA_PLACE_DEFERRED || job->place == LUNA_PLACE_ORPHAN;
    return timed ? &s->timers : NULL;
}

static void leave(luna_scheduler *s, luna_job *job)
{
    luna_job_heap *heap = heap_of(s, job);
    if (heap) luna_job_heap_remove(heap, job);
    if (luna_place_is_pending(job->place)) s->backlog[job->priority]--;
    if (job->place == LUNA_PLACE_STORING) s->storing--;
}

static void enter(luna_scheduler *s, luna_job *job, luna_job_place place)
{
    job->place = place;
    luna_job_heap *heap = heap_of(s, job);
    if (heap) luna_job_heap_push(heap, job);
    if (luna_place_is_pending(place)) s->backlog[job->priority]++;
    if (place == LUNA_PLACE_STORING) s->storing++;
}

void luna_scheduler_move(luna_scheduler *s, luna_job *job, luna_job_place place)
{
    leave(s, job);
    enter(s, job, place);
}

//  ---- adding and forgetting -----------------------------------------------------

static luna_queue *find_queue(const luna_scheduler *s, luna_text vae)
{
    for (size_t i = 0; i < s->queue_count; i++)
        if (luna_text_is(vae, s->queues[i]->vae)) return s->queues[i];
    return NULL;
}

static luna_err new_queue(luna_scheduler *s, luna_text vae, luna_queue **out)
{
    if (s->queue_count == LUNA_QUEUES_MAX)
        return luna_error(LUNA_BUSY, "jobs for %d different VAEs are waiting",
                          LUNA_QUEUES_MAX);
    luna_queue *queue = calloc(1, sizeof *queue);
    char *name = malloc(vae.len + 1);
    if (!queue || !name) {
        free(queue);
        free(name);
        return luna_error(LUNA_NO_MEMORY, "no memory for one more queue");
    }
    luna_text_copy(vae, name, vae.len + 1);
    queue->vae = name;
    queue->waiting.before = luna_job_ranks_before;
    s->queues[s->queue_count++] = queue;
    *out = queue;
    return LUNA_OK;
}

static void close_queue(luna_scheduler *s, luna_queue *queue)
{
    for (size_t i = 0; queue->jobs == 0 && i < s->queue_count; i++) {
        if (s->queues[i] != queue) continue;
        s->queues[i] = s->queues[--s->queue_count];
        free_queue(queue);
        return;
    }
}

static luna_job *new_job(luna_scheduler *s, const luna_entry *entry, luna_queue *queue)
{
    luna_job *job = calloc(1, sizeof *job);
    if (!job) return NULL;
    *job = (luna_job){.id = entry->id,
                      .priority = (uint32_t)entry->priority,
                      .attempts = (uint32_t)entry->attempts,
                      .lost = (uint32_t)entry->lost,
                      .refused = (uint32_t)entry->refused,
                      .order = ++s->order,
                      .created_ms = entry->created_ms,
                      .accepted_ms = entry->accepted_ms,
                      .started_ms = entry->started_ms,
                      .bytes = entry->bytes,
                      .queue = queue,
                      .images = (uint32_t)entry->images};
    job->rank_ms = job->accepted_ms - (int64_t)job->priority * s->rules.ageing_ms;
    return job;
}

//  All the room the job can ever need is taken now.
static luna_err reserve(luna_scheduler *s, luna_queue *queue)
{
    LUNA_TRY(luna_job_table_reserve(&s->jobs));
    LUNA_TRY(luna_job_heap_reserve(&s->timers, s->jobs.count + 1));
    return luna_job_heap_reserve(&queue->waiting, queue->jobs + 1);
}

luna_err luna_scheduler_add(luna_scheduler *s, const luna_entry *entry, int64_t now_ms)
{
    if (luna_job_table_find(&s->jobs, &entry->id))
        return luna_error(LUNA_EXISTS, "the job is active already");
    luna_queue *queue = find_queue(s, entry->vae);
    if (!queue) LUNA_TRY(new_queue(s, entry->vae, &queue));
    luna_err err = reserve(s, queue);
    luna_job *job = err == LUNA_OK ? new_job(s, entry, queue) : NULL;
    if (!job) {
        close_queue(s, queue);
        return luna_error(LUNA_NO_MEMORY, "no memory for one more job");
    }
    queue->jobs++;
    s->bytes += job->bytes;
    job->wake_ms = now_ms + s->rules.adopt_ms;
    luna_job_mark_saved(job, entry->saved, entry->saved_count);
    luna_job_table_add(&s->jobs, job);
    enter(s, job, entry->place);
    return LUNA_OK;
}

static void drop(luna_scheduler *s, luna_job *job)
{
    leave(s, job);
    luna_job_table_remove(&s->jobs, job);
    s->bytes -= job->bytes;
    job->queue->jobs--;
    close_queue(s, job->queue);
    free(job->saved);
    free(job);
}

void luna_scheduler_ended(luna_scheduler *s, const luna_id *id)
{
    luna_job *job = luna_job_table_find(&s->jobs, id);
    if (job && job->place == LUNA_PLACE_ENDING) drop(s, job);
}

void luna_scheduler_stored(luna_scheduler *s, const luna_id *id, bool durable)
{
    luna_job *job = luna_job_table_find(&s->jobs, id);
    if (!job || job->place != LUNA_PLACE_STORING) return;
    if (durable)
        luna_scheduler_move(s, job, LUNA_PLACE_WAITING);
    else
        drop(s, job);
}

//  ---- the choice ----------------------------------------------------------------

static bool anybody_serves(const luna_fleet *fleet, const char *vae)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (luna_decoder_serves(fleet->at[i], vae)) return true;
    return false;
}

static int preference(const luna_decoder *decoder, const luna_job *job, bool serves)
{
    const bool refused_it = luna_id_compare(&decoder->instance, &job->avoid) == 0;
    const bool warm = strcmp(decoder->last_vae, job->queue->vae) == 0;
    return (refused_it ? 0 : 8) + (warm ? 4 : 0) + (serves ? 2 : 0);
}

static bool suits_better(const luna_decoder *a, const luna_decoder *b)
{
    if (!b) return true;
    if (a->hold_count != b->hold_count) return a->hold_count < b->hold_count;
    return a->session < b->session;
}

static luna_decoder *choose(const luna_fleet *fleet, const luna_job *job)
{
    const char *vae = job->queue->vae;
    const bool listed = anybody_serves(fleet, vae);
    luna_decoder *best = NULL;
    int best_score = -1;
    for (size_t i = 0; i < fleet->count; i++) {
        luna_decoder *each = fleet->at[i];
        if (each->state != LUNA_DECODER_READY) continue;
        if (!luna_decoder_has_room(each, job->bytes)) continue;
        if (luna_decoder_holds_job(each, &job->id)) continue;
        const bool serves = listed && luna_decoder_serves(each, vae);
        if (listed && !serves) continue;
        const int score = preference(each, job, serves);
        if (score < best_score) continue;
        if (score == best_score && !suits_better(each, best)) continue;
        best = each;
        best_score = score;
    }
    return best;
}

//  The first job of all queues that has a decoder.
static luna_job *first_that_can_start(const luna_scheduler *s, luna_decoder **decoder)
{
    luna_job *best = NULL;
    for (size_t i = 0; i < s->queue_count; i++) {
        luna_job *first = luna_job_heap_first(&s->queues[i]->waiting);
        if (!first || (best && luna_job_ranks_before(best, first))) continue;
        luna_decoder *choice = choose(&s->fleet, first);
        if (!choice) continue;
        best = first;
        *decoder = choice;
    }
    return best;
}

static void start(luna_scheduler *s, luna_job *job, luna_decoder *decoder, int64_t now_ms)
{
    luna_scheduler_move(s, job, LUNA_PLACE_STARTING);
    job->attempts++;
    job->session = decoder->session;
    luna_decoder_take(decoder, &(luna_hold){.id = job->id,
                                            .attempt = job->attempts,
                                            .bytes = job->bytes,
                                            .wanted = true,
                                            .deadline_ms = now_ms + s->rules.lease_ms});
    const size_t len = strlen(job->queue->vae);
    const size_t room = sizeof decoder->last_vae - 1;
    memcpy(decoder->last_vae, job->queue->vae, len < room ? len : room);
    decoder->last_vae[len < room ? len : room] = '\0';
    s->calls.start(s->calls.context, job, decoder);
}

void luna_scheduler_dispatch(luna_scheduler *s, int64_t now_ms)
{
    luna_decoder *decoder = NULL;
    for (luna_job *job; (job = first_that_can_start(s, &decoder));)
        start(s, job, decoder, now_ms);
}

//  ---- questions -----------------------------------------------------------------

const luna_job *luna_scheduler_find(const luna_scheduler *s, const luna_id *id)
{
    return luna_job_table_find(&s->jobs, id);
}

const luna_job *luna_scheduler_next(const luna_scheduler *s, size_t *at)
{
    return luna_job_table_next(&s->jobs, at);
}

const char *luna_job_vae(const luna_job *job)
{
    return job->queue->vae;
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
    for (size_t at = 0; (job = luna_job_table_next(&s->jobs, &at));)
        if (luna_place_is_pending(job->place) && (!oldest || job->accepted_ms < oldest))
            oldest = job->accepted_ms;
    return oldest;
}

uint64_t luna_scheduler_ahead(const luna_scheduler *s, const luna_job *job)
{
    uint64_t ahead = 0;
    const luna_job *each;
    for (size_t at = 0; (each = luna_job_table_next(&s->jobs, &at));)
        if (luna_place_is_pending(each->place) && luna_job_ranks_before(each, job))
            ahead++;
    return ahead;
}
