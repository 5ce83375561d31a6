//  sessions.c - the scheduler's part that knows decoders that come, live and go; time

#include "broker/scheduler_state.h"

#include <string.h>

static const luna_verdict nothing_wrong = {LUNA_JOB_PENDING, "", ""};

//  ---- decoders that go ----------------------------------------------------------

typedef struct parting {
    const char *why;
    bool counted;  //  its attempts count as lost
} parting;

static void part(luna_scheduler *s, luna_decoder *decoder, const parting *how,
                 int64_t now_ms)
{
    for (size_t i = 0; i < decoder->hold_count; i++) {
        const luna_hold *hold = &decoder->holds[i];
        luna_job *job = hold->wanted ? luna_attempt_job(s, hold) : NULL;
        if (!job) continue;
        if (how->counted && hold->sent)
            luna_attempt_lose(s, job, how->why, now_ms);
        else
            luna_attempt_give_back(s, job, &nothing_wrong);
    }
    decoder->hold_count = 0;
    decoder->held_bytes = 0;
    decoder->credit_jobs = 0;
    decoder->state = LUNA_DECODER_LOST;
    decoder->seen_ms = now_ms;
    s->calls.gone(s->calls.context, decoder, how->why);
}

void luna_scheduler_bye(luna_scheduler *s, uint32_t session, int64_t now_ms)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, session);
    if (!decoder) return;
    decoder->orderly = true;
    part(s, decoder, &(parting){"it said bye", false}, now_ms);
}

void luna_scheduler_disconnected(luna_scheduler *s, uint32_t session, int64_t now_ms)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, session);
    if (!decoder || decoder->state == LUNA_DECODER_LEAVING) return;
    decoder->state = LUNA_DECODER_LEAVING;
    decoder->gone_ms = now_ms + s->rules.grace_ms;
}

//  ---- hello ---------------------------------------------------------------------

//  Whether the attempt is this instance's own, or may be anybody's after a restart.
static bool can_adopt(const luna_job *job, const luna_job_key *key,
                      const luna_decoder *old)
{
    if (!job || job->attempts != key->attempt) return false;
    if (job->place == LUNA_PLACE_ORPHAN) return true;
    return old && job->place == LUNA_PLACE_RUNNING && job->session == old->session;
}

static void adopt(luna_scheduler *s, luna_decoder *decoder, const luna_job_key *key,
                  const luna_decoder *old, int64_t now_ms)
{
    luna_job *job = luna_id_table_find(&s->jobs, &key->id);
    if (decoder->hold_count == LUNA_HOLDS_MAX || !can_adopt(job, key, old)) return;
    luna_attempt_release(s, job);
    luna_decoder_take(decoder, &(luna_hold){.id = job->id,
                                            .attempt = job->attempts,
                                            .bytes = job->bytes,
                                            .wanted = true,
                                            .sent = true,
                                            .deadline_ms = now_ms + s->rules.lease_ms});
    job->session = decoder->session;
    luna_affinity_given(decoder, job);
    luna_scheduler_move(s, job, LUNA_PLACE_RUNNING);
}

//  The same process has the same VAE.
static void inherit(luna_decoder *decoder, const luna_decoder *old)
{
    memcpy(decoder->last_vae, old->last_vae, sizeof decoder->last_vae);
    decoder->queue = old->queue;
    decoder->loaded = old->loaded;
    decoder->idle_ms = old->idle_ms;
}

luna_err luna_scheduler_hello(luna_scheduler *s, const luna_msg_hello *hello,
                              int64_t now_ms, uint32_t *session)
{
    luna_decoder *old = luna_fleet_instance(&s->fleet, &hello->instance);
    luna_decoder *decoder;
    LUNA_TRY(luna_fleet_add(&s->fleet, hello, now_ms, &decoder));
    decoder->draining = luna_drains_hold(&s->drains, decoder->name);
    if (old) inherit(decoder, old);
    for (size_t i = 0; i < hello->running.count; i++)
        adopt(s, decoder, &hello->running.items[i], old, now_ms);
    if (old) {
        old->orderly = true;
        part(s, old, &(parting){"it said hello again", true}, now_ms);
        luna_fleet_remove(&s->fleet, old);
    }
    *session = decoder->session;
    return LUNA_OK;
}

void luna_scheduler_credit(luna_scheduler *s, uint32_t session,
                           const luna_msg_ready *credit)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, session);
    if (!decoder) return;
    if (decoder->state == LUNA_DECODER_GREETED) decoder->state = LUNA_DECODER_READY;
    decoder->maps_payload = credit->maps_payload;
    decoder->credit_bytes = credit->credit_bytes;
    decoder->credit_jobs =
        credit->credit_jobs < LUNA_HOLDS_MAX ? credit->credit_jobs : LUNA_HOLDS_MAX;
}

static size_t sent_count(const luna_decoder *decoder)
{
    size_t count = 0;
    for (size_t i = 0; i < decoder->hold_count; i++) count += decoder->holds[i].sent;
    return count;
}

//  It has fewer jobs than it was given: what nobody wants any more is over.
static void drop_unwanted(luna_decoder *decoder)
{
    for (size_t i = decoder->hold_count; i-- > 0;)
        if (!decoder->holds[i].wanted) luna_decoder_release(decoder, &decoder->holds[i]);
}

