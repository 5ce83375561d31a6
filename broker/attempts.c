//  attempts.c - the scheduler's second half: what becomes of an attempt

#include "broker/scheduler_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const luna_verdict nothing_wrong = {LUNA_JOB_PENDING, "", ""};

//  ---- the ways out of an attempt ------------------------------------------------

static void end(luna_scheduler *s, luna_job *job, const luna_verdict *verdict)
{
    luna_scheduler_move(s, job, LUNA_PLACE_ENDING);
    job->session = 0;
    s->calls.finish(s->calls.context, job, verdict);
}

static void give_back(luna_scheduler *s, luna_job *job, luna_job_place place,
                      const luna_verdict *verdict)
{
    luna_scheduler_move(s, job, place);
    job->session = 0;
    s->calls.give_back(s->calls.context, job, verdict);
}

static void lose(luna_scheduler *s, luna_job *job, const char *detail)
{
    job->lost++;
    const bool over = job->lost >= s->rules.lost_limit;
    const luna_verdict verdict = {over ? LUNA_JOB_FAILED : LUNA_JOB_PENDING, "lost",
                                  detail};
    if (over)
        end(s, job, &verdict);
    else
        give_back(s, job, LUNA_PLACE_WAITING, &verdict);
}

//  xorshift64*: jitter needs no better.
static uint64_t next_random(luna_scheduler *s)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * 0x2545f4914f6cdd1du;
}

//  backoff * 2^(refused - 1), capped, and up to a quarter more.
static int64_t backoff(luna_scheduler *s, uint32_t refused)
{
    int64_t wait = s->rules.backoff_ms;
    for (uint32_t i = 1; i < refused && wait < s->rules.backoff_max_ms; i++) wait *= 2;
    if (wait > s->rules.backoff_max_ms) wait = s->rules.backoff_max_ms;
    return wait + (int64_t)(next_random(s) % ((uint64_t)wait / 4 + 1));
}

static void refuse(luna_scheduler *s, luna_job *job, const luna_verdict *why, bool retry,
                   int64_t now_ms)
{
    job->refused++;
    luna_verdict verdict = *why;
    if (!retry || job->refused >= s->rules.refused_limit) {
        verdict.state = LUNA_JOB_FAILED;
        end(s, job, &verdict);
        return;
    }
    job->wake_ms = now_ms + backoff(s, job->refused);
    give_back(s, job, LUNA_PLACE_DEFERRED, &verdict);
}

//  The job behind a wanted hold.
static luna_job *job_of(const luna_scheduler *s, const luna_hold *hold)
{
    return luna_job_table_find(&s->jobs, &hold->id);
}

//  Takes the attempt from the decoder that holds the job; nothing if nobody does.
static void release(luna_scheduler *s, const luna_job *job)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, job->session);
    luna_hold *hold =
        decoder ? luna_decoder_hold(decoder, &job->id, job->attempts) : NULL;
    if (hold) luna_decoder_release(decoder, hold);
}

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
        luna_job *job = hold->wanted ? job_of(s, hold) : NULL;
        if (!job) continue;
        if (how->counted && hold->sent)
            lose(s, job, how->why);
        else
            give_back(s, job, LUNA_PLACE_WAITING, &nothing_wrong);
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
    if (decoder) part(s, decoder, &(parting){"it said bye", false}, now_ms);
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
    luna_job *job = luna_job_table_find(&s->jobs, &key->id);
    if (decoder->hold_count == LUNA_HOLDS_MAX || !can_adopt(job, key, old)) return;
    release(s, job);
    luna_decoder_take(decoder, &(luna_hold){.id = job->id,
                                            .attempt = job->attempts,
                                            .bytes = job->bytes,
                                            .wanted = true,
                                            .sent = true,
                                            .deadline_ms = now_ms + s->rules.lease_ms});
    job->session = decoder->session;
    luna_scheduler_move(s, job, LUNA_PLACE_RUNNING);
}

