//  Thousands of random events; after each one the scheduler must be consistent, and
//  at the end every job must have ended exactly once.

#include "broker/sched_fixture.h"

#include "broker/scheduler_state.h"

enum { JOBS = 400, STEPS = 6000, DECODERS = 6, CLIENTS = 5, SEEDS = 8 };

typedef struct world {
    fixture f;
    uint64_t random;
    uint32_t added;
    uint32_t ends[JOBS + 1];      //  finish calls by job
    uint32_t attempts[JOBS + 1];  //  highest attempt started
    int64_t ageing_ms;            //  rule
    int64_t accepted_ms;          //  of the latest job
    size_t seen;                  //  calls looked at
} world;

static uint64_t draw(world *w, uint64_t below)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % below;
}

//  ---- invariants ----------------------------------------------------------------

static void check_job(const world *w, const luna_job *each, uint64_t *pending)
{
    const bool held =
        each->place == LUNA_PLACE_STARTING || each->place == LUNA_PLACE_RUNNING;
    luna_decoder *holder =
        luna_fleet_find(luna_scheduler_fleet(w->f.scheduler), each->session);
    *pending += luna_place_is_pending(each->place);
    if (!held) {
        assert_int_equal(each->session, 0);
        return;
    }
    assert_non_null(holder);
    const luna_hold *hold = luna_decoder_hold(holder, &each->id, each->attempts);
    assert_non_null(hold);
    assert_true(hold->wanted);
    assert_int_equal(hold->sent, each->place == LUNA_PLACE_RUNNING);
}

static void check_decoder(const world *w, const luna_decoder *each)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < each->hold_count; i++) {
        const luna_hold *hold = &each->holds[i];
        const luna_job *held = luna_scheduler_find(w->f.scheduler, &hold->id);
        bytes += hold->bytes;
        if (!hold->wanted) continue;
        assert_non_null(held);
        assert_int_equal(held->session, each->session);
        assert_int_equal(held->attempts, hold->attempt);
    }
    assert_int_equal(bytes, each->held_bytes);
    if (each->state == LUNA_DECODER_LOST) assert_int_equal(each->hold_count, 0);
}

static void check_client(const world *w, uint32_t number)
{
    const luna_id id = id_of(number);
    const luna_usage usage = luna_scheduler_client(w->f.scheduler, &id);
    const luna_job *each;
    uint64_t jobs = 0, bytes = 0;
    for (size_t at = 0; (each = luna_scheduler_next(w->f.scheduler, &at));) {
        if (luna_id_compare(&each->client->id, &id) != 0) continue;
        jobs++;
        bytes += each->bytes;
    }
    assert_int_equal(usage.jobs, jobs);
    assert_int_equal(usage.bytes, bytes);
}

//  A client's waiting jobs of one priority are in order, and none begins before the
//  turn of the one before it ends.
static void check_turns(const luna_job *each)
{
    const luna_job *before = each->chained ? each->chain_before : NULL;
    assert_true(!each->chained || each->place <= LUNA_PLACE_DEFERRED);
    if (!before) return;
    assert_ptr_equal(before->chain_after, each);
    assert_ptr_equal(before->client, each->client);
    assert_int_equal(before->priority, each->priority);
    assert_true(before->fair_ms + before->cost_ms <= each->fair_ms);
}

static void check_lanes(const luna_scheduler *s, const luna_queue *queue)
{
    for (size_t i = 0; i < queue->lane_count; i++) {
        const luna_lane *lane = queue->lanes[i];
        size_t jobs = 0, waiting = 0, at = 0;
        for (const luna_job *each; (each = luna_scheduler_next(s, &at));) {
            if (each->lane != lane) continue;
            assert_ptr_equal(each->queue, queue);
            jobs++;
            waiting += each->place == LUNA_PLACE_WAITING;
        }
        assert_int_equal(lane->jobs, jobs);
        assert_int_equal(lane->waiting.count, waiting);
        if (waiting == 0) assert_int_equal(lane->denied_ms | lane->idled_ms, 0);
    }
}

