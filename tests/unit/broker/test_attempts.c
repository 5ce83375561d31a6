//  What becomes of attempts: leases, loss, refusal, fencing, cancel, restart.

#include "broker/sched_fixture.h"

static void expect_end(const fixture *f, uint32_t number, luna_job_state end,
                       const char *error)
{
    const call *finish = last(f, 'f');
    assert_int_equal(number_of(&finish->id), number);
    assert_int_equal(finish->state, end);
    assert_string_equal(finish->error, error);
    assert_int_equal(job(f, number)->place, LUNA_PLACE_ENDING);
    luna_scheduler_ended(f->scheduler, &finish->id);
    assert_null(job(f, number));
}

static void done_completes(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(job(f, 1)->started_ms, 77);
    done(f, d, 1, 1);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
    assert_int_equal(luna_scheduler_depth(f->scheduler).bytes, 0);
}

static void done_without_every_image_is_refused(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.images = 3;
    add_entry(f, &entry);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key key = key_of(1, 1);
    assert_int_equal(save(f, d, &key, 0), 1);
    assert_int_equal(save(f, d, &key, 2), 1);
    assert_int_equal(save(f, d, &key, 2), 0);  //  again: nothing new
    assert_int_equal(save(f, d, &key, 3), 0);  //  beyond the batch
    luna_scheduler_done(f->scheduler, d, &key, f->now_ms);
    assert_string_equal(last(f, 'g')->error, "protocol");
    assert_int_equal(job(f, 1)->refused, 1);
    tick(f, 2000);
    run(f);
    assert_int_equal(job(f, 1)->attempts, 2);
    assert_true(luna_job_image_saved(job(f, 1), 0, 2));
    assert_false(luna_job_image_saved(job(f, 1), 0, 1));
    const luna_job_key second = key_of(1, 2);
    save(f, d, &second, 1);
    luna_scheduler_done(f->scheduler, d, &second, f->now_ms);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
}

static void images_of_several_inputs_are_told_apart(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.images = 2;
    const luna_msg_image known = {.input = 1, .index = 0};
    entry.saved = &known;
    entry.saved_count = 1;
    add_entry(f, &entry);
    assert_int_equal(job(f, 1)->images_done, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    done(f, d, 1, 1);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
}

//  A picture of another place is no picture of the job: it cannot complete it.
static void a_picture_outside_the_batches_counts_for_nothing(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.images = 3;
    entry.batches[0] = 1;
    entry.batches[1] = 2;
    add_entry(f, &entry);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key key = key_of(1, 1);
    const luna_msg_image images[] = {{.input = 0, .index = 0},
                                     {.input = 0, .index = 1},
                                     {.input = 0, .index = 2},
                                     {.input = 2, .index = 0},
                                     {.input = 1, .index = 1}};
    assert_int_equal(luna_scheduler_images(f->scheduler, d, &key, images, 5), 2);
    luna_scheduler_done(f->scheduler, d, &key, f->now_ms);
    assert_string_equal(last(f, 'g')->error, "protocol");
}

static void a_disconnect_gives_back_after_the_grace(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    luna_scheduler_disconnected(f->scheduler, d, f->now_ms);
    add(f, 2);
    tick(f, 199);
    assert_int_equal(count_of(f, 'o'), 0);
    tick(f, 1);
    assert_int_equal(last(f, 'o')->session, d);
    assert_int_equal(job(f, 1)->lost, 1);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
    decoder(f, 2, 1);
    run(f);
    //  Back in its old place: before 2.
    assert_int_equal(number_of(&last(f, 's')->id), 1);
    assert_int_equal(last(f, 's')->attempt, 2);
}

static void a_done_within_the_grace_counts(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    luna_scheduler_disconnected(f->scheduler, d, f->now_ms);
    f->now_ms += 100;
    done(f, d, 1, 1);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
    tick(f, 100);
    assert_int_equal(count_of(f, 'g'), 0);
}

static void what_was_not_sent_is_not_counted(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    luna_scheduler_disconnected(f->scheduler, d, f->now_ms);
    const luna_job_key key = key_of(1, 1);
    assert_int_equal(luna_scheduler_started(f->scheduler, &key, 77, f->now_ms), 0);
    tick(f, 200);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
    assert_int_equal(job(f, 1)->lost, 0);
    assert_int_equal(job(f, 1)->attempts, 1);
}

static void bye_gives_back_and_counts_nothing(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    luna_scheduler_bye(f->scheduler, d, f->now_ms);
    assert_int_equal(last(f, 'o')->session, d);
    assert_int_equal(job(f, 1)->lost, 0);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
}

static void silence_loses_the_decoder(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    f->now_ms += 6000;
    luna_scheduler_seen(f->scheduler, d, NULL, f->now_ms);
    tick(f, 3999);
    assert_int_equal(job(f, 1)->lost, 0);
    tick(f, 1);  //  the lease ends, but the decoder lives
    assert_int_equal(job(f, 1)->lost, 1);
    assert_int_equal(count_of(f, 'o'), 0);
    tick(f, 6000);
    assert_int_equal(last(f, 'o')->session, d);
    assert_null(luna_scheduler_decoder(f->scheduler, d));
}

static void a_pause_of_the_broker_is_nobodys_silence(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const uint32_t d = decoder(f, 1, 2), refuser = decoder(f, 2, 1);
    run(f);
    const luna_job_key key = key_of(2, 1);
    failed(f, job(f, 2)->session, &key, "io");
    (void)refuser;
    luna_scheduler_slept(f->scheduler, 100000);
    tick(f, 100000 + 999);
    assert_int_equal(count_of(f, 'o'), 0);
    assert_int_equal(job(f, 1)->session, d);
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_DEFERRED);
    tick(f, 9001);
    assert_int_equal(job(f, 1)->lost, 1);
}

