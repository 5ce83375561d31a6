//  What people order (priorities, next, pause, drain, other rules), and deadlines.

#include "broker/sched_fixture.h"

static void add_as(fixture *f, uint32_t number, uint32_t client, uint64_t priority)
{
    luna_entry entry = entry_of(number);
    entry.client = id_of(client);
    entry.priority = priority;
    add_entry(f, &entry);
}

//  Starts everything on one decoder and compares the order.
static void expect_order(fixture *f, const uint32_t *numbers, size_t count)
{
    const size_t before = f->count;
    decoder(f, 50, LUNA_HOLDS_MAX);
    run(f);
    size_t at = 0;
    for (size_t i = before; i < f->count; i++) {
        if (f->calls[i].kind != 's') continue;
        assert_true(at < count);
        assert_int_equal(number_of(&f->calls[i].id), numbers[at++]);
    }
    assert_int_equal(at, count);
}

static luna_err prioritise(fixture *f, uint32_t number, uint64_t priority,
                           int64_t next_ms)
{
    const luna_id id = id_of(number);
    return luna_scheduler_prioritise(f->scheduler, &id, priority, next_ms);
}

//  ---- prioritise ----------------------------------------------------------------

static void another_priority_is_another_place(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 4; i++) add_as(f, i, i, 5);
    assert_int_equal(prioritise(f, 3, 7, 0), LUNA_OK);
    assert_int_equal(prioritise(f, 1, 2, 0), LUNA_OK);
    assert_int_equal(job(f, 3)->priority, 7);
    assert_int_equal(luna_scheduler_backlog(f->scheduler, 6), 1);
    assert_int_equal(luna_scheduler_backlog(f->scheduler, 3), 3);
    expect_order(f, (uint32_t[]){3, 2, 4, 1}, 4);
}

static void the_same_priority_keeps_the_place(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 4; i++) add_as(f, i, 1, 5);
    assert_int_equal(prioritise(f, 2, 5, 0), LUNA_OK);
    expect_order(f, (uint32_t[]){1, 2, 3, 4}, 4);
}

//  A client's jobs that are raised together stay in the order of the orders, and take
//  turns with another client's of that priority.
static void raised_jobs_take_turns_too(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 4; i++) add_as(f, i, 1, 5);
    add_as(f, 5, 2, 7);
    add_as(f, 6, 2, 7);
    for (uint32_t i = 1; i <= 3; i++) assert_int_equal(prioritise(f, i, 7, 0), LUNA_OK);
    expect_order(f, (uint32_t[]){1, 5, 2, 6, 3, 4}, 6);
}

static void next_goes_before_all_the_latest_first(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 5; i++) add_as(f, i, i, i == 5 ? 9 : 5);
    assert_int_equal(prioritise(f, 2, 0, 1000), LUNA_OK);
    assert_int_equal(prioritise(f, 4, 5, 2000), LUNA_OK);
    assert_int_equal(job(f, 4)->next_ms, 2000);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 4)), 0);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 5)), 2);
    expect_order(f, (uint32_t[]){4, 2, 5, 1, 3}, 5);
}

static void next_can_be_taken_back(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 3; i++) add_as(f, i, i, 5);
    assert_int_equal(prioritise(f, 3, 5, 1000), LUNA_OK);
    assert_int_equal(prioritise(f, 3, 5, 0), LUNA_OK);
    expect_order(f, (uint32_t[]){1, 2, 3}, 3);
}

static void next_survives_a_restart(void **state)
{
    fixture *f = *state;
    add_as(f, 1, 1, 5);
    luna_entry entry = entry_of(2);
    entry.next_ms = 1000;
    entry.priority = 0;
    add_entry(f, &entry);
    expect_order(f, (uint32_t[]){2, 1}, 2);
}

