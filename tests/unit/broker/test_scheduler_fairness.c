//  The order between clients: turns, bursts, priorities, restart, and that nothing
//  starves.

#include "broker/sched_sim.h"

#include "broker/pace.h"

static luna_rules ageing_rules(int64_t ageing_ms)
{
    luna_rules rules = test_rules();
    rules.ageing_ms = ageing_ms;
    rules.load_ms = 0;
    return rules;
}

static sim *new_sim(int64_t ageing_ms)
{
    const luna_rules rules = ageing_rules(ageing_ms);
    return sim_new(&rules);
}

static void add_burst(sim *s, uint32_t client, uint32_t count, int64_t service_ms)
{
    for (uint32_t i = 0; i < count; i++) sim_add(s, client, "v", service_ms);
}

//  How many jobs of a client are among the first `among` that began.
static uint32_t count_begun(const sim *s, uint32_t client, uint32_t among)
{
    uint32_t count = 0;
    for (uint32_t i = 1; i <= s->added; i++)
        count +=
            s->jobs[i].client == client && s->jobs[i].done_ms && s->jobs[i].begun < among;
    return count;
}

//  Jobs of a client begin in the order of their numbers.
static void expect_fifo(const sim *s, uint32_t client)
{
    const sim_job *before = NULL;
    for (uint32_t i = 1; i <= s->added; i++) {
        const sim_job *each = &s->jobs[i];
        if (each->client != client) continue;
        if (before) assert_true(before->begun < each->begun);
        before = each;
    }
}

//  ---- turns ---------------------------------------------------------------------

static void one_client_alone_is_first_come_first_served(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 2);
    for (int i = 0; i < 100; i++) {
        sim_add(s, 1, "v", 100 + i * 37 % 900);
        if (i % 3 == 0) sim_run_ms(s, 250);
    }
    sim_run_all(s);
    expect_fifo(s, 1);
    sim_free(s);
}

static void a_burst_does_not_hold_up_a_single_job(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 1000, 500);
    for (uint32_t i = 0; i < 5; i++) {
        sim_run_ms(s, 20000);
        const uint32_t begun = s->begun;
        const uint32_t single = sim_add(s, 10 + i, "v", 500);
        sim_run_ms(s, 2000);
        assert_int_not_equal(s->jobs[single].done_ms, 0);
        //  Only what had its turn already goes before it.
        assert_true(s->jobs[single].begun <= begun + 1);
    }
    sim_free(s);
}

static void two_bursts_take_turns(void **state)
{
    (void)state;
    sim *s = new_sim(0);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 100, 500);
    add_burst(s, 2, 100, 500);
    sim_run_all(s);
    for (uint32_t among = 10; among <= 200; among += 10) {
        const uint32_t one = count_begun(s, 1, among), two = count_begun(s, 2, among);
        assert_true(one <= two + 2 && two <= one + 2);
    }
    expect_fifo(s, 1);
    expect_fifo(s, 2);
    sim_free(s);
}

//  Large jobs take longer turns.
static void turns_are_measured_in_time(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 100, 2000);
    add_burst(s, 2, 400, 500);
    sim_run_all(s);
    const uint32_t large = count_begun(s, 1, 100);
    assert_in_range(large, 18, 22);
    sim_free(s);
}

//  Together they have fallen far behind the clock; the third still is a newcomer.
static void a_third_client_comes_in_where_the_others_are(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 200, 500);
    add_burst(s, 2, 200, 500);
    sim_run_ms(s, 60000);
    const uint32_t begun = s->begun, third = s->added + 1;
    add_burst(s, 3, 50, 500);
    sim_run_all(s);
    assert_true(s->jobs[third].begun <= begun + 2);
    //  Its burst has a third of what follows, and goes nowhere before the others.
    const uint32_t share = count_begun(s, 3, begun + 60);
    assert_in_range(share, 18, 22);
    sim_free(s);
}