static void progress_renews_the_lease(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key key = key_of(1, 1);
    for (int i = 0; i < 5; i++) {
        tick(f, 9999);
        luna_scheduler_seen(f->scheduler, d, NULL, f->now_ms);
        assert_true(luna_scheduler_progress(f->scheduler, d, &key, f->now_ms));
    }
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
}

static void ping(fixture *f, uint32_t session, uint64_t running, uint64_t ticks)
{
    luna_scheduler_seen(f->scheduler, session,
                        &(luna_msg_ping){.running = running, .ticks = ticks}, f->now_ms);
}

//  The second job waits behind the first one in the decoder and makes no progress of
//  its own.
static void a_working_loop_renews_all_its_jobs(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const uint32_t d = decoder(f, 1, 2);
    run(f);
    for (uint64_t i = 1; i <= 4; i++) {
        tick(f, 9000);
        ping(f, d, 2, i);
    }
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_RUNNING);
    tick(f, 9000);
    ping(f, d, 2, 4);  //  alive, but the loop stands still
    tick(f, 1000);
    assert_int_equal(count_of(f, 'g'), 2);
    assert_int_equal(count_of(f, 't'), 2);
}

static void a_hung_decoder_gets_no_further_job(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    ping(f, d, 1, 0);
    tick(f, 5000);
    ping(f, d, 1, 0);
    tick(f, 5000);
    assert_int_equal(job(f, 1)->lost, 1);
    run(f);
    assert_int_equal(count_of(f, 's'), 1);
    ping(f, d, 0, 1);  //  it let go
    run(f);
    assert_int_equal(count_of(f, 's'), 2);
}

static void a_job_does_not_return_to_who_still_has_it(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 2);
    run(f);
    ping(f, d, 1, 0);
    tick(f, 5000);
    ping(f, d, 1, 0);
    tick(f, 5000);
    assert_int_equal(job(f, 1)->lost, 1);
    run(f);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
    const uint32_t other = decoder(f, 2, 1);
    run(f);
    assert_int_equal(job(f, 1)->session, other);
}

//  A decoder comes, gets the job and dies with it.
static void lose_once(fixture *f, uint32_t number)
{
    const uint32_t d = decoder(f, number, 1);
    run(f);
    assert_int_equal(job(f, 1)->session, d);
    luna_scheduler_disconnected(f->scheduler, d, f->now_ms);
    tick(f, 200);
}

static void expect_wait(fixture *f, int64_t least_ms)
{
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_DEFERRED);
    assert_true(job(f, 1)->wake_ms >= f->now_ms + least_ms);
    assert_true(job(f, 1)->wake_ms <= f->now_ms + least_ms * 5 / 4);
    tick(f, least_ms - 1);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_DEFERRED);
    tick(f, least_ms / 4 + 1);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
}

