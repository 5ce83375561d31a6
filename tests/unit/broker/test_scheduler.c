//  The order of jobs and the choice of the decoder.

#include "broker/sched_fixture.h"

static void expect_order(const fixture *f, const uint32_t *numbers, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (f->calls[i].kind != 's') continue;
        assert_true(at < count);
        assert_int_equal(number_of(&f->calls[i].id), numbers[at++]);
    }
    assert_int_equal(at, count);
}

static void first_accepted_goes_first(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 5; i++) add(f, i);
    decoder(f, 1, 5);
    run(f);
    expect_order(f, (uint32_t[]){1, 2, 3, 4, 5}, 5);
}

static void same_millisecond_keeps_the_order_of_entry(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 5; i++) {
        luna_entry entry = entry_of(6 - i);
        entry.accepted_ms = 5000;
        add_entry(f, &entry);
    }
    decoder(f, 1, 5);
    run(f);
    expect_order(f, (uint32_t[]){5, 4, 3, 2, 1}, 5);
}

static void add_with_priority(fixture *f, uint32_t number, uint64_t priority)
{
    luna_entry entry = entry_of(number);
    entry.priority = priority;
    add_entry(f, &entry);
}

static void priority_goes_before_age(void **state)
{
    fixture *f = *state;
    add_with_priority(f, 1, 0);
    add_with_priority(f, 2, 9);
    add_with_priority(f, 3, 5);
    add_with_priority(f, 4, 9);
    decoder(f, 1, 4);
    run(f);
    expect_order(f, (uint32_t[]){2, 4, 3, 1}, 4);
}

static void waiting_is_worth_a_priority(void **state)
{
    (void)state;
    fixture *f = malloc(sizeof *f);
    luna_rules rules = test_rules();
    rules.ageing_ms = 1000;
    open_fixture(f, &rules);
    const struct {
        uint32_t number;
        uint64_t priority;
        int64_t accepted_ms;
    } jobs[] = {{1, 4, 10000}, {2, 5, 10999}, {3, 5, 11001}};
    for (size_t i = 0; i < 3; i++) {
        luna_entry entry = entry_of(jobs[i].number);
        entry.priority = jobs[i].priority;
        entry.accepted_ms = jobs[i].accepted_ms;
        add_entry(f, &entry);
    }
    decoder(f, 1, 3);
    run(f);
    expect_order(f, (uint32_t[]){2, 1, 3}, 3);
    luna_scheduler_free(&f->scheduler);
    free(f);
}

static void a_job_that_is_being_stored_does_not_start(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.place = LUNA_PLACE_STORING;
    add_entry(f, &entry);
    entry.id = id_of(2);
    add_entry(f, &entry);
    decoder(f, 1, 5);
    run(f);
    assert_int_equal(count_of(f, 's'), 0);
    assert_int_equal(luna_scheduler_depth(f->scheduler).storing, 2);
    assert_int_equal(luna_scheduler_depth(f->scheduler).in_progress, 0);
    luna_scheduler_stored(f->scheduler, &entry.id, false);
    assert_null(job(f, 2));
    entry.id = id_of(1);
    luna_scheduler_stored(f->scheduler, &entry.id, true);
    run(f);
    expect_order(f, (uint32_t[]){1}, 1);
}

static void the_same_job_is_known(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const luna_entry entry = entry_of(1);
    assert_int_equal(luna_scheduler_add(f->scheduler, &entry, f->now_ms), LUNA_EXISTS);
    assert_int_equal(luna_scheduler_depth(f->scheduler).pending, 1);
    assert_int_equal(luna_scheduler_depth(f->scheduler).bytes, 100);
}

static void a_job_that_contradicts_itself_is_refused(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.images = 3;
    entry.batches[0] = 4;
    assert_int_equal(luna_scheduler_add(f->scheduler, &entry, f->now_ms),
                     LUNA_BAD_REQUEST);
    entry.batches[0] = 3;
    entry.priority = 10;
    assert_int_equal(luna_scheduler_add(f->scheduler, &entry, f->now_ms),
                     LUNA_BAD_REQUEST);
    entry = entry_of(1);
    entry.images = UINT64_MAX;
    assert_int_equal(luna_scheduler_add(f->scheduler, &entry, f->now_ms),
                     LUNA_BAD_REQUEST);
    assert_null(job(f, 1));
    assert_int_equal(luna_scheduler_client(f->scheduler, &entry.client).jobs, 0);
}

