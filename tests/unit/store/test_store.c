//  The operations of the store, one after another, and over a restart.

#include "kit.h"

static bool text_is(luna_text text, const char *word)
{
    return luna_text_is(text, word);
}

static void put_survives_reopen(void **state)
{
    (void)state;
    luna_store_jobs active;
    kit_job job = kit_job_sized(1, 424);  //  2.9 MB: several pieces
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    assert_true(kit_payload_is(&job));
    luna_store_close(&store);
    assert_null(store);

    store = kit_open_with(NULL, &active);
    assert_non_null(store);
    assert_int_equal(active.count, 1);
    const luna_store_job *row = &active.items[0];
    assert_int_equal(row->state, LUNA_JOB_PENDING);
    assert_true(text_is(row->info.state, "pending"));
    assert_memory_equal(&row->info.id, &job.id, sizeof job.id);
    const luna_id client = kit_id(999);
    assert_memory_equal(&row->client, &client, sizeof client);
    assert_true(text_is(row->prompt_id, "prompt-7"));
    assert_true(text_is(row->info.vae, "flux"));
    assert_null(row->info.decoder.data);
    assert_int_equal(row->info.priority, 1);
    assert_int_equal(row->info.images, KIT_BATCH);
    assert_int_equal(row->batches[0], KIT_BATCH);
    assert_int_equal(row->batches[1], 0);
    assert_int_equal(row->info.bytes, job.len);
    assert_int_equal(row->info.created_ms, 1000);
    assert_int_equal(row->info.accepted_ms, 1001);
    assert_true(kit_payload_is(&job));
    assert_int_equal(kit_files_in("spool/tmp"), 0);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free(job.body);
}

static void expect_vae(luna_store *store, luna_id id, const luna_store_vae *wanted)
{
    luna_store_op op = kit_of(LUNA_STORE_GET, id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const luna_msg_job_info *info = &op.found.items[0].info;
    assert_true(text_is(info->vae, "flux"));  //  as the job has it
    assert_true(text_is(info->vae_name, wanted->name.data));
    assert_true(text_is(info->vae_path, wanted->path.data));
    if (wanted->sha256.data)
        assert_true(text_is(info->vae_sha256, wanted->sha256.data));
    else
        assert_null(info->vae_sha256.data);
    luna_store_op_clear(&op);
}

//  Of jobs that decoded, one with a hash and one without; a job that did not has none.
static void the_vae_of_a_job_is_kept(void **state)
{
    (void)state;
    const luna_store_vae whole = {luna_text_of("ae"), luna_text_of("/m/ae.safetensors"),
                                  luna_text_of("ab12")};
    const luna_store_vae no_hash = {whole.name, whole.path, {0}};
    kit_job first = kit_job_new(1), second = kit_job_new(2), third = kit_job_new(3);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&first)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&second)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&third)), LUNA_OK);
    luna_store_op op = kit_finish(first.id, LUNA_JOB_COMPLETED);
    op.in.finish.vae = whole;
    assert_int_equal(kit_do(store, op), LUNA_OK);
    op = kit_finish(second.id, LUNA_JOB_COMPLETED);
    op.in.finish.vae = no_hash;
    assert_int_equal(kit_do(store, op), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(third.id, LUNA_JOB_CANCELLED)), LUNA_OK);
    for (int round = 0; round < 2; round++) {
        expect_vae(store, first.id, &whole);
        expect_vae(store, second.id, &no_hash);
        luna_store_op get = kit_of(LUNA_STORE_GET, third.id);
        assert_int_equal(kit_run(store, &get), LUNA_OK);
        assert_null(get.found.items[0].info.vae_name.data);
        luna_store_op_clear(&get);
        luna_store_close(&store);
        store = kit_open();
    }
    luna_store_close(&store);
    free(first.body);
    free(second.body);
    free(third.body);
}

