//  sched_sim.h - a scheduler with decoders that take virtual time to load and serve
//
//  A decoder serves one job after another. A job's bytes say how long it takes; a VAE
//  the decoder did not have last is loaded first. Time goes in steps of 10 ms.

#ifndef TESTS_BROKER_SCHED_SIM_H
#define TESTS_BROKER_SCHED_SIM_H

#include "broker/sched_fixture.h"

enum { SIM_JOBS = 4096, SIM_DECODERS = 8, SIM_STEP_MS = 10, SIM_BYTES_A_MS = 10000 };

typedef struct sim_job {
    uint32_t client;
    int64_t accepted_ms;
    int64_t service_ms;
    int64_t load_ms;
    char vae[32];
    uint32_t begun;  //  how many began before it
    int64_t begun_ms;
    int64_t done_ms;
} sim_job;

typedef struct sim_decoder {
    uint32_t session;
    luna_job_key held[LUNA_HOLDS_MAX];  //  held[0] is served
    size_t count;
    bool loading;
    int64_t busy_until_ms;  //  0: held[0] has not begun
    char vae[32];
    uint32_t swaps;
} sim_decoder;

typedef struct sim {
    fixture f;
    sim_job jobs[SIM_JOBS + 1];  //  by number, from 1
    uint32_t added;
    uint32_t begun;
    uint32_t done;
    sim_decoder decoders[SIM_DECODERS];
    size_t decoder_count;
    int64_t started_ms;
    bool silent;  //  decoders tell no stages: with load_ms 0 plain order of rank
} sim;

static inline sim *sim_new(const luna_rules *rules)
{
    sim *s = calloc(1, sizeof *s);
    assert_non_null(s);
    open_fixture(&s->f, rules);
    s->started_ms = s->f.now_ms;
    return s;
}

static inline void sim_free(sim *s)
{
    luna_scheduler_free(&s->f.scheduler);
    free(s);
}

static inline int64_t sim_time_ms(const sim *s)
{
    return s->f.now_ms - s->started_ms;
}

static inline luna_entry sim_entry(const sim *s, uint32_t number)
{
    const sim_job *each = &s->jobs[number];
    luna_entry entry = entry_of(number);
    entry.client = id_of(each->client);
    entry.accepted_ms = 1000000 + each->accepted_ms;
    entry.bytes = (uint64_t)(each->service_ms * SIM_BYTES_A_MS);
    entry.vae = luna_text_of(each->vae);
    return entry;
}

//  A job accepted now; its number. Priority and the like can be set in `entry`.
static inline uint32_t sim_describe(sim *s, uint32_t client, const char *vae,
                                    int64_t service_ms, luna_entry *entry)
{
    assert_true(s->added < SIM_JOBS);
    sim_job *each = &s->jobs[++s->added];
    *each = (sim_job){.client = client,
                      .accepted_ms = sim_time_ms(s),
                      .service_ms = service_ms,
                      .load_ms = 2000};
    snprintf(each->vae, sizeof each->vae, "%s", vae);
    *entry = sim_entry(s, s->added);
    return s->added;
}

static inline uint32_t sim_add(sim *s, uint32_t client, const char *vae,
                               int64_t service_ms)
{
    luna_entry entry;
    const uint32_t number = sim_describe(s, client, vae, service_ms, &entry);
    add_entry(&s->f, &entry);
    return number;
}

//  A decoder that lists nothing and so serves any VAE, and writes these formats.
static inline sim_decoder *sim_writer_add(sim *s, uint64_t jobs, const char *formats)
{
    assert_true(s->decoder_count < SIM_DECODERS);
    sim_decoder *each = &s->decoders[s->decoder_count++];
    each->session = hello_formats(&s->f, (uint32_t)s->decoder_count, NULL, formats, NULL);
    credit(&s->f, each->session, jobs, UINT64_MAX / 2);
    return each;
}

static inline sim_decoder *sim_decoder_add(sim *s, uint64_t jobs)
{
    return sim_writer_add(s, jobs, NULL);
}

static inline sim_decoder *sim_decoder_of(sim *s, uint32_t session)
{
    for (size_t i = 0; i < s->decoder_count; i++)
        if (s->decoders[i].session == session) return &s->decoders[i];
    fail_msg("no decoder of session %u", session);
    return NULL;
}

