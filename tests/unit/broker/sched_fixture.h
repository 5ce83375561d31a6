//  sched_fixture.h - a scheduler with a virtual clock whose calls are written down

#ifndef TESTS_BROKER_SCHED_FIXTURE_H
#define TESTS_BROKER_SCHED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
//  cmocka wants the four before it
#include "broker/scheduler.h"

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct call {
    char kind;  //  's'tart, 'f'inish, 'g'ive back, s't'op, g'o'ne
    luna_id id;
    uint32_t attempt;
    uint32_t session;
    luna_job_state state;
    char error[33];
} call;

typedef struct fixture {
    luna_scheduler *scheduler;
    int64_t now_ms;
    call calls[4096];
    size_t count;
    size_t started;  //  calls before this one have been answered by run()
} fixture;

static inline void note(fixture *f, const call *what)
{
    assert_true(f->count < sizeof f->calls / sizeof f->calls[0]);
    f->calls[f->count++] = *what;
}

static inline void on_start(void *context, const luna_job *job,
                            const luna_decoder *decoder)
{
    assert_int_equal(job->place, LUNA_PLACE_STARTING);
    note(context, &(call){.kind = 's',
                          .id = job->id,
                          .attempt = job->attempts,
                          .session = decoder->session});
}

static inline void on_verdict(void *context, char kind, const luna_job *job,
                              const luna_verdict *verdict)
{
    call what = {
        .kind = kind, .id = job->id, .attempt = job->attempts, .state = verdict->state};
    snprintf(what.error, sizeof what.error, "%s", verdict->error);
    note(context, &what);
}

static inline void on_finish(void *context, const luna_job *job,
                             const luna_verdict *verdict)
{
    on_verdict(context, 'f', job, verdict);
}

static inline void on_give_back(void *context, const luna_job *job,
                                const luna_verdict *verdict)
{
    on_verdict(context, 'g', job, verdict);
}

static inline void on_stop(void *context, const luna_decoder *decoder,
                           const luna_job_key *key)
{
    note(context, &(call){.kind = 't',
                          .id = key->id,
                          .attempt = (uint32_t)key->attempt,
                          .session = decoder->session});
}

static inline void on_gone(void *context, const luna_decoder *decoder, const char *why)
{
    assert_true(why[0] != '\0');
    note(context, &(call){.kind = 'o', .session = decoder->session});
}

static inline luna_rules test_rules(void)
{
    return (luna_rules){.lease_ms = 10000,
                        .adopt_ms = 5000,
                        .grace_ms = 200,
                        .remember_ms = 60000,
                        .load_ms = 2000,
                        .backoff_ms = 1000,
                        .backoff_max_ms = 4000,
                        .lost_limit = 5,
                        .refused_limit = 3,
                        .seed = 42};
}

static inline void open_fixture(fixture *f, const luna_rules *rules)
{
    memset(f, 0, sizeof *f);
    f->now_ms = 1000000;
    const luna_calls calls = {.context = f,
                              .start = on_start,
                              .finish = on_finish,
                              .give_back = on_give_back,
                              .stop = on_stop,
                              .gone = on_gone};
    assert_int_equal(luna_scheduler_new(rules, &calls, &f->scheduler), LUNA_OK);
}

static inline int setup(void **state)
{
    fixture *f = malloc(sizeof *f);
    assert_non_null(f);
    const luna_rules rules = test_rules();
    open_fixture(f, &rules);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    fixture *f = *state;
    luna_scheduler_free(&f->scheduler);
    assert_null(f->scheduler);
    free(f);
    return 0;
}

static inline luna_id id_of(uint32_t number)
{
    luna_id id = {.byte = {1}};
    for (int i = 0; i < 4; i++) id.byte[12 + i] = (uint8_t)(number >> (24 - 8 * i));
    return id;
}

static inline uint32_t number_of(const luna_id *id)
{
    uint32_t number = 0;
    for (int i = 0; i < 4; i++) number = number << 8 | id->byte[12 + i];
    return number;
}

//  A waiting job of one image and 100 bytes for the VAE "v", unless changed.
static inline luna_entry entry_of(uint32_t number)
{
    return (luna_entry){.id = id_of(number),
                        .priority = 5,
                        .accepted_ms = 1000 + number,
                        .bytes = 100,
                        .images = 1,
                        .vae = luna_text_of("v"),
                        .place = LUNA_PLACE_WAITING};
}