static void repetition_is_told_and_writes_nothing(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1), other = kit_job_sized(1, 16);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);

    luna_store_op again = kit_put(&job);
    assert_int_equal(kit_run(store, &again), LUNA_EXISTS);
    assert_int_equal(again.state, LUNA_JOB_PENDING);
    assert_int_equal(again.found.count, 1);
    assert_int_equal(again.found.items[0].info.bytes, job.len);
    assert_non_null(strstr(again.detail, "pending"));
    luna_store_op_clear(&again);
    again = kit_put(&other);
    assert_int_equal(kit_run(store, &again), LUNA_BAD_REQUEST);
    assert_int_equal(again.state, LUNA_JOB_PENDING);
    assert_int_equal(again.found.count, 0);
    assert_non_null(strstr(again.detail, "another job has this id"));
    luna_store_op_clear(&again);
    assert_true(kit_payload_is(&job));
    ((uint8_t *)job.body)[job.len / 2] ^= 1;  //  the same length, another latent
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_BAD_REQUEST);
    ((uint8_t *)job.body)[job.len / 2] ^= 1;
    assert_true(kit_payload_is(&job));

    assert_int_equal(kit_do(store, kit_finish(job.id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_close(&store);
    store = kit_open();
    again = kit_put(&job);
    assert_int_equal(kit_run(store, &again), LUNA_EXISTS);
    assert_int_equal(again.state, LUNA_JOB_COMPLETED);
    luna_store_op_clear(&again);
    assert_false(kit_has("ready", job.id));
    luna_store_close(&store);
    free(job.body);
    free(other.body);
}

static void attempt_survives_reopen(void **state)
{
    (void)state;
    luna_store_jobs active;
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_op op = kit_attempt(job.id, 3);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_IN_PROGRESS);
    luna_store_op_clear(&op);
    luna_store_close(&store);

    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 1);
    assert_int_equal(active.items[0].state, LUNA_JOB_IN_PROGRESS);
    assert_int_equal(active.items[0].info.attempts, 3);
    assert_int_equal(active.items[0].info.started_ms, 5000);
    assert_true(text_is(active.items[0].info.decoder, "gpu1"));
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free(job.body);
}

static void images_are_idempotent(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    luna_msg_image images[] = {kit_image(0, "/o/a.png"), kit_image(1, "/o/b.png")};
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);

    luna_store_op op = kit_images(job.id, images, 1);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 1);
    images[0].path = luna_text_of("/o/other.png");
    op = kit_images(job.id, images, 2);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 1);

    op = kit_of(LUNA_STORE_GET, job.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const luna_msg_job_info *info = &op.found.items[0].info;
    assert_int_equal(info->images_done, 2);
    assert_int_equal(info->files.count, 2);
    assert_true(text_is(info->files.items[0].path, "/o/a.png"));
    assert_true(text_is(info->files.items[1].path, "/o/b.png"));
    assert_int_equal(info->files.items[1].index, 1);
    assert_int_equal(info->files.items[1].bytes, 1235);
    assert_true(text_is(info->files.items[1].sha256, "ab12"));
    assert_int_equal(info->files.items[1].height, 768);
    assert_true(info->files.items[1].encode_ms == 2.25);
    luna_store_op_clear(&op);
    assert_int_equal(kit_do(store, kit_images(kit_id(2), images, 1)), LUNA_NOT_FOUND);
    luna_store_close(&store);
    free(job.body);
}

static void finished_jobs_drop_their_payload_failed_ones_keep_it(void **state)
{
    (void)state;
    static const luna_job_state ends[] = {LUNA_JOB_COMPLETED, LUNA_JOB_CANCELLED,
                                          LUNA_JOB_FAILED};
    luna_store *store = kit_open();
    for (unsigned i = 0; i < 3; i++) {
        kit_job job = kit_job_new(i);
        luna_msg_image image = kit_image(0, "/o/a.png");
        assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
        luna_store_op op = kit_finish(job.id, ends[i]);
        op.in.finish.images = (luna_store_images){.items = &image, .count = 1};
        assert_int_equal(kit_run(store, &op), LUNA_OK);
        assert_int_equal(op.state, ends[i]);
        assert_int_equal(op.changed, 1);
        op = kit_finish(job.id, LUNA_JOB_COMPLETED);
        assert_int_equal(kit_run(store, &op), LUNA_EXISTS);
        assert_int_equal(op.state, ends[i]);
        assert_int_equal(kit_do(store, kit_attempt(job.id, 1)), LUNA_EXISTS);
        assert_int_equal(kit_do(store, kit_requeue(job.id, 1, 0)), LUNA_EXISTS);
        free(job.body);
    }
    luna_store_close(&store);  //  waits for the removals
    assert_false(kit_has("ready", kit_id(0)));
    assert_false(kit_has("ready", kit_id(1)));
    assert_true(kit_has("ready", kit_id(2)));

    store = kit_open();
    luna_store_op op = kit_of(LUNA_STORE_GET, kit_id(2));
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_true(text_is(op.found.items[0].info.error, "bad_latent"));
    assert_true(text_is(op.found.items[0].info.detail, "NaN in latent 1"));
    assert_int_equal(op.found.items[0].info.finished_ms, 9000);
    assert_int_equal(op.found.items[0].info.files.count, 1);
    luna_store_op_clear(&op);
    luna_store_close(&store);
}

