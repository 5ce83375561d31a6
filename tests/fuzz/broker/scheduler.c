//  scheduler.c - what decoders, producers, people, the store and the clock do, in any
//  order
//
//  The bytes are a list of events. After each one the scheduler must agree with itself
//  and with a plain model of what was asked: no job is lost, none is held twice or
//  started twice under one number, no decoder gets more than its credit, nothing starts
//  that must not, counts are right. In the end one good decoder finishes all that is
//  left, and every job has ended exactly once.

#include "fuzz/broker/world.h"

//  ---- events: jobs -----------------------------------------------------------------

static const char *const vaes[VAES] = {"v", "x", "y", "auto"};
static const char *const formats[FORMATS] = {NULL, "png webp jpeg avif jxl", "png avif",
                                             " heic  webp "};

static void choose_batches(world *w, luna_entry *entry)
{
    const bool known = fuzz_bool(&w->from);
    for (size_t i = 0; i < 2; i++) {
        const uint32_t images = (uint32_t)fuzz_below(&w->from, 4) + (i == 0);
        if (known) entry->batches[i] = images;
        entry->images += images;
    }
}

static luna_entry choose_entry(world *w, uint32_t number)
{
    luna_entry entry = {.id = id_of(number)};
    entry.client.byte[0] = (uint8_t)fuzz_below(&w->from, CLIENTS);
    entry.priority = fuzz_below(&w->from, LUNA_PRIORITY_MAX + 1);
    entry.bytes = fuzz_uint(&w->from, 3);
    entry.vae = luna_text_of(vaes[fuzz_below(&w->from, VAES)]);
    entry.formats = (luna_formats)fuzz_below(&w->from, 64);
    choose_batches(w, &entry);
    const uint64_t expires = fuzz_below(&w->from, 64);
    if (expires > 48) entry.expires_ms = w->now_ms + (int64_t)(expires - 50) * 2000;
    if (expires % 16 == 3) entry.next_ms = w->accepted_ms;
    w->accepted_ms += (int64_t)fuzz_below(&w->from, 256) - 16;
    entry.accepted_ms = w->accepted_ms;
    return entry;
}

//  New, or known from before a restart or a retry, with what it has been through.
static void add(world *w)
{
    const uint32_t number = (uint32_t)fuzz_below(&w->from, JOBS);
    model_job *model = &w->jobs[number];
    luna_entry entry = choose_entry(w, number);
    const uint64_t way = fuzz_below(&w->from, 4);
    const luna_msg_image saved = {.input = fuzz_below(&w->from, 3), .index = 1};
    entry.place = way == 0   ? LUNA_PLACE_WAITING
                  : way == 1 ? LUNA_PLACE_ORPHAN
                             : LUNA_PLACE_STORING;
    entry.attempts = model->attempts + (entry.place == LUNA_PLACE_ORPHAN);
    if (entry.place != LUNA_PLACE_STORING) {
        entry.saved = &saved;
        entry.saved_count = 1;
        entry.lost = fuzz_below(&w->from, w->rules.lost_limit);
    }
    const bool known = model->life != UNKNOWN && model->life != ENDED;
    const luna_err err = luna_scheduler_add(w->scheduler, &entry, w->now_ms);
    CHECK(err == (known ? LUNA_EXISTS : LUNA_OK));
    if (known) return;
    model->attempts = entry.attempts;
    model->life = entry.place == LUNA_PLACE_STORING ? STORING : ACTIVE;
    if (model->life == STORING) ask_store(w, 'p', &entry.id, 0);
}

static luna_id choose_job(world *w)
{
    return id_of(fuzz_below(&w->from, JOBS));
}

static luna_err expected_order(const world *w, const luna_id *id)
{
    const life life = w->jobs[id->byte[15]].life;
    return life == ACTIVE ? LUNA_OK : life == ENDING ? LUNA_EXISTS : LUNA_NOT_FOUND;
}

