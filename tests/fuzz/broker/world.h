//  world.h - a scheduler, a plain model of what was asked of it, and what must hold
//
//  The scheduler's calls are checked as they come and noted in the model; check_all()
//  compares the two and adds up what the scheduler counts.

#ifndef LUNA_TESTS_FUZZ_WORLD_H
#define LUNA_TESTS_FUZZ_WORLD_H

#include "broker/clients.h"
#include "broker/scheduler.h"
#include "fuzz/fuzz.h"

enum {
    JOBS = 32,
    NAMES = 6,
    VAES = 4,
    FORMATS = 4,
    CLIENTS = 3,
    EVENTS = 120,
    ANSWERS = 512
};

typedef enum life { UNKNOWN, STORING, ACTIVE, ENDING, ENDED } life;

typedef struct model_job {
    life life;
    uint64_t attempts;  //  started under this id, ever
    bool held;          //  an attempt was started and not ended, as the calls say
} model_job;

//  What the store has been asked and not answered yet, in its order.
typedef struct request {
    char kind;  //  'p'ut, 's'tart, 'f'inish
    uint32_t number;
    uint64_t attempt;
} request;

typedef struct world {
    fuzz_bytes from;
    luna_scheduler *scheduler;
    luna_rules rules;
    int64_t now_ms;
    int64_t accepted_ms;
    model_job jobs[JOBS];
    request requests[ANSWERS];
    size_t first, last;  //  of the requests
    bool good;           //  the store and the decoder do as they should
} world;

static luna_id id_of(uint64_t number)
{
    return (luna_id){.byte = {1, [15] = (uint8_t)number}};
}

static model_job *model_of(world *w, const luna_id *id)
{
    CHECK(id->byte[15] < JOBS);
    return &w->jobs[id->byte[15]];
}

//  ---- the scheduler's calls -------------------------------------------------------

static void ask_store(world *w, char kind, const luna_id *id, uint64_t attempt)
{
    CHECK(w->last - w->first < ANSWERS);
    w->requests[w->last++ % ANSWERS] =
        (request){.kind = kind, .number = id->byte[15], .attempt = attempt};
}

//  The decoder holds the job already.
static void check_credit(const luna_decoder *decoder)
{
    CHECK(decoder->state == LUNA_DECODER_READY && !decoder->draining);
    CHECK(decoder->hold_count <= decoder->credit_jobs);
    CHECK(decoder->hold_count <= LUNA_HOLDS_MAX);
    CHECK(decoder->hold_count == 1 || decoder->held_bytes <= decoder->credit_bytes);
}

static void on_start(void *context, const luna_job *job, const luna_decoder *decoder)
{
    world *w = context;
    model_job *model = model_of(w, &job->id);
    CHECK(job->place == LUNA_PLACE_STARTING && job->session == decoder->session);
    CHECK(!luna_scheduler_paused(w->scheduler));
    CHECK(model->life == ACTIVE && !model->held);
    CHECK(job->attempts > model->attempts);
    model->attempts = job->attempts;
    model->held = true;
    check_credit(decoder);
    ask_store(w, 's', &job->id, job->attempts);
}

static void on_finish(void *context, const luna_job *job, const luna_verdict *verdict)
{
    world *w = context;
    model_job *model = model_of(w, &job->id);
    CHECK(model->life == ACTIVE && job->place == LUNA_PLACE_ENDING);
    CHECK(verdict->state == LUNA_JOB_COMPLETED || verdict->state == LUNA_JOB_FAILED ||
          verdict->state == LUNA_JOB_CANCELLED);
    const bool completed = verdict->state == LUNA_JOB_COMPLETED;
    CHECK(completed == (verdict->error[0] == '\0'));
    if (completed) CHECK(job->images_done >= job->images);
    model->life = ENDING;
    model->held = false;
    ask_store(w, 'f', &job->id, 0);
}

static void on_give_back(void *context, const luna_job *job, const luna_verdict *verdict)
{
    model_job *model = model_of(context, &job->id);
    CHECK(model->life == ACTIVE && verdict->state == LUNA_JOB_PENDING);
    CHECK(luna_place_is_pending(job->place) && job->session == 0);
    model->held = false;
}

static void on_stop(void *context, const luna_decoder *decoder, const luna_job_key *key)
{
    (void)context;
    CHECK(decoder->state != LUNA_DECODER_LOST);
    CHECK(key->attempt >= 1 && key->id.byte[15] < JOBS);
}

static void on_gone(void *context, const luna_decoder *decoder, const char *why)
{
    (void)context;
    CHECK(decoder->state == LUNA_DECODER_LOST && decoder->hold_count == 0);
    CHECK(why[0] != '\0');
}

//  ---- what must hold after every event --------------------------------------------

//  How many decoders hold each job and are wanted to.
typedef struct holders {
    size_t of[JOBS];
} holders;