//  A running job has its new place when it is given back; so has a deferred one.
static void running_and_deferred_jobs_can_be_prioritised(void **state)
{
    fixture *f = *state;
    add_as(f, 1, 1, 5);
    add_as(f, 2, 1, 5);
    const uint32_t d = decoder(f, 1, 2);
    run(f);
    add_as(f, 3, 1, 5);
    assert_int_equal(prioritise(f, 1, 1, 0), LUNA_OK);
    const luna_job_key key = key_of(2, 1);
    failed(f, d, &key, "io");
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_DEFERRED);
    assert_int_equal(prioritise(f, 2, 9, 0), LUNA_OK);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    luna_scheduler_bye(f->scheduler, d, f->now_ms);
    tick(f, 2000);
    assert_int_equal(luna_scheduler_backlog(f->scheduler, 9), 1);
    expect_order(f, (uint32_t[]){2, 3, 1}, 3);
}

static void what_cannot_be_prioritised(void **state)
{
    fixture *f = *state;
    add(f, 1);
    luna_entry entry = entry_of(2);
    entry.place = LUNA_PLACE_STORING;
    add_entry(f, &entry);
    assert_int_equal(prioritise(f, 1, 10, 0), LUNA_BAD_REQUEST);
    assert_int_equal(job(f, 1)->priority, 5);
    assert_int_equal(prioritise(f, 2, 5, 0), LUNA_NOT_FOUND);
    assert_int_equal(prioritise(f, 9, 5, 0), LUNA_NOT_FOUND);
    const luna_id id = id_of(1);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_OK);
    assert_int_equal(prioritise(f, 1, 5, 0), LUNA_EXISTS);
}

//  ---- pause ---------------------------------------------------------------------

static void nothing_starts_while_paused(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    luna_scheduler_pause(f->scheduler, true);
    assert_true(luna_scheduler_paused(f->scheduler));
    done(f, d, 1, 1);  //  what runs goes on
    assert_int_equal(count_of(f, 'f'), 1);
    run(f);
    assert_int_equal(count_of(f, 's'), 1);
    luna_scheduler_pause(f->scheduler, false);
    run(f);
    assert_int_equal(count_of(f, 's'), 2);
}

//  ---- drain ---------------------------------------------------------------------

static void a_draining_decoder_keeps_what_it_has(void **state)
{
    fixture *f = *state;
    const uint32_t a = decoder(f, 1, 4);
    add(f, 1);
    run(f);
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec1", true), 1);
    assert_true(luna_scheduler_decoder(f->scheduler, a)->draining);
    add(f, 2);
    run(f);
    assert_int_equal(count_of(f, 's'), 1);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    const uint32_t b = decoder(f, 2, 4);
    run(f);
    assert_int_equal(last(f, 's')->session, b);
    add(f, 3);
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec1", false), 1);
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec2", true), 1);
    run(f);
    assert_int_equal(last(f, 's')->session, a);
}

static bool drains(fixture *f, uint32_t number)
{
    return luna_scheduler_decoder(f->scheduler, decoder(f, number, 1))->draining;
}

static void a_drain_survives_a_reconnection(void **state)
{
    fixture *f = *state;
    const uint32_t a = decoder(f, 1, 4);
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec1", true), 1);
    luna_scheduler_bye(f->scheduler, a, f->now_ms);
    assert_true(drains(f, 1));
    assert_false(drains(f, 2));
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec1", false), 1);
    assert_false(drains(f, 1));
}

static void an_unknown_decoder_cannot_be_drained(void **state)
{
    fixture *f = *state;
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec7", true), 0);
    assert_false(drains(f, 7));
}

static void all_drain_and_those_that_come(void **state)
{
    fixture *f = *state;
    decoder(f, 1, 1);
    decoder(f, 2, 1);
    assert_int_equal(luna_scheduler_drain(f->scheduler, NULL, true), 2);
    assert_true(drains(f, 3));
    assert_int_equal(luna_scheduler_drain(f->scheduler, "dec2", false), 1);
    assert_false(drains(f, 2));
    assert_true(drains(f, 1));
    assert_true(drains(f, 4));
    luna_scheduler_drain(f->scheduler, NULL, false);
    for (uint32_t i = 1; i <= 5; i++) assert_false(drains(f, i));
    //  Single orders are forgotten with an order for all.
    luna_scheduler_drain(f->scheduler, "dec1", true);
    luna_scheduler_drain(f->scheduler, NULL, true);
    luna_scheduler_drain(f->scheduler, NULL, false);
    assert_false(drains(f, 1));
}