static void lost_attempts_have_a_limit(void **state)
{
    fixture *f = *state;
    add(f, 1);
    for (uint32_t i = 1; i <= 5; i++) {
        lose_once(f, i);
        tick(f, 5000);
    }
    assert_int_equal(count_of(f, 's'), 5);
    assert_int_equal(count_of(f, 'g'), 4);
    expect_end(f, 1, LUNA_JOB_FAILED, "lost");
}

static void losses_in_a_row_back_off(void **state)
{
    fixture *f = *state;
    add(f, 1);
    lose_once(f, 1);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
    lose_once(f, 2);
    expect_wait(f, 1000);
    lose_once(f, 3);
    expect_wait(f, 2000);
    //  An answer, even a bad one, shows that the job does not kill.
    const uint32_t d = decoder(f, 4, 1);
    run(f);
    const luna_job_key key = key_of(1, 4);
    failed(f, d, &key, "io");
    luna_scheduler_bye(f->scheduler, d, f->now_ms);
    tick(f, 5000);
    lose_once(f, 5);
    assert_int_equal(job(f, 1)->lost, 4);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
}

static void a_job_that_was_lost_before_a_restart_waits_too(void **state)
{
    fixture *f = *state;
    luna_entry entry = entry_of(1);
    entry.lost = 1;
    entry.attempts = 1;
    add_entry(f, &entry);
    lose_once(f, 1);
    expect_wait(f, 1000);
}

static void refused_attempts_back_off_and_have_a_limit(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    static const int64_t least_ms[] = {1000, 2000};
    for (uint32_t i = 1; i <= 3; i++) {
        run(f);
        const luna_job_key key = key_of(1, i);
        assert_int_equal(last(f, 's')->attempt, i);
        failed(f, d, &key, "io");
        luna_scheduler_seen(f->scheduler, d, NULL, f->now_ms);
        if (i == 3) break;
        assert_int_equal(job(f, 1)->place, LUNA_PLACE_DEFERRED);
        assert_true(job(f, 1)->wake_ms >= f->now_ms + least_ms[i - 1]);
        assert_true(job(f, 1)->wake_ms <= f->now_ms + least_ms[i - 1] * 5 / 4);
        tick(f, least_ms[i - 1] - 1);
        run(f);
        assert_int_equal(count_of(f, 's'), i);
        tick(f, least_ms[i - 1] / 4 + 1);
    }
    expect_end(f, 1, LUNA_JOB_FAILED, "io");
}

static void loss_and_refusal_are_counted_apart(void **state)
{
    fixture *f = *state;
    add(f, 1);
    for (uint32_t i = 0; i < 4; i++) {
        lose_once(f, i);
        tick(f, 5000);
    }
    const uint32_t d = decoder(f, 9, 1);
    for (uint32_t i = 0; i < 2; i++) {
        run(f);
        const luna_job_key key = key_of(1, job(f, 1)->attempts);
        failed(f, d, &key, "io");
        tick(f, 5000);
        luna_scheduler_seen(f->scheduler, d, NULL, f->now_ms);
    }
    assert_int_equal(job(f, 1)->lost, 4);
    assert_int_equal(job(f, 1)->refused, 2);
    assert_int_equal(count_of(f, 'f'), 0);
}

//  Its device died under it: the job is given on at once, the jobs that waited there are
//  not counted, and one that does it again and again is given up.
static void a_device_that_failed_is_a_lost_decoder(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    for (uint32_t i = 1; i <= 5; i++) {
        const uint32_t d = decoder(f, i, 2);
        run(f);
        const luna_job_key key = key_of(1, job(f, 1)->attempts);
        credit(f, d, 0, 1000);
        failed(f, d, &key, "device");
        if (i < 5) assert_int_equal(job(f, 1)->lost, i);
        luna_scheduler_bye(f->scheduler, d, f->now_ms);
        assert_int_equal(job(f, 2)->lost, 0);
        tick(f, 20000);
    }
    expect_end(f, 1, LUNA_JOB_FAILED, "device");
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_WAITING);
    assert_int_equal(job(f, 2)->refused, 0);
}

static void what_cannot_get_better_fails_at_once(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key key = key_of(1, 1);
    failed(f, d, &key, "bad_latent");
    expect_end(f, 1, LUNA_JOB_FAILED, "bad_latent");
}