static luna_usage usage(const fixture *f, uint32_t client)
{
    const luna_id id = id_of(client);
    return luna_scheduler_client(f->scheduler, &id);
}

//  From being stored to the durable end.
static void clients_are_counted(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 9; i++) {
        luna_entry entry = entry_of(i);
        entry.client = id_of(i % 2);
        entry.place = i < 9 ? LUNA_PLACE_WAITING : LUNA_PLACE_STORING;
        add_entry(f, &entry);
    }
    const luna_id nine = id_of(9);
    assert_int_equal(usage(f, 1).jobs, 5);
    assert_int_equal(usage(f, 1).bytes, 500);
    assert_int_equal(usage(f, 0).jobs, 4);
    assert_int_equal(usage(f, 2).jobs, 0);
    luna_scheduler_stored(f->scheduler, &nine, false);
    assert_int_equal(usage(f, 1).jobs, 4);
    const uint32_t d = decoder(f, 1, 9);
    run(f);
    for (uint32_t i = 1; i <= 8; i++) done(f, d, i, 1);
    assert_int_equal(usage(f, 1).jobs, 4);
    for (uint32_t i = 1; i <= 8; i++) {
        const luna_id id = id_of(i);
        luna_scheduler_ended(f->scheduler, &id);
    }
    assert_int_equal(usage(f, 1).jobs + usage(f, 0).jobs, 0);
    assert_int_equal(usage(f, 1).bytes + usage(f, 0).bytes, 0);
}

static void an_absent_vae_is_one_vae(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 2000; i++) {
        luna_entry entry = entry_of(i);
        entry.vae = (luna_text){0};
        add_entry(f, &entry);
    }
    assert_string_equal(luna_job_vae(job(f, 7)), "");
}

static void credit_counts_jobs(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 4; i++) add(f, i);
    const uint32_t d = decoder(f, 1, 2);
    run(f);
    expect_order(f, (uint32_t[]){1, 2}, 2);
    done(f, d, 1, 1);
    run(f);
    expect_order(f, (uint32_t[]){1, 2, 3}, 3);
    credit(f, d, 0, 1000);
    done(f, d, 2, 1);
    done(f, d, 3, 1);
    run(f);
    assert_int_equal(count_of(f, 's'), 3);
}

static void credit_counts_bytes(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 4; i++) add(f, i);
    const uint32_t d = decoder(f, 1, 10);
    credit(f, d, 10, 250);
    run(f);
    expect_order(f, (uint32_t[]){1, 2}, 2);
    done(f, d, 2, 1);
    run(f);
    expect_order(f, (uint32_t[]){1, 2, 3}, 3);
}

static void a_job_beyond_the_credit_goes_to_an_idle_decoder(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(2);
    entry.bytes = 5000;
    add(f, 1);
    add_entry(f, &entry);
    add(f, 3);
    const uint32_t d = decoder(f, 1, 10);
    credit(f, d, 10, 1000);
    run(f);
    expect_order(f, (uint32_t[]){1}, 1);  //  2 waits for idleness, 3 does not pass it
    done(f, d, 1, 1);
    run(f);
    expect_order(f, (uint32_t[]){1, 2}, 2);
    done(f, d, 2, 1);
    run(f);
    expect_order(f, (uint32_t[]){1, 2, 3}, 3);
}

static void no_credit_before_ready(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = hello(f, 1, "v", NULL);
    run(f);
    assert_int_equal(count_of(f, 's'), 0);
    credit(f, d, 1, 0);
    run(f);
    assert_int_equal(last(f, 's')->session, d);
}

static void add_for_vae(fixture *f, uint32_t number, const char *vae)
{
    luna_entry entry = entry_of(number);
    entry.vae = luna_text_of(vae);
    add_entry(f, &entry);
}

