//  The attempts in hand: cancels that come first, duplicates, what is told and when.

#include "kit.h"

#include <pthread.h>
#include <stdatomic.h>

static luna_err add(luna_attempts *attempts, uint8_t id, uint64_t number, int64_t now_ms)
{
    const luna_msg_work fields = work_fields(id_of(id), number);
    luna_work *work = open_work(&fields);
    return luna_attempts_add(attempts, &work, now_ms);
}

static int setup(void **state)
{
    luna_attempts *attempts = NULL;
    assert_int_equal(luna_attempts_new(&attempts), LUNA_OK);
    *state = attempts;
    return 0;
}

static int teardown(void **state)
{
    luna_attempts *attempts = *state;
    luna_attempts_free(&attempts);
    return 0;
}

//  A fresh one.
static luna_attempt *take(luna_attempts *attempts)
{
    luna_parking *parking = NULL;
    luna_attempt *attempt = luna_attempts_take(attempts, &parking);
    assert_null(parking);
    return attempt;
}

static void save(luna_attempt *attempt, uint64_t index)
{
    luna_image_record record = {
        .key = {id_of(1), 0, index}, .bytes = 7, .width = 8, .height = 9};
    const luna_timings timings = {1, 2, 3};
    snprintf(record.path, sizeof record.path, "/out/%d.png", (int)index);
    memset(record.sha256, 'a', 64);
    assert_int_equal(luna_attempt_saved(attempt, &record, &timings), LUNA_OK);
}

static void expect_stage(luna_attempts *attempts, const char *stage, size_t images)
{
    report told;
    assert_true(next_report(attempts, &told));
    assert_int_equal(told.type, LUNA_MSG_PROGRESS);
    assert_true(luna_text_is(told.progress.stage, stage));
    assert_int_equal(told.progress.images.count, images);
    close_report(&told);
}

static void expect_end(luna_attempts *attempts, luna_msg_type type)
{
    report told;
    assert_true(next_report(attempts, &told));
    assert_int_equal(told.type, type);
    close_report(&told);
}

static void expect_silence(luna_attempts *attempts)
{
    report told;
    assert_false(next_report(attempts, &told));
}

//  Runs attempt (1, number) to its end with `images` saved of `expected`.
static void run(luna_attempts *attempts, size_t images, size_t expected)
{
    luna_attempt *attempt = take(attempts);
    assert_non_null(attempt);
    assert_int_equal(luna_attempt_expect(attempt, expected), LUNA_OK);
    for (size_t i = 0; i < images; i++) save(attempt, i);
    luna_attempt_release(&attempt);
}

static void progress_then_done_with_every_image(void **state)
{
    luna_attempts *attempts = *state;
    assert_int_equal(add(attempts, 1, 3, 0), LUNA_OK);
    expect_stage(attempts, "received", 0);
    expect_silence(attempts);
    luna_attempt *attempt = take(attempts);
    assert_int_equal(luna_attempt_expect(attempt, 2), LUNA_OK);
    assert_int_equal(luna_attempt_vae(attempt, "flux", "/m/ae.safetensors"), LUNA_OK);
    luna_attempt_stage(attempt, "decoding");
    expect_stage(attempts, "decoding", 0);
    save(attempt, 1);
    expect_stage(attempts, "saved", 1);
    save(attempt, 0);
    luna_attempt_release(&attempt);
    expect_stage(attempts, "saved", 1);
    report told;
    assert_true(next_report(attempts, &told));
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(told.done.attempt, 3);
    assert_int_equal(told.done.images.count, 2);
    assert_true(luna_text_is(told.done.vae, "flux"));
    assert_int_equal(told.done.images.items[0].index, 1);
    assert_true(luna_text_is(told.done.images.items[0].path, "/out/1.png"));
    assert_true(told.done.images.items[0].write_ms > 2.9);
    close_report(&told);
    expect_silence(attempts);
}

static void the_first_failure_counts(void **state)
{
    luna_attempts *attempts = *state;
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    luna_attempt *attempt = take(attempts);
    assert_false(luna_attempt_is_over(attempt));
    luna_attempt_fail(attempt, luna_error(LUNA_NO_SPACE, "the disk is full"));
    luna_attempt_fail(attempt, luna_error(LUNA_IO, "another"));
    assert_true(luna_attempt_is_over(attempt));
    luna_attempt_release(&attempt);
    expect_stage(attempts, "received", 0);
    report told;
    assert_true(next_report(attempts, &told));
    assert_int_equal(told.type, LUNA_MSG_FAILED);
    assert_true(luna_text_is(told.failed.error, "no_space"));
    assert_true(luna_text_is(told.failed.detail, "the disk is full"));
    assert_true(told.failed.retry);
    close_report(&told);
}

