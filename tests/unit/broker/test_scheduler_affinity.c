//  What a swap of VAEs may wait for, and for how long.

#include "broker/sched_sim.h"

static sim *new_sim(int64_t load_ms)
{
    luna_rules rules = test_rules();
    rules.load_ms = load_ms;
    return sim_new(&rules);
}

static void add_alternating(sim *s, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) sim_add(s, 1, i % 2 ? "y" : "x", 500);
}

//  A decoder that writes these formats, has loaded `vae` and holds nothing.
static sim_decoder *warm_writer(sim *s, const char *vae, uint64_t jobs,
                                const char *formats)
{
    sim_decoder *d = sim_writer_add(s, jobs, formats);
    for (size_t i = 0; i + 1 < s->decoder_count; i++)
        credit(&s->f, s->decoders[i].session, 0, 0);
    sim_add(s, 1, vae, 100);
    sim_run_all(s);
    assert_string_equal(d->vae, vae);
    for (size_t i = 0; i < s->decoder_count; i++)
        credit(&s->f, s->decoders[i].session, jobs, UINT64_MAX / 2);
    return d;
}

static sim_decoder *warm_decoder(sim *s, const char *vae, uint64_t jobs)
{
    return warm_writer(s, vae, jobs, NULL);
}

static int64_t waited_ms(const sim *s, uint32_t number)
{
    return s->jobs[number].begun_ms - s->jobs[number].accepted_ms;
}

//  ---- two VAEs, one decoder -----------------------------------------------------

static void free_swaps_follow_the_order(void **state)
{
    (void)state;
    sim *s = new_sim(0);
    s->silent = true;
    sim_decoder_add(s, 1);
    add_alternating(s, 100);
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 99);
    for (uint32_t i = 1; i <= 100; i++) assert_int_equal(s->jobs[i].begun, i - 1);
    sim_free(s);
}

//  Each VAE works off at least what the other's load costs: four jobs of 500 ms.
static void dear_swaps_are_spared(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder_add(s, 1);
    add_alternating(s, 100);
    sim_run_all(s);
    assert_in_range(sim_swaps(s), 1, 99 / 4);
    sim_free(s);
}

//  Twice what it takes with the fewest swaps.
static void waiting_costs_no_more_than_twice_the_best(void **state)
{
    (void)state;
    for (uint32_t service_ms = 50; service_ms <= 6400; service_ms *= 2) {
        sim *s = new_sim(2000);
        sim_decoder_add(s, 2);
        for (uint32_t i = 0; i < 200; i++) sim_add(s, 1, i % 2 ? "y" : "x", service_ms);
        sim_run_all(s);
        const int64_t best_ms = 200 * (int64_t)service_ms + 2 * 2000;
        assert_true(sim_time_ms(s) <= 2 * best_ms);
        sim_free(s);
    }
}

//  The stream for the VAE in place is as urgent and never ends.
static void a_vae_that_keeps_losing_gets_its_turn(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "y", 2);
    for (int i = 0; i < 10; i++) sim_add(s, 1, "y", 500);
    const uint32_t lone = sim_add(s, 2, "x", 500);
    for (int i = 0; i < 40; i++) {
        sim_add(s, 1, "y", 500);
        sim_run_ms(s, 500);
    }
    //  What is in the decoder, the wait, and again what is in the decoder.
    assert_int_not_equal(s->jobs[lone].done_ms, 0);
    assert_in_range(waited_ms(s, lone), 2000, 1000 + 2000 + 1000 + 100);
    sim_free(s);
}

static uint32_t add_avif(sim *s, const char *vae)
{
    luna_entry entry;
    const uint32_t number = sim_describe(s, 2, vae, 500, &entry);
    entry.formats = luna_formats_parse(luna_text_of("avif"));
    add_entry(&s->f, &entry);
    return number;
}

//  What others of its VAE get from a decoder that does not write its format is not its
//  turn.
static void a_format_that_keeps_losing_gets_its_turn(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_writer(s, "x", 2, "png");
    sim_decoder *y = warm_writer(s, "y", 2, "png avif");
    for (int i = 0; i < 10; i++) {
        sim_add(s, 1, "x", 500);
        sim_add(s, 1, "y", 500);
    }
    const uint32_t lone = add_avif(s, "x");
    for (int i = 0; i < 12; i++) {
        sim_add(s, 1, "x", 500);
        sim_add(s, 1, "y", 500);
        sim_run_ms(s, 500);
    }
    assert_int_not_equal(s->jobs[lone].done_ms, 0);
    assert_in_range(waited_ms(s, lone), 2000, 1000 + 2000 + 1000 + 100);
    assert_true(y->swaps > 0);
    sim_free(s);
}