static void cancel(world *w)
{
    const luna_id id = choose_job(w);
    const luna_err expected = expected_order(w, &id);
    CHECK(luna_scheduler_cancel(w->scheduler, &id) == expected);
    if (expected == LUNA_OK) CHECK(model_of(w, &id)->life == ENDING);
}

static void prioritise(world *w)
{
    const luna_id id = choose_job(w);
    const uint64_t priority = fuzz_below(&w->from, LUNA_PRIORITY_MAX + 2);
    const int64_t next_ms = fuzz_bool(&w->from) ? w->accepted_ms : 0;
    luna_err expected = expected_order(w, &id);
    if (expected == LUNA_OK && priority > LUNA_PRIORITY_MAX) expected = LUNA_BAD_REQUEST;
    CHECK(luna_scheduler_prioritise(w->scheduler, &id, priority, next_ms) == expected);
    const luna_job *job = luna_scheduler_find(w->scheduler, &id);
    if (expected == LUNA_OK) CHECK(job->priority == priority && job->next_ms == next_ms);
}

static void unreadable(world *w)
{
    const luna_id id = choose_job(w);
    const luna_job *job = luna_scheduler_find(w->scheduler, &id);
    //  The broker finds that out when it sends the attempt.
    if (!job || job->place != LUNA_PLACE_RUNNING) return;
    luna_scheduler_unreadable(w->scheduler, &id,
                              &(luna_verdict){LUNA_JOB_FAILED, "io", "gone"});
    CHECK(model_of(w, &id)->life == ENDING);
}

//  ---- events: the store -------------------------------------------------------------

static void answer_start(world *w, const request *asked)
{
    const luna_job_key key = {.id = id_of(asked->number), .attempt = asked->attempt};
    if (!w->good && fuzz_below(&w->from, 8) == 7) {
        luna_scheduler_not_started(w->scheduler, &key, w->now_ms);
        return;
    }
    const uint32_t session =
        luna_scheduler_started(w->scheduler, &key, w->accepted_ms, w->now_ms);
    const luna_job *job = luna_scheduler_find(w->scheduler, &key.id);
    if (session == 0) return;
    CHECK(job && job->place == LUNA_PLACE_RUNNING && job->session == session);
    CHECK(luna_scheduler_decoder(w->scheduler, session));
}

static void answer_put(world *w, const request *asked)
{
    const luna_id id = id_of(asked->number);
    const bool durable = w->good || fuzz_below(&w->from, 8) != 7;
    w->jobs[asked->number].life = durable ? ACTIVE : UNKNOWN;
    luna_scheduler_stored(w->scheduler, &id, durable);
}

static void answer_one(world *w)
{
    if (w->first == w->last) return;
    const request asked = w->requests[w->first++ % ANSWERS];
    const luna_id id = id_of(asked.number);
    if (asked.kind == 'p') answer_put(w, &asked);
    if (asked.kind == 's') answer_start(w, &asked);
    if (asked.kind != 'f') return;
    w->jobs[asked.number].life = ENDED;
    luna_scheduler_ended(w->scheduler, &id);
}

static void answer(world *w)
{
    for (uint64_t count = 1 + fuzz_below(&w->from, 4); count > 0; count--) answer_one(w);
}

//  ---- events: decoders --------------------------------------------------------------

//  A living session, mostly.
static uint32_t choose_session(world *w)
{
    const luna_fleet *fleet = luna_scheduler_fleet(w->scheduler);
    const uint64_t pick = fuzz_uint(&w->from, 1);
    if (fleet->count == 0 || pick == 255) return (uint32_t)pick;
    return fleet->at[pick % fleet->count]->session;
}

//  An attempt the session holds, mostly.
static luna_job_key choose_attempt(world *w, uint32_t session)
{
    const luna_decoder *decoder = luna_scheduler_decoder(w->scheduler, session);
    const uint64_t pick = fuzz_uint(&w->from, 1);
    if (decoder && decoder->hold_count > 0 && pick < 240) {
        const luna_hold *hold = &decoder->holds[pick % decoder->hold_count];
        return (luna_job_key){.id = hold->id, .attempt = hold->attempt};
    }
    return (luna_job_key){.id = id_of(pick % JOBS), .attempt = fuzz_uint(&w->from, 1)};
}

