//  scheduler_orders.c - what people order: cancel, prioritise, pause, drain, new rules

#include "broker/scheduler_state.h"

#include <string.h>

//  ---- jobs ----------------------------------------------------------------------

static luna_err find_active(const luna_scheduler *s, const luna_id *id, luna_job **out)
{
    *out = luna_id_table_find(&s->jobs, id);
    if (!*out || (*out)->place == LUNA_PLACE_STORING)
        return luna_error(LUNA_NOT_FOUND, "no active job has this id");
    if ((*out)->place == LUNA_PLACE_ENDING)
        return luna_error(LUNA_EXISTS, "the job has ended already");
    return LUNA_OK;
}

luna_err luna_scheduler_cancel(luna_scheduler *s, const luna_id *id)
{
    luna_job *job;
    LUNA_TRY(find_active(s, id, &job));
    luna_attempt_abort(
        s, job, &(luna_verdict){LUNA_JOB_CANCELLED, "cancelled", "cancelled on request"});
    return LUNA_OK;
}

//  As one that comes in now with this priority.
static void change_priority(luna_scheduler *s, luna_job *job, uint32_t priority)
{
    const bool chained = job->chained;
    luna_chain_remove(job);
    job->priority = priority;
    luna_fairness_place(s, job);
    if (chained) luna_chain_append(job);
}

luna_err luna_scheduler_prioritise(luna_scheduler *s, const luna_id *id,
                                   uint64_t priority, int64_t next_ms)
{
    luna_job *job;
    LUNA_TRY(find_active(s, id, &job));
    if (priority > LUNA_PRIORITY_MAX)
        return luna_error(LUNA_BAD_REQUEST, "the priority must be 0 to %d",
                          LUNA_PRIORITY_MAX);
    luna_scheduler_leave(s, job);
    job->next_ms = next_ms;
    if (priority != job->priority) change_priority(s, job, (uint32_t)priority);
    luna_scheduler_enter(s, job, job->place);
    return LUNA_OK;
}

//  ---- pause and drain -----------------------------------------------------------

void luna_scheduler_pause(luna_scheduler *s, bool paused)
{
    s->paused = paused;
}

bool luna_scheduler_paused(const luna_scheduler *s)
{
    return s->paused;
}

static size_t find_drain(const luna_drains *drains, const char *name)
{
    size_t i = 0;
    while (i < drains->count && strcmp(drains->named[i].name, name) != 0) i++;
    return i;
}

bool luna_drains_hold(const luna_drains *drains, const char *name)
{
    const size_t i = find_drain(drains, name);
    return i < drains->count ? drains->named[i].drain : drains->all;
}

static bool is_known(const luna_fleet *fleet, const char *name)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (strcmp(fleet->at[i]->name, name) == 0) return true;
    return false;
}

//  There are as many entries as decoders: when all are taken, one of them is of a
//  decoder that is not known any more.
static void make_room(luna_drains *drains, const luna_fleet *fleet)
{
    size_t i = 0;
    while (i < drains->count && is_known(fleet, drains->named[i].name)) i++;
    if (i < drains->count) drains->named[i] = drains->named[--drains->count];
}

//  Only what differs from the order for all is kept.
static void set_drain(luna_drains *drains, const luna_fleet *fleet, const char *name,
                      bool drain)
{
    size_t i = find_drain(drains, name);
    if (i < drains->count) drains->named[i] = drains->named[--drains->count];
    if (drain == drains->all) return;
    if (drains->count == LUNA_DECODERS_MAX) make_room(drains, fleet);
    i = drains->count++;
    luna_text_copy(luna_text_of(name), drains->named[i].name,
                   sizeof drains->named[i].name);
    drains->named[i].drain = drain;
}

//  A name is cut as the decoder's was.
size_t luna_scheduler_drain(luna_scheduler *s, const char *decoder, bool drain)
{
    char name[LUNA_DECODER_BYTES];
    size_t count = 0;
    luna_text_copy(luna_text_of(decoder ? decoder : ""), name, sizeof name);
    if (!decoder)
        s->drains = (luna_drains){.all = drain};
    else if (is_known(&s->fleet, name))
        set_drain(&s->drains, &s->fleet, name, drain);
    for (size_t i = 0; i < s->fleet.count; i++) {
        if (decoder && strcmp(s->fleet.at[i]->name, name) != 0) continue;
        s->fleet.at[i]->draining = drain;
        count++;
    }
    return count;
}

//  ---- rules ---------------------------------------------------------------------

static void rank_again(luna_scheduler *s)
{
    luna_job *job;
    for (size_t at = 0; (job = luna_id_table_next(&s->jobs, &at));)
        luna_fairness_rank(s, job);
    for (size_t i = 0; i < s->queues.count; i++) {
        const luna_queue *queue = s->queues.at[i];
        for (size_t l = 0; l < queue->lane_count; l++)
            luna_job_heap_rebuild(&queue->lanes[l]->waiting);
    }
}

void luna_scheduler_set_rules(luna_scheduler *s, const luna_rules *rules)
{
    const int64_t ageing_ms = s->rules.ageing_ms;
    s->rules = luna_scheduler_rules(rules);
    if (s->rules.ageing_ms != ageing_ms) rank_again(s);
}