//  Names come and go; there is room for the orders of all that are known.
static void the_orders_of_the_forgotten_make_room(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 0; i < 3 * LUNA_DECODERS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "dec%u", i);
        const uint32_t d = decoder(f, i, 1);
        assert_int_equal(luna_scheduler_drain(f->scheduler, name, true), 1);
        if (i + 1 < 3 * LUNA_DECODERS_MAX) luna_scheduler_bye(f->scheduler, d, f->now_ms);
        f->count = f->started = 0;
        tick(f, 1);
    }
    assert_true(drains(f, 3 * LUNA_DECODERS_MAX - 1));
}

//  ---- rules ---------------------------------------------------------------------

static void another_ageing_ranks_again(void **state)
{
    fixture *f = *state;
    luna_rules rules = test_rules();
    for (uint32_t i = 1; i <= 40; i++) {
        luna_entry entry = entry_of(i);
        entry.client = id_of(i);
        entry.priority = i % 2;
        entry.accepted_ms = 1000 * i;
        add_entry(f, &entry);
    }
    rules.ageing_ms = 1;
    luna_scheduler_set_rules(f->scheduler, &rules);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 40)), 39);
    rules.ageing_ms = 0;
    luna_scheduler_set_rules(f->scheduler, &rules);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 40)), 39);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 39)), 19);
    uint32_t order[40];
    for (uint32_t i = 0; i < 20; i++) {
        order[i] = 2 * i + 1;
        order[20 + i] = 2 * i + 2;
    }
    expect_order(f, order, 40);
}

static void the_rest_applies_from_now_on(void **state)
{
    fixture *f = *state;
    luna_rules rules = test_rules();
    rules.lease_ms = 20000;
    rules.refused_limit = 1;
    add(f, 1);
    add(f, 2);
    const uint32_t d = decoder(f, 1, 1);
    luna_scheduler_set_rules(f->scheduler, &rules);
    run(f);
    tick(f, 15000);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    const luna_job_key key = key_of(1, 1);
    failed(f, d, &key, "io");
    assert_int_equal(last(f, 'f')->state, LUNA_JOB_FAILED);
}

//  ---- deadlines -----------------------------------------------------------------

static void add_with_deadline(fixture *f, uint32_t number, int64_t in_ms,
                              luna_job_place place)
{
    luna_entry entry = entry_of(number);
    entry.expires_ms = f->now_ms + in_ms;
    entry.place = place;
    entry.attempts = place == LUNA_PLACE_ORPHAN;
    add_entry(f, &entry);
}

static void expect_timeout(const fixture *f, uint32_t number)
{
    assert_int_equal(job(f, number)->place, LUNA_PLACE_ENDING);
    const call *finish = last(f, 'f');
    assert_int_equal(number_of(&finish->id), number);
    assert_int_equal(finish->state, LUNA_JOB_FAILED);
    assert_string_equal(finish->error, "timeout");
}

static void a_waiting_job_is_failed_at_its_deadline(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add_with_deadline(f, 2, 5000, LUNA_PLACE_WAITING);
    add_with_deadline(f, 3, 4000, LUNA_PLACE_WAITING);
    tick(f, 3999);
    assert_int_equal(count_of(f, 'f'), 0);
    tick(f, 1);
    assert_int_equal(count_of(f, 'f'), 1);
    expect_timeout(f, 3);
    tick(f, 1000);
    expect_timeout(f, 2);
    tick(f, 1000000);
    assert_int_equal(count_of(f, 'f'), 2);
    expect_order(f, (uint32_t[]){1}, 1);
}