//  One VAE is loaded once, whatever the formats.
static void another_format_is_no_swap(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_writer(s, "x", 2, "png avif");
    for (int i = 0; i < 4; i++) {
        add_avif(s, "x");
        sim_add(s, 1, "x", 500);
    }
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 0);
    assert_in_range(sim_time_ms(s), 4000, 2000 + 100 + 4000 + 200);
    sim_free(s);
}

static uint32_t add_to_stream(sim *s, uint64_t priority, bool next)
{
    luna_entry entry;
    warm_decoder(s, "y", 1);
    for (int i = 0; i < 30; i++) sim_add(s, 1, "y", 500);
    sim_run_ms(s, 700);
    const uint32_t number = sim_describe(s, 2, "x", 500, &entry);
    entry.priority = priority;
    entry.next_ms = next ? 77 : 0;
    add_entry(&s->f, &entry);
    sim_run_ms(s, 5000);
    return number;
}

static void the_more_urgent_job_does_not_wait(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    const uint32_t urgent = add_to_stream(s, 6, false);
    assert_in_range(waited_ms(s, urgent), 0, 600);
    sim_free(s);
}

static void a_job_ordered_next_does_not_wait(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    const uint32_t next = add_to_stream(s, 0, true);
    assert_in_range(waited_ms(s, next), 0, 600);
    sim_free(s);
}

static void an_equal_job_does_wait(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    const uint32_t equal = add_to_stream(s, 5, false);
    assert_in_range(waited_ms(s, equal), 2000, 2600);
    sim_free(s);
}

//  ---- a busy warm decoder and an idle cold one ----------------------------------

static void a_short_wait_is_better_than_a_load(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder *x = warm_decoder(s, "x", 1), *y = warm_decoder(s, "y", 1);
    sim_add(s, 1, "x", 1500);
    sim_run_ms(s, 100);
    const uint32_t second = sim_add(s, 1, "x", 1500);
    sim_run_all(s);
    assert_in_range(waited_ms(s, second), 1300, 1500);
    assert_int_equal(x->swaps + y->swaps, 0);
    sim_free(s);
}

//  A decoder that tells no stages has shown by its first result that it has the VAE.
static void a_result_shows_that_the_vae_is_loaded(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    s->silent = true;
    warm_decoder(s, "x", 1);
    warm_decoder(s, "y", 1);
    const uint32_t slow = sim_add(s, 1, "x", 10);
    s->jobs[slow].service_ms = 1000;
    sim_run_ms(s, 100);
    sim_add(s, 1, "x", 10);
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 0);
    sim_free(s);
}

//  The job in the way takes longer than anybody could know.
static void a_wait_ends_after_the_time_of_a_load(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "x", 1);
    sim_decoder *y = warm_decoder(s, "y", 1);
    const uint32_t slow = sim_add(s, 1, "x", 100);
    s->jobs[slow].service_ms = 30000;
    sim_run_ms(s, 100);
    const uint32_t second = sim_add(s, 1, "x", 500);
    sim_run_ms(s, 10000);
    assert_in_range(waited_ms(s, second), 2000, 2100);
    assert_string_equal(y->vae, "x");
    sim_free(s);
}

static void a_wait_known_to_be_long_is_none(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "x", 1);
    sim_decoder *y = warm_decoder(s, "y", 1);
    sim_add(s, 1, "x", 30000);
    sim_run_ms(s, 100);
    const uint32_t second = sim_add(s, 1, "x", 500);
    sim_run_ms(s, 100);
    assert_in_range(waited_ms(s, second), 0, 50);
    assert_string_equal(y->vae, "x");
    sim_free(s);
}

//  Room in the warm decoder is no reason to wait long in it.
static void behind_a_long_job_is_no_good_place(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "x", 2);
    sim_decoder *y = warm_decoder(s, "y", 2);
    sim_add(s, 1, "x", 30000);
    sim_run_ms(s, 100);
    sim_add(s, 1, "x", 500);
    sim_run_ms(s, 100);
    assert_string_equal(y->vae, "x");
    sim_free(s);
}