//  Carries out what the scheduler asked for.
static inline void sim_carry_out(sim *s)
{
    for (size_t i = 0; i < s->f.count; i++) {
        const call *each = &s->f.calls[i];
        const luna_job_key key = {.id = each->id, .attempt = each->attempt};
        if (each->kind == 'f') luna_scheduler_ended(s->f.scheduler, &each->id);
        if (each->kind != 's') continue;
        assert_int_equal(luna_scheduler_started(s->f.scheduler, &key, 1, s->f.now_ms),
                         each->session);
        sim_decoder *decoder = sim_decoder_of(s, each->session);
        decoder->held[decoder->count++] = key;
    }
    s->f.count = 0;
}

static inline void sim_stage(sim *s, const sim_decoder *each, const char *stage)
{
    if (s->silent) return;
    luna_scheduler_stage(s->f.scheduler, each->session, &each->held[0],
                         luna_text_of(stage), s->f.now_ms);
}

static inline void sim_begin(sim *s, sim_decoder *each)
{
    sim_job *begun = &s->jobs[number_of(&each->held[0].id)];
    begun->begun = s->begun++;
    begun->begun_ms = sim_time_ms(s);
    sim_stage(s, each, "loading");
    each->loading = strcmp(each->vae, begun->vae) != 0;
    each->swaps += each->loading && each->vae[0];
    snprintf(each->vae, sizeof each->vae, "%s", begun->vae);
    each->busy_until_ms = s->f.now_ms;
    if (each->loading)
        each->busy_until_ms += begun->load_ms;
    else
        sim_stage(s, each, "decoding");
    if (!each->loading) each->busy_until_ms += begun->service_ms;
}

static inline void sim_end(sim *s, sim_decoder *each)
{
    const luna_job_key key = each->held[0];
    sim_job *ended = &s->jobs[number_of(&key.id)];
    ended->done_ms = sim_time_ms(s);
    s->done++;
    save(&s->f, each->session, &key, 0);
    luna_scheduler_done(s->f.scheduler, each->session, &key, s->f.now_ms);
    each->count--;
    memmove(each->held, each->held + 1, each->count * sizeof each->held[0]);
    each->busy_until_ms = 0;
}

static inline void sim_work(sim *s, sim_decoder *each)
{
    luna_scheduler_seen(
        s->f.scheduler, each->session,
        &(luna_msg_ping){.running = LUNA_HOLDS_MAX, .ticks = (uint64_t)s->f.now_ms},
        s->f.now_ms);
    if (each->busy_until_ms && s->f.now_ms >= each->busy_until_ms) {
        if (each->loading) {
            each->loading = false;
            each->busy_until_ms += s->jobs[number_of(&each->held[0].id)].service_ms;
            sim_stage(s, each, "decoding");
        } else {
            sim_end(s, each);
        }
    }
    if (each->count > 0 && !each->busy_until_ms) sim_begin(s, each);
}

static inline void sim_step(sim *s)
{
    for (size_t i = 0; i < s->decoder_count; i++) sim_work(s, &s->decoders[i]);
    sim_carry_out(s);
    if (sim_time_ms(s) % 100 == 0) luna_scheduler_tick(s->f.scheduler, s->f.now_ms);
    luna_scheduler_dispatch(s->f.scheduler, s->f.now_ms);
    sim_carry_out(s);
    s->f.now_ms += SIM_STEP_MS;
}

static inline void sim_run_ms(sim *s, int64_t ms)
{
    for (int64_t i = 0; i < ms; i += SIM_STEP_MS) sim_step(s);
}

static inline void sim_run_all(sim *s)
{
    const int64_t patience_ms = s->f.now_ms + 100 * INT64_C(3600000);
    while (s->done < s->added) {
        assert_true(s->f.now_ms < patience_ms);
        sim_step(s);
    }
}

static inline uint32_t sim_swaps(const sim *s)
{
    uint32_t swaps = 0;
    for (size_t i = 0; i < s->decoder_count; i++) swaps += s->decoders[i].swaps;
    return swaps;
}

#endif