static void the_decoder_that_has_the_vae_goes_first(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello(f, 1, NULL, NULL);
    const uint32_t b = hello(f, 2, NULL, NULL);
    credit(f, a, 1, 1000);
    add_for_vae(f, 1, "x");
    run(f);
    credit(f, a, 0, 1000);
    credit(f, b, 1, 1000);
    add_for_vae(f, 2, "y");
    run(f);
    assert_int_equal(last(f, 's')->session, b);
    credit(f, a, 9, 1000);
    credit(f, b, 9, 1000);
    add_for_vae(f, 3, "y");
    run(f);
    assert_int_equal(last(f, 's')->session, b);
    add_for_vae(f, 4, "x");
    run(f);
    assert_int_equal(last(f, 's')->session, a);
}

static void the_idler_of_two_equal_decoders_goes_first(void **state)
{
    fixture *f = *state;
    const uint32_t a = decoder(f, 1, 4), b = decoder(f, 2, 4);
    for (uint32_t i = 1; i <= 4; i++) {
        add(f, i);
        run(f);
    }
    const luna_decoder *one = luna_scheduler_decoder(f->scheduler, a);
    const luna_decoder *two = luna_scheduler_decoder(f->scheduler, b);
    //  The first job warms one of them, which is preferred until it is full.
    assert_int_equal(one->hold_count + two->hold_count, 4);
    for (uint32_t i = 5; i <= 8; i++) {
        add(f, i);
        run(f);
    }
    assert_int_equal(one->hold_count, 4);
    assert_int_equal(two->hold_count, 4);
}

static void only_who_lists_the_vae_is_asked(void **state)
{
    fixture *f = *state;
    const uint32_t x = hello(f, 1, "x", NULL), y = hello(f, 2, "y", NULL);
    credit(f, x, 4, 1000);
    credit(f, y, 1, 1000);
    add_for_vae(f, 1, "y");
    add_for_vae(f, 2, "y");
    add_for_vae(f, 3, "x");
    run(f);
    //  2 waits for y although x is free, and 3 is not held up by it.
    expect_order(f, (uint32_t[]){1, 3}, 2);
    assert_int_equal(f->calls[0].session, y);
    assert_int_equal(f->calls[1].session, x);
}

static void a_lost_decoder_is_waited_for_a_while(void **state)
{
    fixture *f = *state;
    const uint32_t x = hello(f, 1, "x", NULL), y = hello(f, 2, "y", NULL);
    credit(f, x, 4, 1000);
    credit(f, y, 4, 1000);
    luna_scheduler_disconnected(f->scheduler, y, f->now_ms);
    tick(f, 200);
    assert_int_equal(last(f, 'o')->session, y);
    add_for_vae(f, 1, "y");
    run(f);
    assert_int_equal(count_of(f, 's'), 0);
    for (int i = 0; i < 7; i++) {
        luna_scheduler_seen(f->scheduler, x, NULL, f->now_ms);
        tick(f, 9000);
    }
    run(f);
    assert_int_equal(last(f, 's')->session, x);
}

static void nobody_lists_it_so_anybody_may_try(void **state)
{
    fixture *f = *state;
    const uint32_t x = hello(f, 1, "x", NULL);
    credit(f, x, 4, 1000);
    add_for_vae(f, 1, "/models/other.safetensors");
    run(f);
    assert_int_equal(last(f, 's')->session, x);
}

static void add_formats(fixture *f, uint32_t number, const char *formats)
{
    luna_entry entry = entry_of(number);
    entry.formats = luna_formats_parse(luna_text_of(formats));
    add_entry(f, &entry);
}

static void only_who_writes_the_formats_is_asked(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello_formats(f, 1, "v", "png webp jpeg", NULL);
    const uint32_t b = hello_formats(f, 2, "v", "png webp jpeg avif", NULL);
    credit(f, a, 4, 1000);
    credit(f, b, 1, 1000);
    add_formats(f, 1, "avif png");
    add_formats(f, 2, "avif");
    add_formats(f, 3, "png");
    run(f);
    //  2 waits for b although a is free, and 3 is not held up by it.
    expect_order(f, (uint32_t[]){1, 3}, 2);
    assert_int_equal(f->calls[0].session, b);
    assert_int_equal(f->calls[1].session, a);
    done(f, b, 1, 1);
    run(f);
    assert_int_equal(last(f, 's')->session, b);
    assert_int_equal(number_of(&last(f, 's')->id), 2);
}