static void an_attempt_ends_with_its_last_holder(void **state)
{
    luna_attempts *attempts = *state;
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    expect_stage(attempts, "received", 0);
    luna_attempt *attempt = take(attempts), *second = attempt;
    assert_int_equal(luna_attempt_expect(attempt, 0), LUNA_OK);
    luna_attempt_hold(second);
    luna_attempt_release(&attempt);
    expect_silence(attempts);
    assert_int_equal(luna_attempts_count(attempts).running, 1);
    luna_attempt_release(&second);
    assert_int_equal(luna_attempts_count(attempts).untold, 1);
    expect_end(attempts, LUNA_MSG_DONE);
}

static void a_cancel_may_come_first(void **state)
{
    luna_attempts *attempts = *state;
    const luna_id id = id_of(1);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id, 0}, 1000);
    assert_int_equal(add(attempts, 1, 1, 1500), LUNA_CANCELLED);
    assert_int_equal(luna_attempts_count(attempts).waiting, 0);
    //  It is used up: the job may be tried again on purpose.
    assert_int_equal(add(attempts, 1, 2, 1600), LUNA_OK);
    expect_stage(attempts, "received", 0);
}

static void an_old_cancel_is_forgotten(void **state)
{
    luna_attempts *attempts = *state;
    const luna_id id = id_of(1);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id, 0}, 1000);
    assert_int_equal(add(attempts, 1, 1, 1000 + LUNA_CANCEL_MEMORY_MS), LUNA_OK);
}

static void a_late_cancel_spares_newer_attempts(void **state)
{
    luna_attempts *attempts = *state;
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(1), 1}, 1000);
    assert_int_equal(add(attempts, 1, 1, 1001), LUNA_CANCELLED);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(2), 1}, 1000);
    assert_int_equal(add(attempts, 2, 2, 1001), LUNA_OK);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(2), 1}, 1002);
    assert_int_equal(luna_attempts_count(attempts).waiting, 1);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(2), 2}, 1003);
    assert_int_equal(luna_attempts_count(attempts).waiting, 0);
}

static void cancels_are_bounded(void **state)
{
    luna_attempts *attempts = *state;
    const luna_id first = id_of(1), last = id_of(2);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){first, 0}, 1000);
    for (int i = 0; i < LUNA_CANCELS_MAX - 1; i++)
        luna_attempts_cancel(attempts, &(luna_msg_job_key){{{9, (uint8_t)i}}, 0}, 1000);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){last, 0}, 1000);
    assert_int_equal(add(attempts, 1, 1, 1001), LUNA_OK);
    assert_int_equal(add(attempts, 2, 1, 1001), LUNA_CANCELLED);
}

static void cancel(luna_attempts *attempts)
{
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(1), 0}, 1);
}

static luna_attempt *begin(luna_attempts *attempts)
{
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    luna_attempt *attempt = take(attempts);
    assert_int_equal(luna_attempt_expect(attempt, 2), LUNA_OK);
    return attempt;
}

static void a_cancelled_attempt_has_no_end_to_tell(void **state)
{
    luna_attempts *attempts = *state;
    luna_attempt *attempt = begin(attempts);
    cancel(attempts);
    assert_true(luna_attempt_is_over(attempt));
    assert_true(luna_attempt_is_cancelled(attempt));
    assert_int_equal(luna_attempts_count(attempts).running, 1);
    luna_attempt_release(&attempt);
    assert_int_equal(luna_attempts_count(attempts).running, 0);
    expect_silence(attempts);
}

//  A picture may be on its way to the disk when the cancel comes.
static void a_cancelled_attempt_tells_what_it_saved(void **state)
{
    luna_attempts *attempts = *state;
    luna_attempt *attempt = begin(attempts);
    save(attempt, 0);
    cancel(attempts);
    save(attempt, 1);
    luna_attempt_release(&attempt);
    expect_stage(attempts, "saved", 2);
    expect_silence(attempts);
    luna_attempts_retell(attempts);
    expect_stage(attempts, "saved", 2);
    expect_silence(attempts);
}

static void what_an_ended_attempt_saved_is_told_though_cancelled(void **state)
{
    luna_attempts *attempts = *state;
    luna_attempt *attempt = begin(attempts);
    save(attempt, 0);
    save(attempt, 1);
    luna_attempt_release(&attempt);
    cancel(attempts);
    expect_stage(attempts, "saved", 2);
    expect_silence(attempts);
    assert_int_equal(luna_attempts_count(attempts).untold, 0);
}

static void a_waiting_attempt_is_cancelled_at_once(void **state)
{
    luna_attempts *attempts = *state;
    const luna_id id = id_of(1);
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id, 0}, 1);
    assert_int_equal(luna_attempts_count(attempts).waiting, 0);
    expect_silence(attempts);
}