static void renew_all(const luna_scheduler *s, luna_decoder *decoder, int64_t now_ms)
{
    for (size_t i = 0; i < decoder->hold_count; i++)
        decoder->holds[i].deadline_ms = now_ms + s->rules.lease_ms;
}

void luna_scheduler_seen(luna_scheduler *s, uint32_t session, const luna_msg_ping *ping,
                         int64_t now_ms)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, session);
    if (!decoder) return;
    decoder->seen_ms = now_ms;
    if (!ping) return;
    if (ping->running < sent_count(decoder))
        drop_unwanted(decoder);
    else if (ping->ticks > decoder->ticks)
        //  The loop works and has every job it was sent: those behind the running
        //  one wait for it, they do not hang.
        renew_all(s, decoder, now_ms);
    decoder->ticks = ping->ticks;
}

//  ---- time ----------------------------------------------------------------------

//  The hold stays until the decoder shows that it can let go of it, so that one whose
//  loop hangs gets no further job to lose.
static void end_lease(luna_scheduler *s, luna_decoder *decoder, luna_hold *hold,
                      int64_t now_ms)
{
    hold->wanted = false;
    const luna_job_key key = {.id = hold->id, .attempt = hold->attempt};
    s->calls.stop(s->calls.context, decoder, &key);
    luna_job *job = luna_attempt_job(s, hold);
    if (job)
        luna_attempt_lose(s, job, "the decoder made no progress within the lease",
                          now_ms);
}

//  The store did not get to it: nothing was sent, so nothing is counted.
static void take_back_unsent(luna_scheduler *s, luna_decoder *decoder, luna_hold *hold)
{
    luna_job *job = luna_attempt_job(s, hold);
    luna_decoder_release(decoder, hold);
    if (job) luna_attempt_give_back(s, job, &nothing_wrong);
}

static void end_leases(luna_scheduler *s, luna_decoder *decoder, int64_t now_ms)
{
    for (size_t i = decoder->hold_count; i-- > 0;) {
        luna_hold *hold = &decoder->holds[i];
        if (!hold->wanted || now_ms < hold->deadline_ms) continue;
        if (hold->sent)
            end_lease(s, decoder, hold, now_ms);
        else
            take_back_unsent(s, decoder, hold);
    }
}

static void check_decoder(luna_scheduler *s, luna_decoder *decoder, int64_t now_ms)
{
    const int64_t silent_ms = now_ms - decoder->seen_ms;
    if (decoder->state == LUNA_DECODER_LOST) {
        if (silent_ms >= s->rules.remember_ms) luna_fleet_remove(&s->fleet, decoder);
    } else if (decoder->state == LUNA_DECODER_LEAVING && now_ms >= decoder->gone_ms) {
        part(s, decoder, &(parting){"the decoder disconnected", true}, now_ms);
    } else if (silent_ms >= s->rules.lease_ms) {
        part(s, decoder, &(parting){"the decoder fell silent", true}, now_ms);
    } else {
        end_leases(s, decoder, now_ms);
    }
}

static void fail_expired(luna_scheduler *s, int64_t now_ms)
{
    static const luna_verdict expired = {LUNA_JOB_FAILED, "timeout",
                                         "the deadline came before the job was done"};
    for (luna_job *job;
         (job = luna_job_heap_first(&s->deadlines)) && job->expires_ms <= now_ms;)
        luna_attempt_abort(s, job, &expired);
}

static void wake(luna_scheduler *s, int64_t now_ms)
{
    for (luna_job *job;
         (job = luna_job_heap_first(&s->timers)) && job->wake_ms <= now_ms;) {
        if (job->place == LUNA_PLACE_ORPHAN)
            luna_attempt_lose(s, job, "no decoder claimed it after the broker's restart",
                              now_ms);
        else
            luna_scheduler_move(s, job, LUNA_PLACE_WAITING);
    }
}

void luna_scheduler_tick(luna_scheduler *s, int64_t now_ms)
{
    fail_expired(s, now_ms);
    for (size_t i = s->fleet.count; i-- > 0;) check_decoder(s, s->fleet.at[i], now_ms);
    wake(s, now_ms);
}

static void shift_decoder(luna_decoder *decoder, int64_t asleep_ms)
{
    decoder->seen_ms += asleep_ms;
    decoder->gone_ms += asleep_ms;
    decoder->idle_ms += asleep_ms;
    for (size_t i = 0; i < decoder->hold_count; i++) {
        luna_hold *hold = &decoder->holds[i];
        hold->deadline_ms += asleep_ms;
        if (hold->loading_ms) hold->loading_ms += asleep_ms;
        if (hold->served_ms) hold->served_ms += asleep_ms;
    }
}

//  Equal shifts leave the order of the timers as it is. A job's deadline is its user's
//  and stays.
void luna_scheduler_slept(luna_scheduler *s, int64_t asleep_ms)
{
    for (size_t i = 0; i < s->fleet.count; i++) shift_decoder(s->fleet.at[i], asleep_ms);
    for (size_t i = 0; i < s->timers.count; i++) s->timers.at[i]->wake_ms += asleep_ms;
}