static void hello(world *w)
{
    char name[8] = "dec";
    luna_job_key running[3];
    luna_msg_vae serves[2];
    name[3] = (char)('0' + fuzz_below(&w->from, NAMES));
    luna_msg_hello message = {.role = luna_text_of("decoder"),
                              .name = luna_text_of(name)};
    message.instance = id_of(200 + fuzz_below(&w->from, NAMES));
    message.running.count = (size_t)fuzz_below(&w->from, 4);
    for (size_t i = 0; i < message.running.count; i++)
        running[i] = choose_attempt(w, choose_session(w));
    message.running.items = running;
    message.vaes.count = (size_t)fuzz_below(&w->from, 3);
    for (size_t i = 0; i < message.vaes.count; i++)
        serves[i].name = luna_text_of(vaes[fuzz_below(&w->from, VAES)]);
    message.vaes.items = serves;
    message.formats = luna_text_of(formats[fuzz_below(&w->from, FORMATS)]);
    uint32_t session = 0;
    //  What was anybody's after the restart is held from now on.
    CHECK(luna_scheduler_hello(w->scheduler, &message, w->now_ms, &session) == LUNA_OK);
    const luna_decoder *decoder = luna_scheduler_decoder(w->scheduler, session);
    CHECK(decoder && decoder->session == session);
    for (size_t i = 0; i < decoder->hold_count; i++)
        model_of(w, &decoder->holds[i].id)->held = decoder->holds[i].wanted;
}

static void credit(world *w)
{
    const uint32_t session = choose_session(w);
    const luna_msg_ready ready = {.credit_jobs = fuzz_below(&w->from, 6) * 13 % 67,
                                  .credit_bytes = fuzz_uint(&w->from, 3),
                                  .maps_payload = true};
    luna_scheduler_credit(w->scheduler, session, &ready);
}

static void ping(world *w)
{
    const uint32_t session = choose_session(w);
    const luna_msg_ping message = {.running = fuzz_below(&w->from, 4),
                                   .ticks = fuzz_uint(&w->from, 1)};
    luna_scheduler_seen(w->scheduler, session, &message, w->now_ms);
}

static void save(world *w, uint32_t session, const luna_job_key *key, uint64_t count)
{
    luna_msg_image images[4];
    for (uint64_t i = 0; i < count; i++)
        images[i] = (luna_msg_image){.input = fuzz_below(&w->from, 6),
                                     .index = fuzz_below(&w->from, 5)};
    const luna_job *job = luna_scheduler_find(w->scheduler, &key->id);
    const uint32_t before = job ? job->images_done : 0;
    const int64_t fresh =
        luna_scheduler_images(w->scheduler, session, key, images, (size_t)count);
    CHECK(fresh >= -1 && fresh <= (int64_t)count);
    if (fresh >= 0) CHECK(job && job->images_done == before + (uint32_t)fresh);
}

static void save_all(world *w, uint32_t session, const luna_job_key *key)
{
    const luna_job *job = luna_scheduler_find(w->scheduler, &key->id);
    if (!job) return;
    for (uint64_t input = 0; input < LUNA_MAX_INPUTS; input++)
        for (uint64_t index = 0; index < job->images; index++) {
            const luna_msg_image image = {.input = input, .index = index};
            luna_scheduler_images(w->scheduler, session, key, &image, 1);
        }
}

