//  attempts.c - the scheduler's part that knows how attempts end

#include "broker/scheduler_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  ---- the ways out of an attempt ------------------------------------------------

static void end(luna_scheduler *s, luna_job *job, const luna_verdict *verdict)
{
    luna_scheduler_move(s, job, LUNA_PLACE_ENDING);
    luna_chain_remove(job);
    job->session = 0;
    s->calls.finish(s->calls.context, job, verdict);
}

static void give_back(luna_scheduler *s, luna_job *job, const luna_verdict *verdict)
{
    job->session = 0;
    s->calls.give_back(s->calls.context, job, verdict);
}

void luna_attempt_give_back(luna_scheduler *s, luna_job *job, const luna_verdict *verdict)
{
    luna_scheduler_move(s, job, LUNA_PLACE_WAITING);
    give_back(s, job, verdict);
}

static void defer(luna_scheduler *s, luna_job *job, int64_t wake_ms,
                  const luna_verdict *verdict)
{
    luna_scheduler_leave(s, job);
    job->wake_ms = wake_ms;
    luna_scheduler_enter(s, job, LUNA_PLACE_DEFERRED);
    give_back(s, job, verdict);
}

//  xorshift64*: jitter needs no better.
static uint64_t next_random(luna_scheduler *s)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * 0x2545f4914f6cdd1du;
}

//  backoff * 2^(times - 1), capped, and up to a quarter more.
static int64_t backoff(luna_scheduler *s, uint32_t times)
{
    int64_t wait = s->rules.backoff_ms;
    for (uint32_t i = 1; i < times && wait < s->rules.backoff_max_ms; i++) wait *= 2;
    if (wait > s->rules.backoff_max_ms) wait = s->rules.backoff_max_ms;
    return wait + (int64_t)(next_random(s) % ((uint64_t)wait / 4 + 1));
}

//  One loss may be any decoder's misfortune. After another one the job itself may be
//  what kills them.
static void lose(luna_scheduler *s, luna_job *job, const luna_verdict *why,
                 int64_t now_ms)
{
    luna_verdict verdict = *why;
    job->lost++;
    job->lost_in_row++;
    if (job->lost >= s->rules.lost_limit) {
        verdict.state = LUNA_JOB_FAILED;
        end(s, job, &verdict);
    } else if (job->lost_in_row == 1) {
        luna_attempt_give_back(s, job, &verdict);
    } else {
        defer(s, job, now_ms + backoff(s, job->lost_in_row - 1), &verdict);
    }
}

void luna_attempt_lose(luna_scheduler *s, luna_job *job, const char *detail,
                       int64_t now_ms)
{
    lose(s, job, &(luna_verdict){LUNA_JOB_PENDING, "lost", detail}, now_ms);
}

static void refuse(luna_scheduler *s, luna_job *job, const luna_verdict *why, bool retry,
                   int64_t now_ms)
{
    job->refused++;
    job->lost_in_row = 0;
    luna_verdict verdict = *why;
    if (!retry || job->refused >= s->rules.refused_limit) {
        verdict.state = LUNA_JOB_FAILED;
        end(s, job, &verdict);
        return;
    }
    defer(s, job, now_ms + backoff(s, job->refused), &verdict);
}

//  The job behind a wanted hold.
luna_job *luna_attempt_job(const luna_scheduler *s, const luna_hold *hold)
{
    return luna_id_table_find(&s->jobs, &hold->id);
}

//  Takes the attempt from the decoder that holds the job; nothing if nobody does.
void luna_attempt_release(luna_scheduler *s, const luna_job *job)
{
    luna_decoder *decoder = luna_fleet_find(&s->fleet, job->session);
    luna_hold *hold =
        decoder ? luna_decoder_hold(decoder, &job->id, job->attempts) : NULL;
    if (hold) luna_decoder_release(decoder, hold);
}