static void check_queues(const luna_scheduler *s)
{
    for (size_t i = 0; i < s->queues.count; i++) {
        const luna_queue *queue = s->queues.at[i];
        const luna_job *each;
        uint64_t pending = 0, counted = 0, jobs = 0, bytes = 0;
        for (size_t p = 0; p <= LUNA_PRIORITY_MAX; p++) counted += queue->pending[p];
        for (size_t at = 0; (each = luna_scheduler_next(s, &at));) {
            if (each->queue != queue) continue;
            jobs++;
            pending += luna_place_is_pending(each->place);
            if (each->place == LUNA_PLACE_WAITING) bytes += each->bytes;
        }
        assert_int_equal(counted, pending);
        assert_int_equal(queue->jobs, jobs);
        assert_int_equal(queue->waiting_bytes, bytes);
        check_lanes(s, queue);
    }
}

static void check_all(const world *w)
{
    const luna_scheduler *s = w->f.scheduler;
    const luna_depth depth = luna_scheduler_depth(s);
    const luna_job *each;
    uint64_t pending = 0, jobs = 0, bytes = 0;
    for (size_t at = 0; (each = luna_scheduler_next(s, &at)); jobs++) {
        check_job(w, each, &pending);
        bytes += each->bytes;
        assert_true(each->lost <= 5 && each->refused <= 3);
        check_turns(each);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) check_client(w, i);
    check_queues(s);
    assert_int_equal(depth.pending, pending);
    assert_int_equal(depth.pending + depth.in_progress + depth.storing, jobs);
    assert_int_equal(depth.bytes, bytes);
    for (size_t i = 0; i < luna_scheduler_fleet(s)->count; i++)
        check_decoder(w, luna_scheduler_fleet(s)->at[i]);
}

//  What was started was the first of its lane, and an attempt never seen before.
static void check_start(world *w, const call *start)
{
    const luna_scheduler *s = w->f.scheduler;
    const uint32_t number = number_of(&start->id);
    const luna_job *started = luna_scheduler_find(s, &start->id), *each;
    assert_true(start->attempt > w->attempts[number]);
    w->attempts[number] = start->attempt;
    for (size_t at = 0; started && (each = luna_scheduler_next(s, &at));)
        if (each->place == LUNA_PLACE_WAITING && each->lane == started->lane)
            assert_false(luna_job_ranks_before(each, started));
}

//  Carries out what the scheduler asked for, as the broker would, sometimes badly.
static void carry_out(world *w)
{
    for (; w->seen < w->f.count; w->seen++) {
        const call *each = &w->f.calls[w->seen];
        const luna_job_key key = {.id = each->id, .attempt = each->attempt};
        if (each->kind == 's') {
            if (draw(w, 20) == 0)
                luna_scheduler_not_started(w->f.scheduler, &key, w->f.now_ms);
            else
                luna_scheduler_started(w->f.scheduler, &key, 1, w->f.now_ms);
        }
        if (each->kind == 'f') {
            w->ends[number_of(&each->id)]++;
            luna_scheduler_ended(w->f.scheduler, &each->id);
        }
    }
    //  The written calls are done with: room for the next ones.
    w->f.count = w->seen = 0;
}

static void dispatch(world *w)
{
    const size_t before = w->f.count;
    const bool paused = luna_scheduler_paused(w->f.scheduler);
    luna_scheduler_dispatch(w->f.scheduler, w->f.now_ms);
    for (size_t i = before; i < w->f.count; i++) {
        if (w->f.calls[i].kind != 's') continue;
        assert_false(paused);
        assert_false(
            luna_scheduler_decoder(w->f.scheduler, w->f.calls[i].session)->draining);
        check_start(w, &w->f.calls[i]);
    }
    const luna_fleet *fleet = luna_scheduler_fleet(w->f.scheduler);
    for (size_t i = 0; i < fleet->count; i++) assert_true(fleet->at[i]->hold_count <= 4);
}

//  ---- events --------------------------------------------------------------------

static const char *const vaes[] = {"v", "x", "y"};

//  Nobody comes in further before the latest acceptance than the window: so nobody is
//  passed for ever.
static void check_newcomer(const world *w, uint32_t number)
{
    const luna_job *added = job(&w->f, number);
    const int64_t window_ms =
        w->ageing_ms && w->ageing_ms < 1200000 ? w->ageing_ms / 2 : 600000;
    assert_true(added->fair_ms >= w->accepted_ms - window_ms);
}