static void progress(world *w)
{
    static const char *const stages[] = {"received", "loading", "decoding", "saved", ""};
    const uint32_t session = choose_session(w);
    const luna_job_key key = choose_attempt(w, session);
    luna_scheduler_seen(w->scheduler, session, NULL, w->now_ms);
    save(w, session, &key, fuzz_below(&w->from, 4));
    luna_scheduler_stage(w->scheduler, session, &key,
                         luna_text_of(stages[fuzz_below(&w->from, 5)]), w->now_ms);
    const bool held = luna_scheduler_progress(w->scheduler, session, &key, w->now_ms);
    const luna_job *job = luna_scheduler_find(w->scheduler, &key.id);
    if (held) CHECK(job && job->session == session && job->attempts == key.attempt);
}

static void done(world *w)
{
    const uint32_t session = choose_session(w);
    const luna_job_key key = choose_attempt(w, session);
    luna_scheduler_seen(w->scheduler, session, NULL, w->now_ms);
    if (fuzz_below(&w->from, 4) > 0)
        save_all(w, session, &key);
    else
        save(w, session, &key, 2);
    luna_scheduler_done(w->scheduler, session, &key, w->now_ms);
}

static void failed(world *w)
{
    static const char *const errors[] = {"io", "bad_latent", "unknown_vae", "no_space"};
    const uint32_t session = choose_session(w);
    const luna_job_key key = choose_attempt(w, session);
    const luna_msg_failed message = {
        .id = key.id,
        .attempt = key.attempt,
        .error = luna_text_of(errors[fuzz_below(&w->from, 4)]),
        .detail = luna_text_of("why"),
        .retry = fuzz_below(&w->from, 4) > 0};
    luna_scheduler_failed(w->scheduler, session, &message, w->now_ms);
}

static void leave(world *w)
{
    const uint32_t session = choose_session(w);
    if (fuzz_bool(&w->from))
        luna_scheduler_disconnected(w->scheduler, session, w->now_ms);
    else
        luna_scheduler_bye(w->scheduler, session, w->now_ms);
}

//  ---- events: people and time ---------------------------------------------------------

static void drain(world *w)
{
    char name[8] = "dec";
    const uint64_t pick = fuzz_below(&w->from, NAMES + 1);
    name[3] = (char)('0' + pick);
    luna_scheduler_drain(w->scheduler, pick == NAMES ? NULL : name, fuzz_bool(&w->from));
}

FUZZ_QUIET static void check_deadlines(const world *w)
{
    const luna_job *job;
    for (size_t at = 0; (job = luna_scheduler_next(w->scheduler, &at));) {
        const bool excused = job->place == LUNA_PLACE_STORING ||
                             job->place == LUNA_PLACE_STARTING ||
                             job->place == LUNA_PLACE_ENDING;
        CHECK(excused || !job->expires_ms || job->expires_ms > w->now_ms);
        if (job->place == LUNA_PLACE_DEFERRED || job->place == LUNA_PLACE_ORPHAN)
            CHECK(job->wake_ms > w->now_ms);
    }
}

static void tick(world *w)
{
    static const int64_t steps_ms[] = {1, 10, 100, 100, 1000, 3000, 11000, 70000};
    w->now_ms += steps_ms[fuzz_below(&w->from, 8)];
    luna_scheduler_tick(w->scheduler, w->now_ms);
    //  What came back in the same tick is looked at in the next.
    luna_scheduler_tick(w->scheduler, w->now_ms);
    check_deadlines(w);
}

static void sleep_for(world *w)
{
    const int64_t ms = (int64_t)fuzz_below(&w->from, 128) * 100;
    w->now_ms += ms;
    luna_scheduler_slept(w->scheduler, ms);
}

static luna_rules choose_rules(fuzz_bytes *from)
{
    const uint64_t pick = fuzz_uint(from, 1);
    return (luna_rules){.lease_ms = 10000,
                        .adopt_ms = 5000,
                        .grace_ms = 200,
                        .remember_ms = 20000,
                        .ageing_ms = pick & 1   ? 1000
                                     : pick & 2 ? 600000
                                                : 0,
                        .load_ms = pick & 4 ? 3000 : 0,
                        .backoff_ms = 1000,
                        .backoff_max_ms = 4000,
                        .lost_limit = 3 + (uint32_t)(pick >> 6),
                        .refused_limit = 3,
                        .seed = pick + 1};
}