//  The fleet was faster than predicted, so the first client is far ahead of the clock.
//  A newcomer, whose turns are a quarter as long, has four of five, but not all.
static void being_ahead_of_the_clock_is_no_debt(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    add_burst(s, 1, 400, 500);  //  priced while no decoder is there
    for (int i = 0; i < 4; i++) sim_decoder_add(s, 1);
    sim_run_ms(s, 20000);
    const uint32_t begun = s->begun;
    add_burst(s, 2, 50, 500);
    sim_run_all(s);
    const uint32_t share = count_begun(s, 2, begun + 50);
    assert_in_range(share, 36, 44);
    sim_free(s);
}

//  The same across VAEs: where nobody waits for the newcomer's, the others' count.
static void being_ahead_of_the_clock_is_no_debt_to_another_vae(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    s->silent = true;
    add_burst(s, 1, 400, 500);
    for (int i = 0; i < 4; i++) sim_decoder_add(s, 1);
    sim_run_ms(s, 20000);
    const uint32_t begun = s->begun;
    for (int i = 0; i < 50; i++) sim_add(s, 2, "w", 500);
    sim_run_all(s);
    assert_in_range(count_begun(s, 2, begun + 50), 36, 44);
    sim_free(s);
}

//  A client that sends its next job as soon as the one before has begun.
static void one_job_after_another_is_no_newcomer_each_time(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 100, 500);
    uint32_t latest = 0;
    for (int i = 0; i < 4500; i++) {
        if (!latest || s->jobs[latest].begun_ms) latest = sim_add(s, 2, "v", 500);
        sim_step(s);
    }
    assert_in_range(count_begun(s, 2, 80), 35, 45);
    sim_free(s);
}

//  A job from the end of a burst that was ordered next takes nobody along.
static void what_is_ordered_next_moves_no_clock(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 100, 500);
    const luna_id id = id_of(100);
    assert_int_equal(luna_scheduler_prioritise(s->f.scheduler, &id, 5, 77), LUNA_OK);
    sim_run_ms(s, 5000);
    assert_int_not_equal(s->jobs[100].done_ms, 0);
    const uint32_t begun = s->begun;
    const uint32_t single = sim_add(s, 2, "v", 500);
    sim_run_all(s);
    assert_true(s->jobs[single].begun <= begun + 1);
    sim_free(s);
}

static void what_was_cancelled_takes_no_turn(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    add_burst(s, 1, 1, 500);
    add_burst(s, 2, 100, 500);
    sim_run_ms(s, 100);
    const uint32_t first = s->added + 1;
    add_burst(s, 1, 500, 500);
    for (uint32_t i = first; i <= s->added; i++) {
        const luna_id id = id_of(i);
        assert_int_equal(luna_scheduler_cancel(s->f.scheduler, &id), LUNA_OK);
        s->done++;
    }
    sim_carry_out(s);
    const uint32_t begun = s->begun;
    const uint32_t again = sim_add(s, 1, "v", 500);
    sim_run_all(s);
    assert_true(s->jobs[again].begun <= begun + 3);
    sim_free(s);
}

//  ---- priorities ----------------------------------------------------------------

static uint32_t add_urgent(sim *s, uint32_t client, uint64_t priority)
{
    luna_entry entry;
    const uint32_t number = sim_describe(s, client, "v", 500, &entry);
    entry.priority = priority;
    add_entry(&s->f, &entry);
    return number;
}

static void strict_priorities_know_no_turns(void **state)
{
    (void)state;
    sim *s = new_sim(0);
    sim_decoder_add(s, 1);
    for (uint32_t i = 0; i < 30; i++) add_urgent(s, 1, 5);
    for (uint32_t i = 0; i < 30; i++) add_urgent(s, 2, 6);
    sim_run_all(s);
    assert_int_equal(count_begun(s, 2, 30), 30);
    sim_free(s);
}