//  Each job alone would wait; all together are worth the second decoder.
static void a_long_queue_is_worth_a_swap(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "x", 1);
    sim_decoder *y = warm_decoder(s, "y", 1);
    for (int i = 0; i < 40; i++) sim_add(s, 1, "x", 500);
    sim_run_ms(s, 100);
    assert_string_equal(y->vae, "x");
    sim_free(s);
}

//  One job always waits, each only for a while: the idle decoder's time adds up.
static void idle_time_adds_up_over_jobs(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "x", 1);
    sim_decoder *y = warm_decoder(s, "y", 1);
    for (int i = 0; i < 3; i++) sim_add(s, 1, "x", 500);
    for (int i = 0; i < 20; i++) {
        sim_add(s, 1, "x", 500);
        sim_run_ms(s, 500);
    }
    assert_string_equal(y->vae, "x");
    sim_free(s);
}

//  A decoder that was told to drain, takes nothing or refused the job is not waited
//  for.
static void who_will_not_take_it_is_not_waited_for(void **state)
{
    (void)state;
    for (int why = 0; why < 2; why++) {
        sim *s = new_sim(2000);
        const sim_decoder *x = warm_decoder(s, "x", 1);
        warm_decoder(s, "y", 1);
        sim_add(s, 1, "x", 1500);
        sim_run_ms(s, 100);
        if (why == 0)
            assert_int_equal(luna_scheduler_drain(s->f.scheduler, "dec1", true), 1);
        if (why == 1) credit(&s->f, x->session, 0, 0);
        const uint32_t second = sim_add(s, 1, "x", 500);
        sim_run_ms(s, 100);
        assert_in_range(waited_ms(s, second), 0, 50);
        sim_free(s);
    }
}

//  Who refused the job would be its last choice.
static void who_refused_it_is_not_waited_for(void **state)
{
    fixture *f = *state;
    const uint32_t x = decoder(f, 1, 1), other = hello(f, 2, "v", NULL);
    const luna_job_key key = key_of(1, 1), second = key_of(2, 1);
    add(f, 1);
    run(f);
    luna_scheduler_stage(f->scheduler, x, &key, luna_text_of("loading"), f->now_ms);
    f->now_ms += 2000;
    luna_scheduler_stage(f->scheduler, x, &key, luna_text_of("decoding"), f->now_ms);
    failed(f, x, &key, "io");
    add(f, 2);
    run(f);
    luna_scheduler_progress(f->scheduler, x, &second, f->now_ms);
    assert_int_equal(job(f, 2)->session, x);
    tick(f, 1250);
    credit(f, other, 1, 1000);
    run(f);
    assert_int_equal(job(f, 1)->session, other);
}

//  ---- what ends a wait ------------------------------------------------------------

//  Work that cannot be given to the decoder keeps nobody from it.
static void work_without_room_holds_nobody_back(void **state)
{
    fixture *f = *state;
    const uint32_t d = hello(f, 1, NULL, NULL);
    luna_entry entry = entry_of(1);
    add_entry(f, &entry);
    credit(f, d, 3, 1000);
    run(f);
    entry = entry_of(2);
    entry.bytes = 950;
    add_entry(f, &entry);
    entry = entry_of(3);
    entry.vae = luna_text_of("x");
    add_entry(f, &entry);
    run(f);
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_WAITING);
    assert_int_equal(job(f, 3)->session, d);
}

//  The wait of a job that was cancelled is none of a later job's.
static void a_wait_ends_with_the_last_job(void **state)
{
    (void)state;
    for (int idle = 0; idle < 2; idle++) {
        sim *s = new_sim(2000);
        warm_decoder(s, "y", 1);
        if (idle) warm_decoder(s, "z", 1);
        const char *vae = idle ? "y" : "x";
        for (int i = 0; i < (idle ? 1 : 30); i++) sim_add(s, 1, "y", 500);
        if (idle) s->jobs[s->added].service_ms = 20000;
        sim_run_ms(s, 700);
        const uint32_t cancelled = sim_add(s, 2, vae, 500);
        sim_run_ms(s, 1500);
        const luna_id id = id_of(cancelled);
        assert_int_equal(luna_scheduler_cancel(s->f.scheduler, &id), LUNA_OK);
        const uint32_t later = sim_add(s, 2, vae, 500);
        sim_run_ms(s, 5000);
        assert_in_range(waited_ms(s, later), 2000, 2600);
        sim_free(s);
    }
}