static void a_duplicate_is_dropped_and_a_newer_attempt_wins(void **state)
{
    luna_attempts *attempts = *state;
    luna_msg_job_key keys[4];
    assert_int_equal(add(attempts, 1, 2, 0), LUNA_OK);
    assert_int_equal(add(attempts, 1, 2, 0), LUNA_EXISTS);
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_EXISTS);
    luna_attempt *old = take(attempts);
    assert_int_equal(add(attempts, 1, 3, 0), LUNA_OK);
    assert_true(luna_attempt_is_over(old));
    assert_int_equal(luna_attempts_list(attempts, keys, 4), 1);
    assert_int_equal(keys[0].attempt, 3);
    luna_attempt_release(&old);
    expect_stage(attempts, "received", 0);
    run(attempts, 1, 1);
    expect_stage(attempts, "saved", 1);
    expect_end(attempts, LUNA_MSG_DONE);
}

static void what_was_told_is_told_again_until_it_was_read(void **state)
{
    luna_attempts *attempts = *state;
    luna_msg_job_key key;
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    expect_stage(attempts, "received", 0);
    luna_attempts_ping(attempts);
    run(attempts, 1, 1);
    expect_stage(attempts, "saved", 1);
    expect_end(attempts, LUNA_MSG_DONE);
    //  The pong of the ping before the done proves nothing.
    luna_attempts_confirm(attempts);
    assert_int_equal(luna_attempts_list(attempts, &key, 1), 1);
    luna_attempts_retell(attempts);
    expect_stage(attempts, "saved", 1);
    expect_end(attempts, LUNA_MSG_DONE);
    luna_attempts_ping(attempts);
    luna_attempts_confirm(attempts);
    assert_int_equal(luna_attempts_list(attempts, &key, 1), 0);
    luna_attempts_retell(attempts);
    expect_silence(attempts);
}

static void a_stop_gives_back_what_is_not_whole(void **state)
{
    luna_attempts *attempts = *state;
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    assert_int_equal(add(attempts, 2, 1, 0), LUNA_OK);
    luna_attempt *attempt = take(attempts);
    assert_int_equal(luna_attempt_expect(attempt, 2), LUNA_OK);
    luna_attempts_stop(attempts);
    assert_true(luna_attempt_is_over(attempt));
    assert_false(luna_attempt_is_cancelled(attempt));
    save(attempt, 0);
    luna_attempt_release(&attempt);
    assert_null(take(attempts));
    expect_stage(attempts, "saved", 1);
    expect_stage(attempts, "received", 0);
    expect_silence(attempts);
    assert_int_equal(luna_attempts_count(attempts).running, 0);
}

static void a_record_the_wire_refuses_fails_the_attempt(void **state)
{
    luna_attempts *attempts = *state;
    luna_image_record record = {.key = {id_of(1), 99, 0}, .path = "/out/x.png"};
    const luna_timings timings = {0};
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    expect_stage(attempts, "received", 0);
    luna_attempt *attempt = take(attempts);
    assert_int_equal(luna_attempt_expect(attempt, 1), LUNA_OK);
    memset(record.sha256, 'a', 64);
    assert_int_equal(luna_attempt_saved(attempt, &record, &timings), LUNA_OK);
    assert_int_equal(luna_attempt_saved(attempt, &record, &timings), LUNA_INTERNAL);
    luna_attempt_release(&attempt);
    expect_end(attempts, LUNA_MSG_FAILED);
    expect_silence(attempts);
}

static void too_many_are_refused(void **state)
{
    luna_attempts *attempts = *state;
    for (int i = 0; i < LUNA_ATTEMPTS_MAX; i++) {
        const luna_id id = {{1, (uint8_t)(i >> 8), (uint8_t)i}};
        const luna_msg_work fields = work_fields(id, 1);
        luna_work *work = open_work(&fields);
        assert_int_equal(luna_attempts_add(attempts, &work, 0), LUNA_OK);
    }
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_BUSY);
}

//  ---- parked ------------------------------------------------------------------------

typedef struct wait {
    luna_parking parking;
    bool over;
} wait;

static bool is_over(const luna_parking *parking)
{
    return ((const wait *)parking)->over;
}

static luna_attempt *park_first(luna_attempts *attempts, wait *why)
{
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    luna_attempt *attempt = take(attempts);
    luna_attempt_park(attempt, &why->parking);
    return attempt;
}

static void expect_parked(luna_attempts *attempts, luna_attempt *wanted, wait *why)
{
    luna_parking *parking = NULL;
    luna_attempt *attempt = luna_attempts_take(attempts, &parking);
    assert_ptr_equal(attempt, wanted);
    assert_ptr_equal(parking, &why->parking);
    assert_int_equal(luna_attempts_count(attempts).parked, 0);
}