//  A client's less urgent jobs come after its urgent ones in its turns, and never
//  delay them.
static void turns_go_by_priority(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    for (uint32_t i = 0; i < 40; i++) add_urgent(s, 1, 3);
    for (uint32_t i = 0; i < 20; i++) add_urgent(s, 1, 5);
    for (uint32_t i = 0; i < 20; i++) add_urgent(s, 2, 5);
    const uint32_t late = add_urgent(s, 1, 3), other = add_urgent(s, 2, 3);
    sim_run_all(s);
    assert_int_equal(count_begun(s, 2, 40), 20);  //  all of priority 5 first
    assert_true(s->jobs[other].begun < s->jobs[late].begun);
    sim_free(s);
}

//  Who has had urgent turns comes after who had none.
static void urgent_turns_count_for_what_is_less_urgent(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    for (uint32_t i = 0; i < 20; i++) add_urgent(s, 1, 5);
    const uint32_t low = add_urgent(s, 1, 3);
    for (uint32_t i = 0; i < 10; i++) add_urgent(s, 2, 3);
    sim_run_all(s);
    assert_int_equal(s->jobs[low].begun, 30);
    sim_free(s);
}

//  By what a client still has to come, not by the clock alone: its own job of the
//  lower priority has waited long enough when the urgent ones have had so much time.
static void ageing_counts_turns(void **state)
{
    (void)state;
    sim *s = new_sim(10000);
    sim_decoder_add(s, 1);
    const uint32_t low = add_urgent(s, 1, 4);
    for (uint32_t i = 0; i < 100; i++) add_urgent(s, 2, 5);
    sim_run_all(s);
    assert_true(s->jobs[low].begun >= 10);
    assert_true(s->jobs[low].begun <= 30);
    sim_free(s);
}

//  ---- restart -------------------------------------------------------------------

static void collect_starts(fixture *f, uint32_t *order, size_t *count)
{
    *count = 0;
    const uint32_t d = hello(f, 1, NULL, NULL);
    credit(f, d, 1, UINT64_MAX / 2);
    for (;;) {
        const size_t before = f->count;
        run(f);
        if (f->count == before) break;
        order[(*count)++] = number_of(&last(f, 's')->id);
        done(f, d, order[*count - 1], 1);
        luna_scheduler_ended(f->scheduler, &last(f, 'f')->id);
    }
}

static void readding_gives_the_same_order(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    uint32_t orders[2][COUNT];
    for (int round = 0; round < 2; round++) {
        fixture *f = malloc(sizeof *f);
        const luna_rules rules = ageing_rules(60000);
        open_fixture(f, &rules);
        for (uint32_t i = 1; i <= COUNT; i++) {
            luna_entry entry = entry_of(i);
            entry.client = id_of(i * i % 7);
            entry.priority = i * 5 % 3;
            entry.accepted_ms = 1000 + i * 100;
            entry.bytes = 1 + i * 7919 % 3000000;
            //  A new job is stored first, one that is taken up again waits at once.
            entry.place = round ? LUNA_PLACE_WAITING : LUNA_PLACE_STORING;
            add_entry(f, &entry);
            if (!round) luna_scheduler_stored(f->scheduler, &entry.id, true);
        }
        size_t count;
        collect_starts(f, orders[round], &count);
        assert_int_equal(count, COUNT);
        luna_scheduler_free(&f->scheduler);
        free(f);
    }
    assert_memory_equal(orders[0], orders[1], sizeof orders[0]);
}

//  Half of two bursts was served before the restart; both go on from there.
static void after_a_restart_turns_go_on(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    for (uint32_t i = 0; i < 100; i++) {
        luna_entry entry;
        sim_describe(s, i < 50 ? 1 : 2, "v", 500, &entry);
        s->jobs[s->added].accepted_ms = i < 50 ? 0 : 400000;
        entry = sim_entry(s, s->added);
        add_entry(&s->f, &entry);
    }
    sim_decoder_add(s, 1);
    sim_run_all(s);
    assert_in_range(count_begun(s, 2, 40), 18, 22);
    sim_free(s);
}