static void an_unknown_vae_is_tried_elsewhere(void **state)
{
    fixture *f = *state;
    const uint32_t a = hello(f, 1, NULL, NULL), b = hello(f, 2, NULL, NULL);
    credit(f, a, 1, 1000);
    credit(f, b, 1, 1000);
    add(f, 1);
    run(f);
    const uint32_t first = last(f, 's')->session;
    luna_job_key key = key_of(1, 1);
    failed(f, first, &key, "unknown_vae");
    tick(f, 1250);
    run(f);
    assert_int_equal(last(f, 's')->session, first == a ? b : a);
    //  With nobody else to ask it is final.
    luna_scheduler_bye(f->scheduler, first, f->now_ms);
    luna_scheduler_seen(f->scheduler, last(f, 's')->session, NULL, f->now_ms);
    for (int i = 0; i < 7; i++) {
        luna_scheduler_seen(f->scheduler, last(f, 's')->session, NULL, f->now_ms);
        key = key_of(1, 2);
        luna_scheduler_progress(f->scheduler, last(f, 's')->session, &key, f->now_ms);
        tick(f, 9000);
    }
    failed(f, last(f, 's')->session, &key, "unknown_vae");
    expect_end(f, 1, LUNA_JOB_FAILED, "unknown_vae");
}

static uint32_t writer(fixture *f, uint32_t number, const char *formats)
{
    const uint32_t session = hello_formats(f, number, "v", formats, NULL);
    credit(f, session, 1, 1000);
    return session;
}

static void add_formats(fixture *f, uint32_t number, const char *formats)
{
    luna_entry entry = entry_of(number);
    entry.formats = luna_formats_parse(luna_text_of(formats));
    add_entry(f, &entry);
}

//  Nobody writes it: as often as a VAE that nobody has.
static void a_format_that_nobody_writes_is_tried_elsewhere(void **state)
{
    fixture *f = *state;
    const uint32_t a = writer(f, 1, "png"), b = writer(f, 2, "png webp");
    add_formats(f, 1, "png avif");
    run(f);
    const uint32_t first = last(f, 's')->session;
    luna_job_key key = key_of(1, 1);
    failed(f, first, &key, "unsupported");
    tick(f, 1250);
    run(f);
    assert_int_equal(last(f, 's')->session, first == a ? b : a);
    key = key_of(1, 2);
    failed(f, last(f, 's')->session, &key, "unsupported");
    tick(f, 2500);
    run(f);
    key = key_of(1, 3);
    failed(f, last(f, 's')->session, &key, "unsupported");
    expect_end(f, 1, LUNA_JOB_FAILED, "unsupported");
}

//  One that writes all of it refuses something else: that is final.
static void what_a_writer_does_not_support_is_final(void **state)
{
    fixture *f = *state;
    writer(f, 1, "png");
    const uint32_t b = writer(f, 2, "png avif");
    add_formats(f, 1, "avif");
    run(f);
    assert_int_equal(last(f, 's')->session, b);
    const luna_job_key key = key_of(1, 1);
    failed(f, b, &key, "unsupported");
    expect_end(f, 1, LUNA_JOB_FAILED, "unsupported");
}

static void add_former(fixture *f, uint32_t number)
{
    luna_entry entry = entry_of(number);
    entry.formats = luna_formats_parse(luna_text_of("avif"));
    entry.former = true;
    add_entry(f, &entry);
}

//  The first decoder that is back is not the only one.
static void after_a_restart_the_others_may_still_come(void **state)
{
    fixture *f = *state;
    add_former(f, 1);
    const uint32_t a = writer(f, 1, "png");
    run(f);
    assert_int_equal(last(f, 's')->session, a);
    const luna_job_key key = key_of(1, 1);
    failed(f, a, &key, "unsupported");
    assert_true(luna_place_is_pending(job(f, 1)->place));
    const uint32_t b = writer(f, 2, "png avif");
    tick(f, 1250);
    run(f);
    assert_int_equal(last(f, 's')->session, b);
}

static void who_is_not_back_in_time_is_not_waited_for(void **state)
{
    fixture *f = *state;
    add_former(f, 1);
    tick(f, 5000);
    const uint32_t a = writer(f, 1, "png");
    run(f);
    const luna_job_key key = key_of(1, 1);
    failed(f, a, &key, "unsupported");
    expect_end(f, 1, LUNA_JOB_FAILED, "unsupported");
}