static void requeue_keeps_the_place(void **state)
{
    (void)state;
    luna_store_jobs active;
    kit_job first = kit_job_new(15), second = kit_job_new(25), urgent = kit_job_new(39);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&urgent)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&second)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&first)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_OK);
    luna_store_op op = kit_requeue(first.id, 1, 2);
    op.in.requeue.error = luna_text_of("lost");
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    luna_store_close(&store);

    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 3);
    assert_memory_equal(&active.items[0].info.id, &first.id, 16);
    assert_memory_equal(&active.items[1].info.id, &second.id, 16);
    assert_memory_equal(&active.items[2].info.id, &urgent.id, 16);
    assert_int_equal(active.items[0].state, LUNA_JOB_PENDING);
    assert_int_equal(active.items[0].info.attempts, 1);
    assert_int_equal(active.items[0].info.lost, 1);
    assert_int_equal(active.items[0].info.refused, 2);
    assert_true(text_is(active.items[0].info.error, "lost"));
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free(first.body);
    free(second.body);
    free(urgent.body);
}

static void retry_starts_afresh_with_the_payload(void **state)
{
    (void)state;
    char path[256];
    kit_job job = kit_job_new(1);
    luna_msg_image image = kit_image(0, "/o/a.png");
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_RETRY, job.id)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_op op = kit_of(LUNA_STORE_RETRY, job.id);
    assert_int_equal(kit_run(store, &op), LUNA_BAD_REQUEST);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    assert_int_equal(kit_do(store, kit_attempt(job.id, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_requeue(job.id, 1, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_images(job.id, &image, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(job.id, LUNA_JOB_FAILED)), LUNA_OK);

    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const luna_msg_job_info *info = &op.found.items[0].info;
    assert_int_equal(op.found.items[0].state, LUNA_JOB_PENDING);
    assert_int_equal(info->attempts, 1);
    assert_int_equal(info->lost + info->refused, 0);
    assert_int_equal(info->finished_ms + info->started_ms, 0);
    assert_null(info->error.data);
    assert_int_equal(info->files.count, 1);
    assert_int_equal(info->accepted_ms, job.accepted_ms);
    luna_store_op_clear(&op);

    assert_int_equal(kit_do(store, kit_finish(job.id, LUNA_JOB_FAILED)), LUNA_OK);
    kit_path(path, "ready", job.id);
    kit_damage(path, 200);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_RETRY, job.id)), LUNA_NOT_FOUND);
    unlink(path);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_RETRY, job.id)), LUNA_NOT_FOUND);
    op = kit_of(LUNA_STORE_GET, job.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_FAILED);
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free(job.body);
}

static void list_is_newest_first_and_filters(void **state)
{
    (void)state;
    luna_store *store = kit_open();
    for (unsigned i = 0; i < 20; i++) {
        kit_job job = kit_job_new(i);
        assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
        if (i % 4 == 0)
            assert_int_equal(kit_do(store, kit_finish(job.id, LUNA_JOB_FAILED)), LUNA_OK);
        free(job.body);
    }
    luna_store_op op = kit_list(LUNA_JOB_ANY, 12);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.found.count, 12);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(op.found.items[i].info.accepted_ms, 1019 - i);
    luna_store_op_clear(&op);

    op = kit_list(LUNA_JOB_FAILED, 100);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.found.count, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(op.found.items[i].info.accepted_ms, 1016 - 4 * i);
        assert_int_equal(op.found.items[i].state, LUNA_JOB_FAILED);
    }
    luna_store_op_clear(&op);

    op = kit_of(LUNA_STORE_COUNTS, (luna_id){{0}});
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.counts[LUNA_JOB_PENDING], 15);
    assert_int_equal(op.counts[LUNA_JOB_FAILED], 5);
    assert_int_equal(op.counts[LUNA_JOB_COMPLETED], 0);
    luna_store_close(&store);
}

static void forget_is_bounded_and_spares_the_rest(void **state)
{
    (void)state;
    luna_store *store = kit_open();
    luna_msg_image image = kit_image(0, "/o/a.png");
    for (unsigned i = 0; i < 6; i++) {  //  0 to 3 are old; 4 is young; 5 is active
        kit_job job = kit_job_new(i);
        assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
        luna_store_op op =
            kit_finish(job.id, i % 2 ? LUNA_JOB_FAILED : LUNA_JOB_COMPLETED);
        op.in.finish.finished_ms = i < 4 ? 100 + i : 5000;
        op.in.finish.images = (luna_store_images){.items = &image, .count = 1};
        if (i < 5) assert_int_equal(kit_do(store, op), LUNA_OK);
        free(job.body);
    }
    luna_store_op op = kit_forget(5000, 3);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 3);
    op = kit_forget(5000, 3);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, kit_id(i))),
                         LUNA_NOT_FOUND);
        assert_false(kit_has("ready", kit_id(i)));
    }
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, kit_id(4))), LUNA_OK);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, kit_id(5))), LUNA_OK);

    //  A forgotten id is new again, without its old images.
    kit_job job = kit_job_new(1);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    op = kit_of(LUNA_STORE_GET, job.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.found.items[0].info.images_done, 0);
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free(job.body);
}