//  ---- nothing to lose -----------------------------------------------------------

static void nothing_waits_while_all_is_cold(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    for (int i = 0; i < 8; i++) sim_decoder_add(s, 1);
    for (int i = 0; i < 8; i++) sim_add(s, 1, "x", 500);
    sim_run_ms(s, 20);
    for (uint32_t i = 1; i <= 8; i++) assert_in_range(waited_ms(s, i), 0, 20);
    assert_int_equal(s->begun, 8);
    sim_free(s);
}

//  Of two cold decoders the one that has no VAE, or no work for the one it has.
static void who_has_nothing_to_lose_swaps(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "y", 2);
    sim_decoder *z = warm_decoder(s, "z", 2);
    sim_add(s, 1, "y", 500);
    sim_add(s, 1, "y", 500);
    sim_add(s, 1, "y", 500);
    const uint32_t lone = sim_add(s, 2, "x", 500);
    sim_run_ms(s, 100);
    assert_in_range(waited_ms(s, lone), 0, 50);
    assert_string_equal(z->vae, "x");
    sim_decoder *fresh = sim_decoder_add(s, 2);
    sim_run_ms(s, 10000);
    sim_add(s, 2, "w", 500);
    sim_run_ms(s, 100);
    assert_string_equal(fresh->vae, "w");
    sim_free(s);
}

//  Two decoders are free at the moment when the wait is over: one has its own work.
static void who_has_own_work_swaps_last(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    const sim_decoder *y = warm_decoder(s, "y", 1);
    const sim_decoder *z = warm_decoder(s, "z", 1);
    sim_add(s, 1, "z", 2540);
    for (int i = 0; i < 30; i++) sim_add(s, 1, "y", 500);
    sim_run_ms(s, 20);
    const uint32_t lone = sim_add(s, 2, "x", 500);
    sim_run_ms(s, 5000);
    assert_in_range(waited_ms(s, lone), 2000, 2600);
    assert_string_equal(z->vae, "x");
    assert_string_equal(y->vae, "y");
    sim_free(s);
}

static void two_vaes_share_two_decoders(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder_add(s, 2);
    sim_decoder_add(s, 2);
    add_alternating(s, 100);
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 0);
    sim_free(s);
}

//  ---- learning ------------------------------------------------------------------

static void add_light(sim *s, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        luna_entry entry;
        const uint32_t number = sim_describe(s, 1, i % 2 ? "y" : "x", 500, &entry);
        s->jobs[number].load_ms = 10;
        add_entry(&s->f, &entry);
    }
}

//  Loads turn out to be so short that hardly anything waits for them any more.
static void the_load_is_learned(void **state)
{
    (void)state;
    sim *s = new_sim(60000);
    sim_decoder_add(s, 1);
    add_light(s, 20);
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 1);
    add_light(s, 20);
    sim_run_all(s);
    assert_true(sim_swaps(s) >= 8);
    sim_free(s);
}

//  "loading" is told by every attempt; with the VAE in place it teaches nothing.
static void a_warm_attempt_teaches_no_load(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder *x = warm_decoder(s, "x", 1);
    for (int i = 0; i < 50; i++) sim_add(s, 1, "x", 100);
    sim_run_all(s);
    const luna_decoder *decoder = luna_scheduler_decoder(s->f.scheduler, x->session);
    assert_true(decoder->loaded);
    assert_string_equal(decoder->last_vae, "x");
    sim_add(s, 1, "x", 3000);
    for (int i = 0; i < 8; i++) sim_add(s, 1, "x", 500);
    sim_run_ms(s, 100);
    const uint32_t lone = sim_add(s, 2, "y", 500);
    sim_run_all(s);
    assert_true(waited_ms(s, lone) >= 2000);
    sim_free(s);
}