static void alone_without_the_format_it_is_final(void **state)
{
    fixture *f = *state;
    const uint32_t a = writer(f, 1, "png");
    add_formats(f, 1, "avif");
    run(f);
    const luna_job_key key = key_of(1, 1);
    failed(f, a, &key, "unsupported");
    expect_end(f, 1, LUNA_JOB_FAILED, "unsupported");
}

//  ---- fencing -------------------------------------------------------------------

//  Attempt 1 was given back while its decoder slept; attempt 2 runs elsewhere.
static void lose_and_start_elsewhere(fixture *f, uint32_t *old, uint32_t *new)
{
    luna_entry entry = entry_of(1);
    entry.images = 2;
    add_entry(f, &entry);
    *old = decoder(f, 1, 1);
    run(f);
    tick(f, 5000);
    luna_scheduler_seen(f->scheduler, *old, NULL, f->now_ms);
    tick(f, 5000);
    *new = decoder(f, 2, 1);
    run(f);
    assert_int_equal(last(f, 's')->session, *new);
    assert_int_equal(last(f, 's')->attempt, 2);
}

static void a_stale_attempt_changes_no_state(void **state)
{
    fixture *f = *state;
    uint32_t old, new;
    lose_and_start_elsewhere(f, &old, &new);
    const luna_job_key stale = key_of(1, 1), fresh = key_of(1, 2);
    assert_false(luna_scheduler_progress(f->scheduler, old, &stale, f->now_ms));
    assert_false(luna_scheduler_progress(f->scheduler, old, &fresh, f->now_ms));
    failed(f, old, &stale, "bad_latent");
    failed(f, old, &fresh, "bad_latent");
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(count_of(f, 'f'), 0);
    //  Its pictures are real all the same.
    assert_int_equal(save(f, old, &stale, 0), 1);
    luna_scheduler_done(f->scheduler, old, &stale, f->now_ms);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(save(f, new, &fresh, 1), 1);
    luna_scheduler_done(f->scheduler, new, &fresh, f->now_ms);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
    assert_int_equal(save(f, old, &stale, 0), -1);
}

static void a_late_done_completes_a_waiting_job(void **state)
{
    fixture *f = *state;
    uint32_t old, new;
    lose_and_start_elsewhere(f, &old, &new);
    luna_scheduler_bye(f->scheduler, new, f->now_ms);
    credit(f, old, 0, 0);
    const luna_job_key stale = key_of(1, 1);
    save(f, old, &stale, 0);
    save(f, old, &stale, 1);
    luna_scheduler_done(f->scheduler, old, &stale, f->now_ms);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
    run(f);
    assert_int_equal(count_of(f, 's'), 2);
}

static void an_attempt_that_never_was_is_ignored(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key future = key_of(1, 2), zero = key_of(1, 0), other = key_of(2, 1);
    const luna_job_key huge = {.id = id_of(1), .attempt = (UINT64_C(1) << 32) + 1};
    assert_int_equal(save(f, d, &future, 0), -1);
    assert_int_equal(save(f, d, &zero, 0), -1);
    assert_int_equal(save(f, d, &other, 0), -1);
    assert_int_equal(save(f, d, &huge, 0), -1);
    luna_scheduler_done(f->scheduler, d, &future, f->now_ms);
    luna_scheduler_done(f->scheduler, d, &huge, f->now_ms);
    failed(f, d, &huge, "io");
    failed(f, d, &other, "io");
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(count_of(f, 'f') + count_of(f, 'g'), 0);
}

static void nothing_can_be_said_of_what_was_not_sent(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    const luna_job_key key = key_of(1, 1);
    assert_false(luna_scheduler_progress(f->scheduler, d, &key, f->now_ms));
    luna_scheduler_done(f->scheduler, d, &key, f->now_ms);
    failed(f, d, &key, "bad_latent");
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_STARTING);
    assert_int_equal(luna_scheduler_decoder(f->scheduler, d)->hold_count, 1);
    run(f);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
}

//  ---- cancel --------------------------------------------------------------------

static void cancel_waiting(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const luna_id id = id_of(1), unknown = id_of(7);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &unknown), LUNA_NOT_FOUND);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_OK);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_EXISTS);
    expect_end(f, 1, LUNA_JOB_CANCELLED, "cancelled");
    decoder(f, 1, 5);
    run(f);
    assert_int_equal(count_of(f, 's'), 1);
}