FUZZ_QUIET static void check_decoder(const luna_decoder *decoder, holders *all)
{
    uint64_t bytes = 0;
    CHECK(decoder->hold_count <= LUNA_HOLDS_MAX);
    CHECK(decoder->credit_jobs <= LUNA_HOLDS_MAX);
    for (size_t i = 0; i < decoder->hold_count; i++) {
        const luna_hold *hold = &decoder->holds[i];
        bytes += hold->bytes;
        all->of[hold->id.byte[15]] += hold->wanted;
    }
    CHECK(bytes == decoder->held_bytes);
    if (decoder->state == LUNA_DECODER_LOST) CHECK(decoder->hold_count == 0);
}

FUZZ_QUIET static void check_held(const world *w, const luna_job *job)
{
    luna_decoder *holder =
        luna_fleet_find(luna_scheduler_fleet(w->scheduler), job->session);
    CHECK(holder);
    const luna_hold *hold = luna_decoder_hold(holder, &job->id, job->attempts);
    CHECK(hold && hold->wanted);
    CHECK(hold->sent == (job->place == LUNA_PLACE_RUNNING));
    CHECK(hold->bytes == job->bytes);
}

FUZZ_QUIET static void check_job(const world *w, const luna_job *job, const holders *all)
{
    const model_job *model = &w->jobs[job->id.byte[15]];
    const bool held =
        job->place == LUNA_PLACE_STARTING || job->place == LUNA_PLACE_RUNNING;
    const bool ending = job->place == LUNA_PLACE_ENDING;
    CHECK((job->place == LUNA_PLACE_STORING) == (model->life == STORING));
    CHECK(ending == (model->life == ENDING));
    CHECK(all->of[job->id.byte[15]] == held && model->held == held);
    CHECK(job->priority <= LUNA_PRIORITY_MAX);
    //  An old row does not say how the images spread over the inputs.
    if (job->batches[0]) CHECK(job->images_done <= job->images);
    CHECK(ending || job->lost < w->rules.lost_limit);
    CHECK(ending || job->refused < w->rules.refused_limit);
    if (held)
        check_held(w, job);
    else
        CHECK(job->session == 0);
}

typedef struct sums {
    uint64_t jobs, pending, storing, bytes;
    uint64_t backlog[LUNA_PRIORITY_MAX + 1];
    luna_usage clients[CLIENTS];
    int64_t oldest_ms;
} sums;

FUZZ_QUIET static void add_up(const luna_job *job, sums *all)
{
    const bool pending = luna_place_is_pending(job->place);
    luna_usage *usage = &all->clients[job->client->id.byte[0]];
    all->jobs++;
    all->pending += pending;
    all->storing += job->place == LUNA_PLACE_STORING;
    all->bytes += job->bytes;
    usage->jobs++;
    usage->bytes += job->bytes;
    for (uint32_t i = 0; i <= job->priority; i++) all->backlog[i] += pending;
    if (pending && (!all->oldest_ms || job->accepted_ms < all->oldest_ms))
        all->oldest_ms = job->accepted_ms;
}

FUZZ_QUIET static void check_sums(const world *w, const sums *all)
{
    const luna_scheduler *s = w->scheduler;
    const luna_depth depth = luna_scheduler_depth(s);
    CHECK(depth.pending == all->pending && depth.storing == all->storing);
    CHECK(depth.in_progress == all->jobs - all->pending - all->storing);
    CHECK(depth.bytes == all->bytes);
    CHECK(luna_scheduler_oldest(s) == all->oldest_ms);
    for (uint64_t i = 0; i <= LUNA_PRIORITY_MAX; i++)
        CHECK(luna_scheduler_backlog(s, i) == all->backlog[i]);
    for (uint8_t i = 0; i < CLIENTS; i++) {
        const luna_id id = {.byte = {i}};
        const luna_usage usage = luna_scheduler_client(s, &id);
        CHECK(usage.jobs == all->clients[i].jobs && usage.bytes == all->clients[i].bytes);
    }
}

FUZZ_QUIET static void check_all(const world *w)
{
    const luna_scheduler *s = w->scheduler;
    const luna_fleet *fleet = luna_scheduler_fleet(s);
    const luna_job *job;
    sums all = {0};
    holders held = {0};
    for (size_t i = 0; i < fleet->count; i++) check_decoder(fleet->at[i], &held);
    for (size_t at = 0; (job = luna_scheduler_next(s, &at));) {
        check_job(w, job, &held);
        add_up(job, &all);
    }
    check_sums(w, &all);
    for (uint32_t i = 0; i < JOBS; i++) {
        const luna_id id = id_of(i);
        const bool there = w->jobs[i].life != UNKNOWN && w->jobs[i].life != ENDED;
        CHECK((luna_scheduler_find(s, &id) != NULL) == there);
    }
}

#endif