static void add_random(world *w)
{
    if (w->added == JOBS) return;
    luna_entry entry = entry_of(++w->added);
    entry.priority = draw(w, 10);
    entry.bytes = 1 + draw(w, 500);
    entry.images = 1 + draw(w, 3);
    entry.vae = luna_text_of(vaes[draw(w, 3)]);
    if (draw(w, 3) == 0) entry.formats = (luna_formats)draw(w, LUNA_FORMATS_ALL + 1);
    entry.client = id_of((uint32_t)draw(w, CLIENTS));
    entry.accepted_ms = w->accepted_ms += (int64_t)draw(w, 2000);
    if (draw(w, 8) == 0) entry.expires_ms = w->f.now_ms + (int64_t)draw(w, 60000);
    if (draw(w, 20) == 0) entry.next_ms = (int64_t)draw(w, 1000);
    if (draw(w, 10) == 0) {
        entry.place = LUNA_PLACE_ORPHAN;
        entry.attempts = w->attempts[w->added] = 1;
    }
    if (draw(w, 2)) entry.batches[draw(w, 5)] = (uint32_t)entry.images;
    add_entry(&w->f, &entry);
    check_newcomer(w, w->added);
}

static uint32_t random_session(world *w)
{
    const luna_fleet *fleet = luna_scheduler_fleet(w->f.scheduler);
    return fleet->count ? fleet->at[draw(w, fleet->count)]->session : 0;
}

//  An attempt some decoder holds or held; now and then one that never was.
static luna_job_key random_attempt(world *w, uint32_t session)
{
    const luna_decoder *d = luna_scheduler_decoder(w->f.scheduler, session);
    if (d && d->hold_count && draw(w, 8)) {
        const luna_hold *hold = &d->holds[draw(w, d->hold_count)];
        return (luna_job_key){.id = hold->id, .attempt = hold->attempt};
    }
    return key_of((uint32_t)draw(w, JOBS + 5), (uint32_t)draw(w, 6));
}

static void save_at(world *w, uint32_t session, const luna_job_key *key, uint64_t input,
                    uint64_t index)
{
    const luna_msg_image image = {.input = input, .index = index};
    luna_scheduler_images(w->f.scheduler, session, key, &image, 1);
}

static void report(world *w, bool is_done)
{
    const uint32_t session = random_session(w);
    const luna_job_key key = random_attempt(w, session);
    static const char *const stages[] = {"received", "loading", "decoding", "saved"};
    luna_scheduler_stage(w->f.scheduler, session, &key, luna_text_of(stages[draw(w, 4)]),
                         w->f.now_ms);
    for (uint64_t i = 0; i < 15; i++)
        if (is_done || draw(w, 2)) save_at(w, session, &key, i / 3, i % 3);
    luna_scheduler_seen(w->f.scheduler, session, NULL, w->f.now_ms);
    if (is_done)
        luna_scheduler_done(w->f.scheduler, session, &key, w->f.now_ms);
    else
        luna_scheduler_progress(w->f.scheduler, session, &key, w->f.now_ms);
}

static void report_failure(world *w)
{
    static const char *const errors[] = {"io", "device", "bad_latent", "unknown_vae",
                                         "unsupported"};
    const uint32_t session = random_session(w);
    const luna_job_key key = random_attempt(w, session);
    failed(&w->f, session, &key, errors[draw(w, 15) % 5]);
}

static void arrive(world *w)
{
    const luna_job_key running = random_attempt(w, random_session(w));
    const uint32_t number = (uint32_t)draw(w, DECODERS);
    static const char *const formats[] = {NULL, "png webp jpeg", "png avif", "heic"};
    const uint32_t session =
        hello_formats(&w->f, number, vaes[draw(w, 3)], formats[draw(w, 4)], &running);
    credit(&w->f, session, draw(w, 5), draw(w, 1000));
}

static void leave(world *w)
{
    const uint32_t session = random_session(w);
    if (draw(w, 2))
        luna_scheduler_disconnected(w->f.scheduler, session, w->f.now_ms);
    else
        luna_scheduler_bye(w->f.scheduler, session, w->f.now_ms);
}

static void cancel_random(world *w)
{
    const luna_id id = id_of((uint32_t)draw(w, JOBS));
    const luna_job *active = luna_scheduler_find(w->f.scheduler, &id);
    const luna_err expected = !active                              ? LUNA_NOT_FOUND
                              : active->place == LUNA_PLACE_ENDING ? LUNA_EXISTS
                                                                   : LUNA_OK;
    assert_int_equal(luna_scheduler_cancel(w->f.scheduler, &id), expected);
}