static void cancel_running_tells_the_decoder(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_id id = id_of(1);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &id), LUNA_OK);
    assert_int_equal(last(f, 't')->session, d);
    assert_int_equal(number_of(&last(f, 't')->id), 1);
    done(f, d, 1, 1);  //  too late
    assert_int_equal(count_of(f, 'f'), 1);
    expect_end(f, 1, LUNA_JOB_CANCELLED, "cancelled");
    assert_int_equal(luna_scheduler_decoder(f->scheduler, d)->hold_count, 0);
}

static void cancel_while_starting(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    const luna_job_key key = key_of(1, 1);
    assert_int_equal(luna_scheduler_cancel(f->scheduler, &key.id), LUNA_OK);
    assert_int_equal(count_of(f, 't'), 0);
    assert_int_equal(luna_scheduler_started(f->scheduler, &key, 77, f->now_ms), 0);
    expect_end(f, 1, LUNA_JOB_CANCELLED, "cancelled");
    assert_int_equal(luna_scheduler_decoder(f->scheduler, d)->hold_count, 0);
}

//  ---- the store's part ----------------------------------------------------------

static void an_attempt_that_cannot_be_stored_waits(void **state)
{
    fixture *f = *state;
    add(f, 1);
    decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    const luna_job_key key = key_of(1, 1);
    luna_scheduler_not_started(f->scheduler, &key, f->now_ms);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_DEFERRED);
    assert_int_equal(job(f, 1)->lost + job(f, 1)->refused, 0);
    tick(f, 1000);
    run(f);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(job(f, 1)->attempts, 2);
}

static void a_store_that_never_answers_holds_nothing_for_ever(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    luna_scheduler_dispatch(f->scheduler, f->now_ms);
    luna_scheduler_seen(f->scheduler, d, NULL, f->now_ms + 9000);
    tick(f, 10000);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_WAITING);
    assert_int_equal(job(f, 1)->lost, 0);
    assert_int_equal(luna_scheduler_decoder(f->scheduler, d)->hold_count, 0);
    run(f);
    const luna_job_key first = key_of(1, 1);
    assert_int_equal(luna_scheduler_started(f->scheduler, &first, 77, f->now_ms), 0);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(job(f, 1)->attempts, 2);
}

static void an_unreadable_payload_fails_the_job(void **state)
{
    fixture *f = *state;
    add(f, 1);
    decoder(f, 1, 1);
    run(f);
    const luna_id id = id_of(1);
    luna_scheduler_unreadable(f->scheduler, &id,
                              &(luna_verdict){LUNA_JOB_FAILED, "io", "damaged"});
    expect_end(f, 1, LUNA_JOB_FAILED, "io");
}

//  ---- restart -------------------------------------------------------------------

static void add_orphan(fixture *f, uint32_t number, uint64_t attempts)
{
    luna_entry entry = entry_of(number);
    entry.attempts = attempts;
    entry.place = LUNA_PLACE_ORPHAN;
    add_entry(f, &entry);
}

static void a_running_attempt_is_adopted(void **state)
{
    fixture *f = *state;
    add_orphan(f, 1, 3);
    add_orphan(f, 2, 2);
    const luna_job_key running = key_of(1, 3), stale = key_of(2, 1);
    const uint32_t d = hello(f, 1, "v", &running);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(job(f, 1)->session, d);
    hello(f, 2, "v", &stale);
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_ORPHAN);
    done(f, d, 1, 3);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
}

static void nobody_claims_an_orphan(void **state)
{
    fixture *f = *state;
    add_orphan(f, 1, 1);
    decoder(f, 1, 1);
    tick(f, 4999);
    run(f);
    assert_int_equal(count_of(f, 's'), 0);
    tick(f, 1);
    run(f);
    assert_int_equal(job(f, 1)->lost, 1);
    assert_int_equal(last(f, 's')->attempt, 2);
    //  Who comes now is too late.
    const luna_job_key running = key_of(1, 1);
    hello(f, 2, "v", &running);
    assert_int_equal(job(f, 1)->session, last(f, 's')->session);
}