luna_err luna_scheduler_hello(luna_scheduler *s, const luna_msg_hello *hello,
                              int64_t now_ms, uint32_t *session)
{
    luna_decoder *old = luna_fleet_instance(&s->fleet, &hello->instance);
    luna_decoder *decoder;
    LUNA_TRY(luna_fleet_add(&s->fleet, hello, now_ms, &decoder));
    for (size_t i = 0; i < hello->running.count; i++)
        adopt(s, decoder, &hello->running.items[i], old, now_ms);
    if (old) {
        part(s, old, &(parting){"it said hello again without this job", true}, now_ms);
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

//  ---- what decoders report ------------------------------------------------------

//  The hold of an attempt that is still wanted from this session.
static luna_hold *current(luna_scheduler *s, uint32_t session, const luna_job_key *key,
                          luna_decoder **decoder)
{
    *decoder = luna_fleet_find(&s->fleet, session);
    if (!*decoder || key->attempt > UINT32_MAX) return NULL;
    luna_hold *hold = luna_decoder_hold(*decoder, &key->id, (uint32_t)key->attempt);
    return hold && hold->sent ? hold : NULL;
}

static bool mark_one(luna_job *job, uint64_t input, uint64_t index)
{
    if (input >= LUNA_MAX_INPUTS || index >= job->images) return false;
    const size_t bit = (size_t)(input * job->images + index);
    const uint8_t mask = (uint8_t)(1u << (bit % 8));
    if (job->saved[bit / 8] & mask) return false;
    job->saved[bit / 8] |= mask;
    job->images_done++;
    return true;
}

uint32_t luna_job_mark_saved(luna_job *job, const luna_msg_image *images, size_t count)
{
    uint32_t fresh = 0;
    if (count > 0 && !job->saved)
        job->saved = calloc((size_t)job->images * LUNA_MAX_INPUTS / 8 + 1, 1);
    for (size_t i = 0; job->saved && i < count; i++)
        fresh += mark_one(job, images[i].input, images[i].index);
    return fresh;
}

bool luna_job_image_saved(const luna_job *job, uint64_t input, uint64_t index)
{
    if (!job->saved || input >= LUNA_MAX_INPUTS || index >= job->images) return false;
    const size_t bit = (size_t)(input * job->images + index);
    return job->saved[bit / 8] >> (bit % 8) & 1;
}

int64_t luna_scheduler_images(luna_scheduler *s, uint32_t session,
                              const luna_job_key *key, const luna_msg_image *images,
                              size_t count)
{
    luna_job *job = luna_job_table_find(&s->jobs, &key->id);
    if (!job || job->place == LUNA_PLACE_ENDING) return -1;
    if (key->attempt < 1 || key->attempt > job->attempts) return -1;
    const uint32_t fresh = luna_job_mark_saved(job, images, count);
    luna_decoder *decoder = luna_fleet_find(&s->fleet, session);
    if (decoder) decoder->images_done += fresh;
    return fresh;
}

bool luna_scheduler_progress(luna_scheduler *s, uint32_t session, const luna_job_key *key,
                             int64_t now_ms)
{
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, key, &decoder);
    if (!hold) return false;
    hold->deadline_ms = now_ms + s->rules.lease_ms;
    return hold->wanted;
}

static const luna_verdict completed = {LUNA_JOB_COMPLETED, "", ""};

//  A late done: its pictures are recorded by now. When they are all there and nobody
//  works on the job, it is complete.
static void done_late(luna_scheduler *s, const luna_job_key *key)
{
    luna_job *job = luna_job_table_find(&s->jobs, &key->id);
    if (!job || job->images_done < job->images || key->attempt > job->attempts) return;
    if (luna_place_is_pending(job->place) || job->place == LUNA_PLACE_ORPHAN)
        end(s, job, &completed);
}

void luna_scheduler_done(luna_scheduler *s, uint32_t session, const luna_job_key *key,
                         int64_t now_ms)
{
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, key, &decoder);
    luna_job *job = hold && hold->wanted ? job_of(s, hold) : NULL;
    if (hold) luna_decoder_release(decoder, hold);
    if (!job) {
        done_late(s, key);
        return;
    }
    if (job->images_done >= job->images) {
        decoder->jobs_done++;
        end(s, job, &completed);
        return;
    }
    char detail[160];
    snprintf(detail, sizeof detail, "the decoder said done with %u of %u images saved",
             job->images_done, job->images);
    decoder->jobs_failed++;
    job->avoid = decoder->instance;
    refuse(s, job, &(luna_verdict){LUNA_JOB_PENDING, "protocol", detail}, true, now_ms);
}

//  One decoder's "I have no such VAE" is not the last word while there are others.
static bool another_may_serve(const luna_scheduler *s, const luna_decoder *decoder,
                              const luna_job *job, luna_text error)
{
    return luna_text_is(error, "unknown_vae") && s->fleet.count > 1 &&
           !luna_decoder_serves(decoder, job->queue->vae);
}

void luna_scheduler_failed(luna_scheduler *s, uint32_t session,
                           const luna_msg_failed *failed, int64_t now_ms)
{
    const luna_job_key key = {.id = failed->id, .attempt = failed->attempt};
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, &key, &decoder);
    luna_job *job = hold && hold->wanted ? job_of(s, hold) : NULL;
    if (hold) luna_decoder_release(decoder, hold);
    if (!job) return;
    char error[33], detail[1024];
    luna_text_copy(failed->error, error, sizeof error);
    luna_text_copy(failed->detail, detail, sizeof detail);
    decoder->jobs_failed++;
    job->avoid = decoder->instance;
    const bool retry = failed->retry || another_may_serve(s, decoder, job, failed->error);
    refuse(s, job, &(luna_verdict){LUNA_JOB_PENDING, error, detail}, retry, now_ms);
}