//  A decoder of a version that does not tell its formats may have any.
static void who_tells_no_formats_is_asked_too(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello_formats(f, 1, "v", "png", NULL);
    const uint32_t b = hello(f, 2, "v", NULL);
    credit(f, a, 4, 1000);
    credit(f, b, 4, 1000);
    add_formats(f, 1, "jxl");
    run(f);
    assert_int_equal(last(f, 's')->session, b);
}

static void a_lost_writer_is_waited_for_a_while(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello_formats(f, 1, "v", "png", NULL);
    const uint32_t b = hello_formats(f, 2, "v", "png jxl", NULL);
    credit(f, a, 4, 1000);
    credit(f, b, 4, 1000);
    luna_scheduler_disconnected(f->scheduler, b, f->now_ms);
    tick(f, 200);
    add_formats(f, 1, "jxl");
    run(f);
    assert_int_equal(count_of(f, 's'), 0);
    const uint32_t again = hello_formats(f, 2, "v", "png jxl", NULL);
    credit(f, again, 4, 1000);
    run(f);
    assert_int_equal(last(f, 's')->session, again);
    luna_scheduler_bye(f->scheduler, again, f->now_ms);
    for (int i = 0; i < 7; i++) {
        luna_scheduler_seen(f->scheduler, a, NULL, f->now_ms);
        tick(f, 9000);
    }
    run(f);
    assert_int_equal(last(f, 's')->session, a);  //  which will say what it lacks
}

//  Those that list the VAE are asked first: who does not list it may not have it.
static void the_vae_goes_before_the_formats(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello_formats(f, 1, "v", "png", NULL);
    const uint32_t b = hello_formats(f, 2, "x", "png avif", NULL);
    credit(f, a, 4, 1000);
    credit(f, b, 4, 1000);
    add_formats(f, 1, "avif");
    run(f);
    assert_int_equal(last(f, 's')->session, a);
}

static void too_many_vaes_are_refused(void **state)
{
    fixture *f = *state;
    char vae[32];
    for (uint32_t i = 0; i < 1024; i++) {
        snprintf(vae, sizeof vae, "vae%u", i);
        add_for_vae(f, i, vae);
    }
    luna_entry entry = entry_of(5000);
    entry.vae = luna_text_of("one more");
    assert_int_equal(luna_scheduler_add(f->scheduler, &entry, f->now_ms), LUNA_BUSY);
    assert_null(job(f, 5000));
    add_for_vae(f, 5001, "vae7");
    const luna_id id = id_of(3);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_OK);
    luna_scheduler_ended(f->scheduler, &id);
    add_entry(f, &entry);
}

static void positions_count_who_goes_before(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 1; i <= 3; i++) add(f, i);
    add_with_priority(f, 4, 9);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 4)), 0);
    assert_int_equal(luna_scheduler_ahead(f->scheduler, job(f, 3)), 3);
    assert_int_equal(luna_scheduler_backlog(f->scheduler, 5), 4);
    assert_int_equal(luna_scheduler_backlog(f->scheduler, 6), 1);
    assert_int_equal(luna_scheduler_oldest(f->scheduler), 1001);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(first_accepted_goes_first),
        TEST(same_millisecond_keeps_the_order_of_entry),
        TEST(priority_goes_before_age),
        cmocka_unit_test(waiting_is_worth_a_priority),
        TEST(a_job_that_is_being_stored_does_not_start),
        TEST(the_same_job_is_known),
        TEST(a_job_that_contradicts_itself_is_refused),
        TEST(clients_are_counted),
        TEST(an_absent_vae_is_one_vae),
        TEST(credit_counts_jobs),
        TEST(credit_counts_bytes),
        TEST(a_job_beyond_the_credit_goes_to_an_idle_decoder),
        TEST(no_credit_before_ready),
        TEST(the_decoder_that_has_the_vae_goes_first),
        TEST(the_idler_of_two_equal_decoders_goes_first),
        TEST(only_who_lists_the_vae_is_asked),
        TEST(a_lost_decoder_is_waited_for_a_while),
        TEST(nobody_lists_it_so_anybody_may_try),
        TEST(only_who_writes_the_formats_is_asked),
        TEST(who_tells_no_formats_is_asked_too),
        TEST(a_lost_writer_is_waited_for_a_while),
        TEST(the_vae_goes_before_the_formats),
        TEST(too_many_vaes_are_refused),
        TEST(positions_count_who_goes_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