static void texts_never_become_sql(void **state)
{
    (void)state;
    static const char hostile[] = "x'); DROP TABLE job; --\" ?1 \x01 \xc3\xa9";
    const luna_text text = {.data = hostile, .len = sizeof hostile - 1};
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    luna_store_op op = kit_put(&job);
    op.in.put.job.info.vae = text;
    op.in.put.job.prompt_id = text;
    assert_int_equal(kit_do(store, op), LUNA_OK);
    op = kit_attempt(job.id, 1);
    op.in.attempt.decoder = text;
    assert_int_equal(kit_do(store, op), LUNA_OK);
    op = kit_of(LUNA_STORE_GET, job.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const luna_text got[] = {op.found.items[0].info.vae, op.found.items[0].prompt_id,
                             op.found.items[0].info.decoder};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(got[i].len, text.len);
        assert_memory_equal(got[i].data, text.data, text.len);
    }
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free(job.body);
}

static void unknown_ids_and_kinds_are_errors(void **state)
{
    (void)state;
    luna_store *store = kit_open();
    const luna_id id = kit_id(7);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, id)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_attempt(id, 1)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_finish(id, LUNA_JOB_FAILED)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_requeue(id, 0, 0)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_of((luna_store_kind)99, id)), LUNA_INTERNAL);
    assert_int_equal(kit_do(store, kit_finish(id, LUNA_JOB_PENDING)), LUNA_INTERNAL);
    assert_true(luna_store_writable(store, NULL, 0));
    luna_store_close(&store);
}

static void second_owner_is_refused(void **state)
{
    (void)state;
    char pid[32];
    luna_store *store = kit_open(), *second = NULL;
    luna_store_jobs active;
    luna_store_options options = kit_options(NULL);
    snprintf(pid, sizeof pid, "process id %ld", (long)getpid());
    assert_int_equal(luna_store_open(&options, &second, &active), LUNA_BUSY);
    assert_non_null(strstr(luna_error_text(), pid));
    options.spool_dir = "spool2";  //  the state folder alone is enough
    assert_int_equal(luna_store_open(&options, &second, &active), LUNA_BUSY);
    assert_null(second);
    kit_empty("spool2/tmp");
    kit_empty("spool2/ready");
    kit_empty("spool2/quarantine");
    kit_empty("spool2");
    luna_store_close(&store);
    store = kit_open();
    luna_store_close(&store);
}

static void payload_path_is_absolute_and_bounded(void **state)
{
    (void)state;
    char path[4096], tiny[8];
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    assert_int_equal(luna_store_payload_path(store, &job.id, path, sizeof path), LUNA_OK);
    assert_int_equal(path[0], '/');
    assert_int_equal(access(path, R_OK), 0);
    assert_int_equal(luna_store_payload_path(store, &job.id, tiny, sizeof tiny),
                     LUNA_TOO_LARGE);
    luna_store_close(&store);
    free(job.body);
}

static void state_names_go_both_ways(void **state)
{
    (void)state;
    luna_job_state got;
    for (int i = 0; i < LUNA_JOB_STATES; i++) {
        const char *name = luna_job_state_name((luna_job_state)i);
        assert_int_equal(luna_job_state_parse(luna_text_of(name), &got), LUNA_OK);
        assert_int_equal(got, i);
    }
    assert_int_equal(luna_job_state_parse(luna_text_of(""), &got), LUNA_OK);
    assert_int_equal(got, LUNA_JOB_ANY);
    assert_int_equal(luna_job_state_parse(luna_text_of("done"), &got), LUNA_BAD_REQUEST);
    assert_string_equal(luna_job_state_name(LUNA_JOB_ANY), "unknown");
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(put_survives_reopen),
        TEST(repetition_is_told_and_writes_nothing),
        TEST(attempt_survives_reopen),
        TEST(images_are_idempotent),
        TEST(the_vae_of_a_job_is_kept),
        TEST(finished_jobs_drop_their_payload_failed_ones_keep_it),
        TEST(requeue_keeps_the_place),
        TEST(retry_starts_afresh_with_the_payload),
        TEST(list_is_newest_first_and_filters),
        TEST(forget_is_bounded_and_spares_the_rest),
        TEST(texts_never_become_sql),
        TEST(unknown_ids_and_kinds_are_errors),
        TEST(second_owner_is_refused),
        TEST(payload_path_is_absolute_and_bounded),
        TEST(state_names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