//  Jobs of long ago that are taken up again do not pass all that came since.
static void old_jobs_do_not_come_back_as_a_block(void **state)
{
    (void)state;
    sim *s = new_sim(1800000);
    sim_decoder_add(s, 1);
    sim_run_ms(s, 5000000);
    add_burst(s, 2, 50, 500);
    for (uint32_t i = 0; i < 50; i++) {
        luna_entry entry;
        const uint32_t number = sim_describe(s, 1, "v", 500, &entry);
        entry.accepted_ms = 1000 + number;
        add_entry(&s->f, &entry);
    }
    sim_run_all(s);
    assert_in_range(count_begun(s, 2, 40), 18, 22);
    sim_free(s);
}

//  Nor where nobody waits for their VAE: then the window bounds what they pass.
static void old_jobs_pass_no_more_than_the_window(void **state)
{
    (void)state;
    sim *s = new_sim(20000);  //  a window of 10 s
    s->silent = true;
    sim_decoder_add(s, 1);
    sim_run_ms(s, 100000);
    sim_add(s, 2, "v", 500);
    sim_run_all(s);
    for (uint32_t i = 0; i < 60; i++) {
        luna_entry entry;
        sim_describe(s, 1, "w", 500, &entry);
        entry.accepted_ms = 1000;
        add_entry(&s->f, &entry);
    }
    const uint32_t single = sim_add(s, 2, "v", 500);
    sim_run_all(s);
    assert_in_range(s->jobs[single].begun, 5, 30);
    sim_free(s);
}

//  ---- starvation ----------------------------------------------------------------

//  New clients come with one job each as fast as the fleet can serve: each would go
//  before the burst for ever but for the window.
static void newcomers_do_not_starve_a_burst(void **state)
{
    (void)state;
    sim *s = new_sim(20000);  //  a window of 10 s
    sim_decoder_add(s, 1);
    add_burst(s, 1, 30, 500);
    const uint32_t last_of_burst = s->added;
    for (uint32_t i = 0; i < 200; i++) {
        sim_add(s, 100 + i, "v", 500);
        sim_run_ms(s, 500);
    }
    //  Its 15 s of turns and the window, at half of the fleet's pace.
    assert_int_not_equal(s->jobs[last_of_burst].done_ms, 0);
    assert_true(s->jobs[last_of_burst].done_ms <= 2 * (15000 + 10000) + 5000);
    expect_fifo(s, 1);
    sim_free(s);
}

//  The least urgent job of all, under a stream of the most urgent ones.
static void the_least_urgent_job_has_its_turn(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder_add(s, 1);
    const uint32_t low = add_urgent(s, 1, 0);
    for (uint32_t i = 0; i < 200; i++) {
        add_urgent(s, 100 + i, 9);
        sim_run_ms(s, 500);
    }
    assert_int_not_equal(s->jobs[low].done_ms, 0);
    assert_true(s->jobs[low].begun_ms <= 9 * 2000 + 1000 + 5000);
    sim_free(s);
}

//  ---- pace ----------------------------------------------------------------------

static void the_pace_is_learned(void **state)
{
    (void)state;
    luna_pace pace = luna_pace_start();
    assert_in_range(luna_pace_predict_ms(&pace, 1 << 20), 99, 101);
    for (int i = 0; i < 60; i++) {
        luna_pace_learn(&pace, 1000, 300);     //  all overhead
        luna_pace_learn(&pace, 999000, 1700);  //  together 2 ms a kB
    }
    assert_in_range(luna_pace_predict_ms(&pace, 1000000), 1600, 2400);
    assert_int_equal(luna_pace_predict_ms(&pace, 0), 0);
    assert_int_equal(luna_pace_predict_ms(&pace, UINT64_MAX), LUNA_PACE_MAX_MS);
    for (int i = 0; i < 500; i++) luna_pace_learn(&pace, 0, INT64_MAX);
    assert_int_equal(luna_pace_predict_ms(&pace, 1 << 20), LUNA_PACE_MAX_MS);
    for (int i = 0; i < 500; i++) luna_pace_learn(&pace, UINT64_MAX, -5);
    assert_int_equal(luna_pace_predict_ms(&pace, 1 << 20), 0);
}