static inline void add_entry(fixture *f, const luna_entry *entry)
{
    assert_int_equal(luna_scheduler_add(f->scheduler, entry, f->now_ms), LUNA_OK);
}

static inline void add(fixture *f, uint32_t number)
{
    const luna_entry entry = entry_of(number);
    add_entry(f, &entry);
}

static inline const luna_job *job(const fixture *f, uint32_t number)
{
    const luna_id id = id_of(number);
    return luna_scheduler_find(f->scheduler, &id);
}

//  The hello of instance `number`, serving the VAE `vae` (NULL: lists none) and writing
//  these formats (NULL: does not say).
static inline uint32_t hello_formats(fixture *f, uint32_t number, const char *vae,
                                     const char *formats, const luna_job_key *running)
{
    char name[32];
    snprintf(name, sizeof name, "dec%u", number);
    const luna_msg_vae vaes[1] = {{.name = luna_text_of(vae)}};
    luna_msg_hello message = {
        .role = luna_text_of("decoder"),
        .name = luna_text_of(name),
        .instance = id_of(900000 + number),
    };
    message.formats = luna_text_of(formats);
    message.vaes.items = vaes;
    message.vaes.count = vae ? 1 : 0;
    message.running.items = running;
    message.running.count = running ? 1 : 0;
    uint32_t session = 0;
    assert_int_equal(luna_scheduler_hello(f->scheduler, &message, f->now_ms, &session),
                     LUNA_OK);
    return session;
}

static inline uint32_t hello(fixture *f, uint32_t number, const char *vae,
                             const luna_job_key *running)
{
    return hello_formats(f, number, vae, NULL, running);
}

static inline void credit(fixture *f, uint32_t session, uint64_t jobs, uint64_t bytes)
{
    luna_scheduler_credit(f->scheduler, session,
                          &(luna_msg_ready){.credit_jobs = jobs, .credit_bytes = bytes});
}

static inline uint32_t decoder(fixture *f, uint32_t number, uint64_t jobs)
{
    const uint32_t session = hello(f, number, "v", NULL);
    credit(f, session, jobs, 1000000);
    return session;
}

//  Dispatches and makes what was started durable, as the broker does.
static inline void run(fixture *f)
{
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    for (; f->started < f->count; f->started++) {
        const call *each = &f->calls[f->started];
        if (each->kind != 's') continue;
        const luna_job_key key = {.id = each->id, .attempt = each->attempt};
        luna_scheduler_started(f->scheduler, &key, 77, f->now_ms);
    }
}

static inline void tick(fixture *f, int64_t later_ms)
{
    f->now_ms += later_ms;
    luna_scheduler_tick(f->scheduler, f->now_ms);
}

static inline luna_job_key key_of(uint32_t number, uint32_t attempt)
{
    return (luna_job_key){.id = id_of(number), .attempt = attempt};
}

static inline int64_t save(fixture *f, uint32_t session, const luna_job_key *key,
                           uint64_t index)
{
    const luna_msg_image image = {.index = index};
    return luna_scheduler_images(f->scheduler, session, key, &image, 1);
}

//  Reports image 0 and done.
static inline void done(fixture *f, uint32_t session, uint32_t number, uint32_t attempt)
{
    const luna_job_key key = key_of(number, attempt);
    save(f, session, &key, 0);
    luna_scheduler_done(f->scheduler, session, &key, f->now_ms);
}

static inline void failed(fixture *f, uint32_t session, const luna_job_key *key,
                          const char *error)
{
    luna_scheduler_failed(f->scheduler, session,
                          &(luna_msg_failed){.id = key->id,
                                             .attempt = key->attempt,
                                             .error = luna_text_of(error),
                                             .detail = luna_text_of("why"),
                                             .retry = strcmp(error, "bad_latent") != 0 &&
                                                      strcmp(error, "unsupported") != 0 &&
                                                      strcmp(error, "unknown_vae") != 0},
                          f->now_ms);
}

//  The latest call of a kind; fails when there is none.
static inline const call *last(const fixture *f, char kind)
{
    for (size_t i = f->count; i-- > 0;)
        if (f->calls[i].kind == kind) return &f->calls[i];
    fail_msg("no call of kind '%c'", kind);
    return NULL;
}

static inline size_t count_of(const fixture *f, char kind)
{
    size_t count = 0;
    for (size_t i = 0; i < f->count; i++) count += f->calls[i].kind == kind;
    return count;
}

#endif