static void a_second_hello_keeps_what_it_still_runs(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    const uint32_t before = decoder(f, 1, 2);
    run(f);
    const luna_job_key running = key_of(1, 1);
    const uint32_t after = hello(f, 1, "v", &running);
    assert_int_not_equal(after, before);
    assert_null(luna_scheduler_decoder(f->scheduler, before));
    assert_int_equal(last(f, 'o')->session, before);
    assert_int_equal(job(f, 1)->session, after);
    assert_int_equal(job(f, 1)->place, LUNA_PLACE_RUNNING);
    assert_int_equal(job(f, 2)->place, LUNA_PLACE_WAITING);
    assert_int_equal(job(f, 2)->lost, 1);
    done(f, before, 1, 1);  //  the old session is over
    assert_int_equal(count_of(f, 'f'), 0);
    done(f, after, 1, 1);
    expect_end(f, 1, LUNA_JOB_COMPLETED, "");
}

static void somebody_elses_running_job_is_not_adopted(void **state)
{
    fixture *f = *state;
    add(f, 1);
    const uint32_t d = decoder(f, 1, 1);
    run(f);
    const luna_job_key running = key_of(1, 1);
    const uint32_t thief = hello(f, 2, "v", &running);
    assert_int_equal(job(f, 1)->session, d);
    assert_int_equal(luna_scheduler_decoder(f->scheduler, thief)->hold_count, 0);
}

static void the_fleet_is_bounded(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 0; i < LUNA_DECODERS_MAX; i++) decoder(f, i, 1);
    const luna_msg_hello one_more = {.role = luna_text_of("decoder"),
                                     .name = luna_text_of("more"),
                                     .instance = id_of(1)};
    uint32_t session = 0;
    assert_int_equal(luna_scheduler_hello(f->scheduler, &one_more, f->now_ms, &session),
                     LUNA_BUSY);
    luna_scheduler_bye(f->scheduler, 1, f->now_ms);
    assert_int_equal(luna_scheduler_hello(f->scheduler, &one_more, f->now_ms, &session),
                     LUNA_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(done_completes),
        TEST(done_without_every_image_is_refused),
        TEST(images_of_several_inputs_are_told_apart),
        TEST(a_picture_outside_the_batches_counts_for_nothing),
        TEST(a_disconnect_gives_back_after_the_grace),
        TEST(a_done_within_the_grace_counts),
        TEST(what_was_not_sent_is_not_counted),
        TEST(bye_gives_back_and_counts_nothing),
        TEST(silence_loses_the_decoder),
        TEST(a_pause_of_the_broker_is_nobodys_silence),
        TEST(progress_renews_the_lease),
        TEST(a_working_loop_renews_all_its_jobs),
        TEST(a_hung_decoder_gets_no_further_job),
        TEST(a_job_does_not_return_to_who_still_has_it),
        TEST(lost_attempts_have_a_limit),
        TEST(losses_in_a_row_back_off),
        TEST(a_job_that_was_lost_before_a_restart_waits_too),
        TEST(refused_attempts_back_off_and_have_a_limit),
        TEST(loss_and_refusal_are_counted_apart),
        TEST(a_device_that_failed_is_a_lost_decoder),
        TEST(what_cannot_get_better_fails_at_once),
        TEST(an_unknown_vae_is_tried_elsewhere),
        TEST(a_format_that_nobody_writes_is_tried_elsewhere),
        TEST(what_a_writer_does_not_support_is_final),
        TEST(alone_without_the_format_it_is_final),
        TEST(after_a_restart_the_others_may_still_come),
        TEST(who_is_not_back_in_time_is_not_waited_for),
        TEST(a_stale_attempt_changes_no_state),
        TEST(a_late_done_completes_a_waiting_job),
        TEST(an_attempt_that_never_was_is_ignored),
        TEST(nothing_can_be_said_of_what_was_not_sent),
        TEST(cancel_waiting),
        TEST(cancel_running_tells_the_decoder),
        TEST(cancel_while_starting),
        TEST(an_attempt_that_cannot_be_stored_waits),
        TEST(a_store_that_never_answers_holds_nothing_for_ever),
        TEST(an_unreadable_payload_fails_the_job),
        TEST(a_running_attempt_is_adopted),
        TEST(nobody_claims_an_orphan),
        TEST(a_second_hello_keeps_what_it_still_runs),
        TEST(somebody_elses_running_job_is_not_adopted),
        TEST(the_fleet_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