//  A decoder that is given two jobs takes them one after another: the second does not
//  take twice as long.
static void waiting_in_a_decoder_is_no_service(void **state)
{
    (void)state;
    sim *s = new_sim(0);
    sim_decoder_add(s, 8);
    add_burst(s, 1, 80, 500);
    sim_run_all(s);
    const uint32_t next = s->added + 1;
    add_burst(s, 1, 2, 500);
    const luna_id one = id_of(next), two = id_of(next + 1);
    const int64_t turn_ms = luna_scheduler_find(s->f.scheduler, &two)->fair_ms -
                            luna_scheduler_find(s->f.scheduler, &one)->fair_ms;
    assert_in_range(turn_ms, 450, 550);
    sim_free(s);
}

//  An attempt that had to make the rest only says nothing of whole jobs.
static void the_rest_of_a_job_teaches_no_pace(void **state)
{
    (void)state;
    fixture *f = malloc(sizeof *f);
    const luna_rules rules = test_rules();
    const luna_msg_image known = {.index = 1};
    open_fixture(f, &rules);
    const uint32_t d = decoder(f, 1, 1);
    for (uint32_t i = 1; i <= 40; i++) {
        luna_entry entry = entry_of(i);
        entry.images = 2;
        entry.bytes = 1 << 20;
        entry.saved = &known;
        entry.saved_count = 1;
        add_entry(f, &entry);
        run(f);
        done(f, d, i, 1);
    }
    luna_entry entry = entry_of(50);
    entry.bytes = 1 << 20;
    add_entry(f, &entry);
    assert_in_range(job(f, 50)->cost_ms, 99, 101);
    luna_scheduler_free(&f->scheduler);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_client_alone_is_first_come_first_served),
        cmocka_unit_test(a_burst_does_not_hold_up_a_single_job),
        cmocka_unit_test(two_bursts_take_turns),
        cmocka_unit_test(turns_are_measured_in_time),
        cmocka_unit_test(a_third_client_comes_in_where_the_others_are),
        cmocka_unit_test(being_ahead_of_the_clock_is_no_debt),
        cmocka_unit_test(being_ahead_of_the_clock_is_no_debt_to_another_vae),
        cmocka_unit_test(one_job_after_another_is_no_newcomer_each_time),
        cmocka_unit_test(what_is_ordered_next_moves_no_clock),
        cmocka_unit_test(what_was_cancelled_takes_no_turn),
        cmocka_unit_test(strict_priorities_know_no_turns),
        cmocka_unit_test(turns_go_by_priority),
        cmocka_unit_test(urgent_turns_count_for_what_is_less_urgent),
        cmocka_unit_test(ageing_counts_turns),
        cmocka_unit_test(readding_gives_the_same_order),
        cmocka_unit_test(after_a_restart_turns_go_on),
        cmocka_unit_test(old_jobs_do_not_come_back_as_a_block),
        cmocka_unit_test(old_jobs_pass_no_more_than_the_window),
        cmocka_unit_test(newcomers_do_not_starve_a_burst),
        cmocka_unit_test(the_least_urgent_job_has_its_turn),
        cmocka_unit_test(the_pace_is_learned),
        cmocka_unit_test(waiting_in_a_decoder_is_no_service),
        cmocka_unit_test(the_rest_of_a_job_teaches_no_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