static void prioritise_random(world *w)
{
    const luna_id id = id_of((uint32_t)draw(w, JOBS));
    const luna_job *active = luna_scheduler_find(w->f.scheduler, &id);
    const luna_err expected = !active                              ? LUNA_NOT_FOUND
                              : active->place == LUNA_PLACE_ENDING ? LUNA_EXISTS
                                                                   : LUNA_OK;
    const int64_t next_ms = draw(w, 3) ? 0 : 1 + (int64_t)draw(w, 1000);
    assert_int_equal(luna_scheduler_prioritise(w->f.scheduler, &id, draw(w, 10), next_ms),
                     expected);
}

static void order_random(world *w)
{
    char name[32];
    luna_rules rules = test_rules();
    snprintf(name, sizeof name, "dec%u", (unsigned)draw(w, DECODERS));
    rules.remember_ms = 20000;
    rules.ageing_ms = (int64_t)draw(w, 3) * 500;
    switch (draw(w, 8)) {
        case 0:
            luna_scheduler_pause(w->f.scheduler, draw(w, 2));
            break;
        case 1:
            luna_scheduler_drain(w->f.scheduler, draw(w, 2) ? name : NULL, draw(w, 2));
            break;
        case 2:
            w->ageing_ms = rules.ageing_ms;
            luna_scheduler_set_rules(w->f.scheduler, &rules);
            break;
        default:
            prioritise_random(w);
    }
}

static void step(world *w)
{
    switch (draw(w, 13)) {
        case 12:
            order_random(w);
            break;
        case 0:
        case 1:
            add_random(w);
            break;
        case 2:
            arrive(w);
            break;
        case 3:
            if (draw(w, 4) == 0) leave(w);
            break;
        case 4:
            report_failure(w);
            break;
        case 5:
            if (draw(w, 6) == 0) cancel_random(w);
            break;
        case 6:
            tick(&w->f, (int64_t)draw(w, 3000));
            break;
        case 7: {
            const luna_msg_ping ping = {.running = draw(w, 4), .ticks = draw(w, 100)};
            luna_scheduler_seen(w->f.scheduler, random_session(w), &ping, w->f.now_ms);
            break;
        }
        case 8:
        case 9:
            report(w, true);
            break;
        default:
            report(w, false);
    }
}

//  One good decoder finishes what is left.
static void finish_all(world *w)
{
    luna_scheduler_pause(w->f.scheduler, false);
    luna_scheduler_drain(w->f.scheduler, NULL, false);
    while (w->added < JOBS) add_random(w);
    for (int rounds = 0; luna_scheduler_depth(w->f.scheduler).pending +
                             luna_scheduler_depth(w->f.scheduler).in_progress >
                         0;
         rounds++) {
        assert_true(rounds < 20000);
        tick(&w->f, 70000);
        const uint32_t session = hello(&w->f, 99, "v", NULL);
        credit(&w->f, session, 4, 1000000);
        dispatch(w);
        carry_out(w);
        const luna_decoder *d = luna_scheduler_decoder(w->f.scheduler, session);
        while (d && d->hold_count > 0) {
            const luna_job_key key = {.id = d->holds[0].id,
                                      .attempt = d->holds[0].attempt};
            for (uint64_t i = 0; i < 15; i++) save_at(w, session, &key, i / 3, i % 3);
            luna_scheduler_done(w->f.scheduler, session, &key, w->f.now_ms);
        }
        carry_out(w);
        check_all(w);
    }
}

static void run_world(uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    luna_rules rules = test_rules();
    rules.remember_ms = 20000;
    rules.ageing_ms = w->ageing_ms = seed % 2 ? 5 : 0;
    w->accepted_ms = 1000;
    open_fixture(&w->f, &rules);
    w->random = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < STEPS; i++) {
        step(w);
        dispatch(w);
        check_all(w);
        carry_out(w);
        check_all(w);
    }
    finish_all(w);
    for (uint32_t i = 1; i <= JOBS; i++) assert_int_equal(w->ends[i], 1);
    assert_int_equal(w->f.scheduler->clients.count, 0);
    assert_int_equal(w->f.scheduler->deadlines.count + w->f.scheduler->timers.count, 0);
    luna_scheduler_free(&w->f.scheduler);
    free(w);
}

static void every_job_ends_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) run_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_job_ends_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