void luna_attempt_abort(luna_scheduler *s, luna_job *job, const luna_verdict *verdict)
{
    const luna_decoder *decoder = luna_fleet_find(&s->fleet, job->session);
    const luna_job_key key = {.id = job->id, .attempt = job->attempts};
    if (decoder && job->place == LUNA_PLACE_RUNNING)
        s->calls.stop(s->calls.context, decoder, &key);
    luna_attempt_release(s, job);
    end(s, job, verdict);
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

int64_t luna_scheduler_images(luna_scheduler *s, uint32_t session,
                              const luna_job_key *key, const luna_msg_image *images,
                              size_t count)
{
    luna_job *job = luna_id_table_find(&s->jobs, &key->id);
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

void luna_scheduler_stage(luna_scheduler *s, uint32_t session, const luna_job_key *key,
                          luna_text stage, int64_t now_ms)
{
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, key, &decoder);
    const luna_job *job = hold && hold->wanted ? luna_attempt_job(s, hold) : NULL;
    if (!job) return;
    if (luna_text_is(stage, "decoding") || luna_text_is(stage, "saved"))
        luna_affinity_loaded(decoder, hold, job, now_ms);
    else if (luna_text_is(stage, "loading") && hold->loading_ms == 0)
        hold->loading_ms = now_ms;
}

//  Takes the attempt that was answered off the decoder, and gives the job if it is
//  wanted. A decoder serves one job after another: what it was sent while it was busy
//  was begun when that was over.
static luna_job *answered(luna_scheduler *s, luna_decoder *decoder, luna_hold *hold,
                          bool done, int64_t now_ms)
{
    luna_job *job = hold->wanted ? luna_attempt_job(s, hold) : NULL;
    const int64_t begun_ms =
        hold->served_ms > decoder->idle_ms ? hold->served_ms : decoder->idle_ms;
    if (done && hold->served_ms)
        luna_pace_learn(&s->pace, hold->bytes, now_ms - begun_ms);
    if (done && job && decoder->queue == job->queue) decoder->loaded = true;
    decoder->idle_ms = now_ms;
    luna_decoder_release(decoder, hold);
    return job;
}

static const luna_verdict completed = {LUNA_JOB_COMPLETED, "", ""};

//  A late done: its pictures are recorded by now. When they are all there and nobody
//  works on the job, it is complete.
static void done_late(luna_scheduler *s, const luna_job_key *key)
{
    luna_job *job = luna_id_table_find(&s->jobs, &key->id);
    if (!job || job->images_done < job->images || key->attempt > job->attempts) return;
    if (luna_place_is_pending(job->place) || job->place == LUNA_PLACE_ORPHAN)
        end(s, job, &completed);
}

void luna_scheduler_done(luna_scheduler *s, uint32_t session, const luna_job_key *key,
                         int64_t now_ms)
{
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, key, &decoder);
    luna_job *job = hold ? answered(s, decoder, hold, true, now_ms) : NULL;
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

//  One decoder's "I have no such VAE", or "I do not write this format", is not the last
//  word while there are others, or may be soon.
static bool another_may_serve(const luna_scheduler *s, const luna_decoder *decoder,
                              const luna_job *job, luna_text error, int64_t now_ms)
{
    if (s->fleet.count < 2 && now_ms >= job->regroup_ms) return false;
    if (luna_text_is(error, luna_err_name(LUNA_UNSUPPORTED)))
        return !luna_decoder_writes(decoder, job->lane->formats);
    return luna_text_is(error, luna_err_name(LUNA_UNKNOWN_VAE)) &&
           !luna_decoder_serves(decoder, job->queue->vae);
}

void luna_scheduler_failed(luna_scheduler *s, uint32_t session,
                           const luna_msg_failed *failed, int64_t now_ms)
{
    const luna_job_key key = {.id = failed->id, .attempt = failed->attempt};
    luna_decoder *decoder;
    luna_hold *hold = current(s, session, &key, &decoder);
    luna_job *job = hold ? answered(s, decoder, hold, false, now_ms) : NULL;
    if (!job) return;
    char error[33], detail[1024];
    luna_text_copy(failed->error, error, sizeof error);
    luna_text_copy(failed->detail, detail, sizeof detail);
    decoder->jobs_failed++;
    job->avoid = decoder->instance;
    const luna_verdict why = {LUNA_JOB_PENDING, error, detail};
    const bool retry =
        failed->retry || another_may_serve(s, decoder, job, failed->error, now_ms);
    //  A device that failed under its decoder: that is a death, well told.
    if (retry && luna_text_is(failed->error, luna_err_name(LUNA_DEVICE)))
        lose(s, job, &why, now_ms);
    else
        refuse(s, job, &why, retry, now_ms);
}

//  ---- the broker's own steps ----------------------------------------------------

//  The job when `key` is the attempt that is being made durable.
static luna_job *starting(const luna_scheduler *s, const luna_job_key *key)
{
    luna_job *job = luna_id_table_find(&s->jobs, &key->id);
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
    //  What is there of a job's images already makes the attempt shorter than the job.
    hold->served_ms = job->images_done ? 0 : now_ms;
    hold->deadline_ms = now_ms + s->rules.lease_ms;
    return decoder->session;
}

void luna_scheduler_not_started(luna_scheduler *s, const luna_job_key *key,
                                int64_t now_ms)
{
    luna_job *job = starting(s, key);
    if (!job) return;
    luna_attempt_release(s, job);
    defer(s, job, now_ms + s->rules.backoff_ms,
          &(luna_verdict){LUNA_JOB_PENDING, "", ""});
}

void luna_scheduler_unreadable(luna_scheduler *s, const luna_id *id,
                               const luna_verdict *verdict)
{
    luna_job *job = luna_id_table_find(&s->jobs, id);
    if (!job || job->place == LUNA_PLACE_ENDING) return;
    luna_attempt_release(s, job);
    end(s, job, verdict);
}