//  It lets a younger one go first, and is first again when its wait is over.
static void a_parked_one_stands_aside(void **state)
{
    luna_attempts *attempts = *state;
    wait why = {.parking = {is_over}};
    luna_attempt *parked = park_first(attempts, &why);
    assert_int_equal(add(attempts, 2, 1, 0), LUNA_OK);
    assert_int_equal(add(attempts, 3, 1, 0), LUNA_OK);
    assert_int_equal(luna_attempts_count(attempts).parked, 1);
    assert_int_equal(luna_attempts_count(attempts).running, 1);
    luna_attempt *second = take(attempts);
    assert_int_equal(luna_work_message(luna_attempt_work(second))->id.byte[15], 2);
    why.over = true;
    expect_parked(attempts, parked, &why);
    luna_attempt *third = take(attempts);
    assert_int_equal(luna_work_message(luna_attempt_work(third))->id.byte[15], 3);
    luna_attempt_release(&parked);
    luna_attempt_release(&second);
    luna_attempt_release(&third);
}

static void a_cancelled_or_stopped_one_comes_at_once(void **state)
{
    luna_attempts *attempts = *state;
    wait why = {.parking = {is_over}};
    luna_attempt *parked = park_first(attempts, &why);
    luna_attempts_cancel(attempts, &(luna_msg_job_key){id_of(1), 1}, 0);
    expect_parked(attempts, parked, &why);
    assert_true(luna_attempt_is_cancelled(parked));
    luna_attempt_release(&parked);
    assert_int_equal(luna_attempts_count(attempts).running, 0);
    luna_attempt *again = NULL;
    assert_int_equal(add(attempts, 2, 1, 0), LUNA_OK);
    again = take(attempts);
    luna_attempt_park(again, &why.parking);
    assert_int_equal(add(attempts, 3, 1, 0), LUNA_OK);
    luna_attempts_stop(attempts);
    expect_parked(attempts, again, &why);
    luna_attempt_release(&again);
    assert_null(take(attempts));
    //  The stopped one was not ended: it is given back.
    luna_msg_job_key held[4];
    assert_int_equal(luna_attempts_list(attempts, held, 4), 2);
}

typedef struct watched {
    luna_parking parking;
    luna_attempts *attempts;
    atomic_int looks;
    atomic_bool over;
} watched;

static bool watched_is_over(const luna_parking *parking)
{
    watched *why = (watched *)(uintptr_t)parking;
    const bool over = atomic_load(&why->over);
    atomic_fetch_add(&why->looks, 1);
    return over;
}

//  After the first look, with the taker about to wait.
static void *wake(void *context)
{
    watched *why = context;
    while (atomic_load(&why->looks) == 0) usleep(1000);
    atomic_store(&why->over, true);
    luna_attempts_wake(why->attempts);
    return NULL;
}

static void a_wake_makes_the_taker_look_again(void **state)
{
    luna_attempts *attempts = *state;
    watched why = {.parking = {watched_is_over}, .attempts = attempts};
    pthread_t thread;
    luna_parking *parking = NULL;
    assert_int_equal(add(attempts, 1, 1, 0), LUNA_OK);
    luna_attempt *parked = take(attempts);
    luna_attempt_park(parked, &why.parking);
    assert_int_equal(pthread_create(&thread, NULL, wake, &why), 0);
    assert_ptr_equal(luna_attempts_take(attempts, &parking), parked);
    assert_int_equal(atomic_load(&why.looks), 2);
    pthread_join(thread, NULL);
    luna_attempt_release(&parked);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(progress_then_done_with_every_image),
        T(the_first_failure_counts),
        T(an_attempt_ends_with_its_last_holder),
        T(a_cancel_may_come_first),
        T(an_old_cancel_is_forgotten),
        T(a_late_cancel_spares_newer_attempts),
        T(cancels_are_bounded),
        T(a_cancelled_attempt_has_no_end_to_tell),
        T(a_cancelled_attempt_tells_what_it_saved),
        T(what_an_ended_attempt_saved_is_told_though_cancelled),
        T(a_waiting_attempt_is_cancelled_at_once),
        T(a_duplicate_is_dropped_and_a_newer_attempt_wins),
        T(what_was_told_is_told_again_until_it_was_read),
        T(a_stop_gives_back_what_is_not_whole),
        T(a_record_the_wire_refuses_fails_the_attempt),
        T(too_many_are_refused),
        T(a_parked_one_stands_aside),
        T(a_cancelled_or_stopped_one_comes_at_once),
        T(a_wake_makes_the_taker_look_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