//  Stages of attempts that are not held, and words nobody knows.
static void strange_stages_are_passed_over(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    add_entry(&s->f, &(luna_entry){.id = id_of(1),
                                   .images = 1,
                                   .vae = luna_text_of("v"),
                                   .place = LUNA_PLACE_WAITING});
    const uint32_t d = decoder(&s->f, 1, 1);
    run(&s->f);
    const luna_job_key key = key_of(1, 1), other = key_of(2, 1), late = key_of(1, 9);
    static const char *const stages[] = {"loading", "decoding", "saved",
                                         "",        "what?",    NULL};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        const luna_text stage = luna_text_of(stages[i]);
        luna_scheduler_stage(s->f.scheduler, d, &other, stage, s->f.now_ms);
        luna_scheduler_stage(s->f.scheduler, d, &late, stage, s->f.now_ms);
        luna_scheduler_stage(s->f.scheduler, d + 1, &key, stage, s->f.now_ms);
        assert_false(luna_scheduler_decoder(s->f.scheduler, d)->loaded);
    }
    luna_scheduler_stage(s->f.scheduler, d, &key, luna_text_of("decoding"), s->f.now_ms);
    assert_true(luna_scheduler_decoder(s->f.scheduler, d)->loaded);
    sim_free(s);
}

//  ---- what is remembered --------------------------------------------------------

//  The same process after a lost connection still has its VAE.
static void a_second_hello_keeps_the_vae(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    sim_decoder *x = warm_decoder(s, "x", 1);
    x->session = hello(&s->f, 1, NULL, NULL);
    const luna_decoder *decoder = luna_scheduler_decoder(s->f.scheduler, x->session);
    assert_string_equal(decoder->last_vae, "x");
    assert_true(decoder->loaded);
    sim_free(s);
}

//  A queue that was forgotten in between is the same VAE all the same.
static void a_vae_is_known_by_its_name(void **state)
{
    (void)state;
    sim *s = new_sim(2000);
    warm_decoder(s, "y", 1);
    sim_decoder *x = warm_decoder(s, "x", 1);
    luna_entry entry = entry_of(3000);
    for (uint32_t i = 0; i < 1024; i++) {
        char vae[32];
        snprintf(vae, sizeof vae, "other%u", i);
        entry.id = id_of(5000 + i);
        entry.vae = luna_text_of(vae);
        entry.place = LUNA_PLACE_STORING;
        add_entry(&s->f, &entry);
    }
    for (uint32_t i = 0; i < 1024; i++) {
        const luna_id id = id_of(5000 + i);
        luna_scheduler_stored(s->f.scheduler, &id, false);
    }
    sim_add(s, 1, "x", 100);
    sim_run_all(s);
    assert_int_equal(sim_swaps(s), 0);
    assert_string_equal(x->vae, "x");
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_swaps_follow_the_order),
        cmocka_unit_test(dear_swaps_are_spared),
        cmocka_unit_test(waiting_costs_no_more_than_twice_the_best),
        cmocka_unit_test(a_vae_that_keeps_losing_gets_its_turn),
        cmocka_unit_test(a_format_that_keeps_losing_gets_its_turn),
        cmocka_unit_test(another_format_is_no_swap),
        cmocka_unit_test(the_more_urgent_job_does_not_wait),
        cmocka_unit_test(a_job_ordered_next_does_not_wait),
        cmocka_unit_test(an_equal_job_does_wait),
        cmocka_unit_test(a_short_wait_is_better_than_a_load),
        cmocka_unit_test(a_result_shows_that_the_vae_is_loaded),
        cmocka_unit_test(a_wait_ends_after_the_time_of_a_load),
        cmocka_unit_test(a_wait_known_to_be_long_is_none),
        cmocka_unit_test(behind_a_long_job_is_no_good_place),
        cmocka_unit_test(a_long_queue_is_worth_a_swap),
        cmocka_unit_test(idle_time_adds_up_over_jobs),
        cmocka_unit_test(who_will_not_take_it_is_not_waited_for),
        cmocka_unit_test_setup_teardown(who_refused_it_is_not_waited_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(work_without_room_holds_nobody_back, setup,
                                        teardown),
        cmocka_unit_test(a_wait_ends_with_the_last_job),
        cmocka_unit_test(nothing_waits_while_all_is_cold),
        cmocka_unit_test(who_has_nothing_to_lose_swaps),
        cmocka_unit_test(who_has_own_work_swaps_last),
        cmocka_unit_test(two_vaes_share_two_decoders),
        cmocka_unit_test(the_load_is_learned),
        cmocka_unit_test(a_warm_attempt_teaches_no_load),
        cmocka_unit_test(strange_stages_are_passed_over),
        cmocka_unit_test(a_second_hello_keeps_the_vae),
        cmocka_unit_test(a_vae_is_known_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