//  ---- the broker's own steps ----------------------------------------------------

luna_err luna_scheduler_cancel(luna_scheduler *s, const luna_id *id)
{
    luna_job *job = luna_job_table_find(&s->jobs, id);
    if (!job || job->place == LUNA_PLACE_STORING)
        return luna_error(LUNA_NOT_FOUND, "no active job has this id");
    if (job->place == LUNA_PLACE_ENDING)
        return luna_error(LUNA_EXISTS, "the job has ended already");
    const luna_decoder *decoder = luna_fleet_find(&s->fleet, job->session);
    const luna_job_key key = {.id = job->id, .attempt = job->attempts};
    if (decoder && job->place == LUNA_PLACE_RUNNING)
        s->calls.stop(s->calls.context, decoder, &key);
    release(s, job);
    end(s, job, &(luna_verdict){LUNA_JOB_CANCELLED, "cancelled", "cancelled on request"});
    return LUNA_OK;
}

//  The job when `key` is the attempt that is being made durable.
static luna_job *starting(const luna_scheduler *s, const luna_job_key *key)
{
    luna_job *job = luna_job_table_find(&s->jobs, &key->id);
    const bool same = job && job->place == LUNA_PLACE_STARTING;
    return same && job->attempts == key->attempt ? job : NULL;
}

uint32_t luna_scheduler_started(luna_scheduler *s, const luna_job_key *key,
                                int64_t started_ms, int64_t now_ms)
{
    luna_job *job = starting(s, key);
    if (!job) return 0;
    luna_decoder *decoder = luna_fleet_find(&s->fleet, job->session);
    //  What was not sent is given back uncounted when the decoder is given up.
    if (decoder->state == LUNA_DECODER_LEAVING) return 0;
    luna_hold *hold = luna_decoder_hold(decoder, &job->id, job->attempts);
    luna_scheduler_move(s, job, LUNA_PLACE_RUNNING);
    job->started_ms = started_ms;
    hold->sent = true;
    hold->deadline_ms = now_ms + s->rules.lease_ms;
    return decoder->session;
}

void luna_scheduler_not_started(luna_scheduler *s, const luna_job_key *key,
                                int64_t now_ms)
{
    luna_job *job = starting(s, key);
    if (!job) return;
    release(s, job);
    job->wake_ms = now_ms + s->rules.backoff_ms;
    job->session = 0;
    luna_scheduler_move(s, job, LUNA_PLACE_DEFERRED);
}

void luna_scheduler_unreadable(luna_scheduler *s, const luna_id *id,
                               const luna_verdict *verdict)
{
    luna_job *job = luna_job_table_find(&s->jobs, id);
    if (!job || job->place == LUNA_PLACE_ENDING) return;
    release(s, job);
    end(s, job, verdict);
}

//  ---- time ----------------------------------------------------------------------

//  The hold stays until the decoder shows that it can let go of it, so that one whose
//  loop hangs gets no further job to lose.
static void end_lease(luna_scheduler *s, luna_decoder *decoder, luna_hold *hold)
{
    hold->wanted = false;
    const luna_job_key key = {.id = hold->id, .attempt = hold->attempt};
    s->calls.stop(s->calls.context, decoder, &key);
    luna_job *job = job_of(s, hold);
    if (job) lose(s, job, "the decoder made no progress within the lease");
}

//  The store did not get to it: nothing was sent, so nothing is counted.
static void take_back_unsent(luna_scheduler *s, luna_decoder *decoder, luna_hold *hold)
{
    luna_job *job = job_of(s, hold);
    luna_decoder_release(decoder, hold);
    if (job) give_back(s, job, LUNA_PLACE_WAITING, &nothing_wrong);
}

static void end_leases(luna_scheduler *s, luna_decoder *decoder, int64_t now_ms)
{
    for (size_t i = decoder->hold_count; i-- > 0;) {
        luna_hold *hold = &decoder->holds[i];
        if (!hold->wanted || now_ms < hold->deadline_ms) continue;
        if (hold->sent)
            end_lease(s, decoder, hold);
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

void luna_scheduler_tick(luna_scheduler *s, int64_t now_ms)
{
    for (size_t i = s->fleet.count; i-- > 0;) check_decoder(s, s->fleet.at[i], now_ms);
    for (luna_job *job;
         (job = luna_job_heap_first(&s->timers)) && job->wake_ms <= now_ms;) {
        if (job->place == LUNA_PLACE_ORPHAN)
            lose(s, job, "no decoder claimed it after the broker's restart");
        else
            luna_scheduler_move(s, job, LUNA_PLACE_WAITING);
    }
}