static void change_rules(world *w)
{
    luna_rules rules = choose_rules(&w->from);
    //  Jobs that are over a lower limit already would be failed at their next attempt.
    rules.lost_limit = w->rules.lost_limit;
    luna_scheduler_set_rules(w->scheduler, &rules);
    w->rules = rules;
}

//  The first of each queue that can start is what starts.
static void dispatch(world *w)
{
    luna_scheduler_dispatch(w->scheduler, w->now_ms);
}

static void event(world *w)
{
    static void (*const kinds[])(world *) = {
        add,    add,  add,    answer,   answer,   answer, answer,     hello,
        credit, ping, done,   done,     progress, failed, leave,      cancel,
        drain,  tick, tick,   dispatch, dispatch, tick,   prioritise, change_rules,
        credit, done, answer, add,      hello,    add,    sleep_for,  unreadable};
    const uint64_t pick = fuzz_uint(&w->from, 1);
    if (pick >= 250)
        luna_scheduler_pause(w->scheduler, pick & 1);
    else
        kinds[pick % (sizeof kinds / sizeof kinds[0])](w);
    if (pick & 64) dispatch(w);
    check_all(w);
}

//  ---- the end ---------------------------------------------------------------------

static uint32_t good_hello(world *w)
{
    const luna_msg_hello message = {.role = luna_text_of("decoder"),
                                    .name = luna_text_of("good"),
                                    .instance = id_of(250)};
    uint32_t session = 0;
    CHECK(luna_scheduler_hello(w->scheduler, &message, w->now_ms, &session) == LUNA_OK);
    luna_scheduler_credit(
        w->scheduler, session,
        &(luna_msg_ready){.credit_jobs = 8, .credit_bytes = UINT64_C(1) << 40});
    return session;
}

static void good_round(world *w)
{
    const uint32_t session = good_hello(w);
    luna_scheduler_dispatch(w->scheduler, w->now_ms);
    while (w->first < w->last) answer_one(w);
    const luna_decoder *decoder = luna_scheduler_decoder(w->scheduler, session);
    CHECK(decoder);
    for (size_t left = decoder->hold_count; left > 0; left--) {
        const luna_hold *hold = &decoder->holds[0];
        const luna_job_key key = {.id = hold->id, .attempt = hold->attempt};
        save_all(w, session, &key);
        luna_scheduler_done(w->scheduler, session, &key, w->now_ms);
    }
    while (w->first < w->last) answer_one(w);
    check_all(w);
    w->now_ms += 70000;
    luna_scheduler_tick(w->scheduler, w->now_ms);
}

static void finish_all(world *w)
{
    w->good = true;
    luna_scheduler_pause(w->scheduler, false);
    luna_scheduler_drain(w->scheduler, NULL, false);
    for (int rounds = 0; rounds < 200; rounds++) {
        const luna_depth depth = luna_scheduler_depth(w->scheduler);
        if (depth.pending + depth.in_progress + depth.storing == 0) break;
        CHECK(rounds < 199);
        good_round(w);
    }
    check_all(w);
    for (uint32_t i = 0; i < JOBS; i++)
        CHECK(w->jobs[i].life == UNKNOWN || w->jobs[i].life == ENDED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static world w;
    w = (world){.from = {.at = data, .left = len}, .now_ms = 1000000};
    w.accepted_ms = 1790000000000;
    w.rules = choose_rules(&w.from);
    const luna_calls calls = {.context = &w,
                              .start = on_start,
                              .finish = on_finish,
                              .give_back = on_give_back,
                              .stop = on_stop,
                              .gone = on_gone};
    CHECK(luna_scheduler_new(&w.rules, &calls, &w.scheduler) == LUNA_OK);
    for (int i = 0; i < EVENTS && w.from.left > 0; i++) event(&w);
    finish_all(&w);
    luna_scheduler_free(&w.scheduler);
    return 0;
}