static void a_running_job_is_stopped_at_its_deadline(void **state)
{
    fixture *f = *state;
    add_with_deadline(f, 1, 5000, LUNA_PLACE_WAITING);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    tick(f, 5000);
    assert_int_equal(last(f, 't')->session, d);
    assert_int_equal(last(f, 't')->attempt, 1);
    expect_timeout(f, 1);
    assert_int_equal(luna_scheduler_decoder(f->scheduler, d)->hold_count, 0);
    done(f, d, 1, 1);  //  too late
    assert_int_equal(count_of(f, 'f'), 1);
}

static void deferred_and_orphan_jobs_have_deadlines(void **state)
{
    fixture *f = *state;
    add_with_deadline(f, 1, 500, LUNA_PLACE_WAITING);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key key = key_of(1, 1);
    failed(f, d, &key, "io");
    add_with_deadline(f, 2, 400, LUNA_PLACE_ORPHAN);
    tick(f, 400);
    expect_timeout(f, 2);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_DEFERRED);
    tick(f, 100);
    expect_timeout(f, 1);
}

static void what_is_being_stored_is_let_finish(void **state)
{
    fixture *f = *state;
    const luna_id one = id_of(1), two = id_of(2);
    add_with_deadline(f, 1, 100, LUNA_PLACE_STORING);
    add_with_deadline(f, 2, 100, LUNA_PLACE_WAITING);
    decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    tick(f, 100);
    assert_int_equal(count_of(f, 'f'), 0);
    luna_scheduler_stored(f->scheduler, &one, true);
    const luna_job_key key = key_of(2, 1);
    luna_scheduler_started(f->scheduler, &key, 77, f->now_ms);
    tick(f, 0);
    assert_int_equal(count_of(f, 'f'), 2);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_ENDING);
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_ENDING);
    luna_scheduler_ended(f->scheduler, &one);
    luna_scheduler_ended(f->scheduler, &two);
    tick(f, 100);
    assert_int_equal(count_of(f, 'f'), 2);
}

static void sleep_moves_no_deadline(void **state)
{
    fixture *f = *state;
    add_with_deadline(f, 1, 5000, LUNA_PLACE_WAITING);
    luna_scheduler_slept(f->scheduler, 100000);
    tick(f, 5000);
    expect_timeout(f, 1);
}

//  A job that ends in another way is in the way of no deadline.
static void ended_jobs_leave_the_deadlines(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 30; i++)
        add_with_deadline(f, i, 1000 + i * 7919 % 100, LUNA_PLACE_WAITING);
    for (uint32_t i = 1; i <= 30; i += 2) {
        const luna_id id = id_of(i);
        assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_OK);
        luna_scheduler_ended(f->scheduler, &id);
    }
    tick(f, 2000);
    assert_int_equal(count_of(f, 'f'), 30);
    for (uint32_t i = 2; i <= 30; i += 2)
        assert_int_equal(job(f, i)->place, LUNA_PLACE_ENDING);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(another_priority_is_another_place),
        TEST(the_same_priority_keeps_the_place),
        TEST(raised_jobs_take_turns_too),
        TEST(next_goes_before_all_the_latest_first),
        TEST(next_can_be_taken_back),
        TEST(next_survives_a_restart),
        TEST(running_and_deferred_jobs_can_be_prioritised),
        TEST(what_cannot_be_prioritised),
        TEST(nothing_starts_while_paused),
        TEST(a_draining_decoder_keeps_what_it_has),
        TEST(a_drain_survives_a_reconnection),
        TEST(an_unknown_decoder_cannot_be_drained),
        TEST(all_drain_and_those_that_come),
        TEST(the_orders_of_the_forgotten_make_room),
        TEST(another_ageing_ranks_again),
        TEST(the_rest_applies_from_now_on),
        TEST(a_waiting_job_is_failed_at_its_deadline),
        TEST(a_running_job_is_stopped_at_its_deadline),
        TEST(deferred_and_orphan_jobs_have_deadlines),
        TEST(what_is_being_stored_is_let_finish),
        TEST(sleep_moves_no_deadline),
        TEST(ended_jobs_leave_the_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
