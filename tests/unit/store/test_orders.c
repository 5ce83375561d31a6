//  What people order: a new priority, "run next", a pause; and the checks of a job's
//  images.

#include "kit.h"

static luna_store_op prioritise(luna_id id, uint64_t priority, uint64_t next_ms)
{
    luna_store_op op = {.kind = LUNA_STORE_PRIORITISE, .id = id};
    op.in.prioritise = (luna_store_prioritise){.priority = priority, .next_ms = next_ms};
    return op;
}

static luna_store_op pause_queue(bool paused)
{
    luna_store_op op = {.kind = LUNA_STORE_PAUSE};
    op.in.pause.paused = paused;
    return op;
}

static void priority_and_next_survive_reopen(void **state)
{
    (void)state;
    luna_store_jobs active;
    kit_job first = kit_job_new(1), second = kit_job_new(2);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&second)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&first)), LUNA_OK);
    luna_store_op op = prioritise(second.id, 9, 777);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    luna_store_op_clear(&op);
    assert_int_equal(kit_do(store, kit_attempt(second.id, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, prioritise(first.id, 0, 0)), LUNA_OK);
    luna_store_close(&store);

    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 2);  //  in the order of acceptance all the same
    assert_memory_equal(&active.items[0].info.id, &first.id, 16);
    assert_int_equal(active.items[0].info.priority, 0);
    assert_false(active.items[0].info.next);
    assert_int_equal(active.items[1].info.priority, 9);
    assert_int_equal(active.items[1].next_ms, 777);
    assert_true(active.items[1].info.next);
    assert_int_equal(active.items[1].state, LUNA_JOB_IN_PROGRESS);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free(first.body);
    free(second.body);
}

static void priority_of_what_has_ended_or_never_was(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, prioritise(job.id, 3, 0)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    assert_int_equal(kit_do(store, prioritise(job.id, LUNA_PRIORITY_MAX + 1, 0)),
                     LUNA_BAD_REQUEST);
    assert_int_equal(kit_do(store, kit_finish(job.id, LUNA_JOB_FAILED)), LUNA_OK);
    luna_store_op op = prioritise(job.id, 3, 0);
    assert_int_equal(kit_run(store, &op), LUNA_EXISTS);
    assert_int_equal(op.state, LUNA_JOB_FAILED);
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free(job.body);
}

static void pause_survives_reopen(void **state)
{
    (void)state;
    static const bool orders[] = {true, true, false};
    luna_store *store = kit_open();
    assert_false(luna_store_paused(store));
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        assert_int_equal(kit_do(store, pause_queue(orders[i])), LUNA_OK);
        luna_store_close(&store);
        store = kit_open();
        assert_int_equal(luna_store_paused(store), orders[i]);
    }
    luna_store_close(&store);
}

//  ---- images that the job does not have ----------------------------------------------

static uint64_t images_of(luna_store *store, luna_id id)
{
    luna_store_op op = kit_of(LUNA_STORE_GET, id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const uint64_t count = op.found.items[0].info.images_done;
    luna_store_op_clear(&op);
    return count;
}

static void images_outside_the_job_are_refused_whole(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    const luna_msg_image good = kit_image(0, "/o/a.png");
    luna_msg_image strangers[] = {good, good, good};
    strangers[0].index = KIT_BATCH;
    strangers[1].input = 1;
    strangers[2].input = LUNA_MAX_INPUTS;
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    for (size_t i = 0; i < 3; i++) {
        const luna_msg_image pair[] = {good, strangers[i]};
        luna_store_op op = kit_images(job.id, pair, 2);
        assert_int_equal(kit_run(store, &op), LUNA_BAD_REQUEST);
        assert_non_null(strstr(op.detail, "has no image"));
        assert_int_equal(op.changed, 0);
        luna_store_op_clear(&op);
        op = kit_finish(job.id, LUNA_JOB_COMPLETED);
        op.in.finish.images = (luna_store_images){.items = pair, .count = 2};
        assert_int_equal(kit_run(store, &op), LUNA_BAD_REQUEST);
        assert_int_equal(op.state, LUNA_JOB_PENDING);
        luna_store_op_clear(&op);
        assert_int_equal(images_of(store, job.id), 0);
    }
    assert_int_equal(kit_do(store, kit_images(job.id, &good, 1)), LUNA_OK);
    assert_int_equal(images_of(store, job.id), 1);
    luna_store_close(&store);
    free(job.body);
}

//  ---- a row from a message

static void new_row_has_batches_formats_and_deadline(void **state)
{
    (void)state;
    luna_msg_input inputs[2] = {luna_msg_input_default(), luna_msg_input_default()};
    inputs[0].shape = (luna_dims){.at = {3, 4, 8, 8}, .count = 4};
    inputs[1].shape = (luna_dims){.at = {4096, 4, 8, 8}, .count = 4};
    inputs[1].format = luna_text_of("avif");
    luna_msg_job job = luna_msg_job_default();
    job.inputs.items = inputs;
    job.inputs.count = 2;
    luna_store_job row = luna_store_job_new(&job, 10, 5000);
    assert_int_equal(row.batches[0], 3);
    assert_int_equal(row.batches[1], 4096);
    assert_int_equal(row.batches[2], 0);
    assert_int_equal(row.formats, luna_formats_parse(luna_text_of("png avif")));
    assert_int_equal(row.info.deadline_ms, 0);
    assert_false(row.info.next);
    job.deadline_ms = 60000;
    row = luna_store_job_new(&job, 10, 5000);
    assert_int_equal(row.info.deadline_ms, 65000);
    job.deadline_ms = UINT64_MAX;
    row = luna_store_job_new(&job, 10, 5000);
    assert_true(row.info.deadline_ms == UINT64_MAX);
}

static void deadline_batches_and_formats_survive_reopen(void **state)
{
    (void)state;
    static const luna_formats formats[] = {0, 1u << 3, LUNA_FORMATS_ALL};
    static const uint64_t deadlines[] = {0, 65000, UINT64_MAX};
    luna_store_jobs active;
    luna_store *store = kit_open();
    for (unsigned i = 0; i < 3; i++) {
        kit_job job = kit_job_new(i);
        luna_store_op op = kit_put(&job);
        op.in.put.job.info.deadline_ms = deadlines[i];
        op.in.put.job.formats = formats[i];
        op.in.put.job.batches[1] = LUNA_MAX_BATCH;
        op.in.put.job.batches[2] = 1;
        op.in.put.job.info.images = KIT_BATCH + LUNA_MAX_BATCH + 1;
        assert_int_equal(kit_do(store, op), LUNA_OK);
        free(job.body);
    }
    luna_store_close(&store);
    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        const uint32_t want[LUNA_MAX_INPUTS] = {KIT_BATCH, LUNA_MAX_BATCH, 1};
        assert_true(active.items[i].info.deadline_ms == deadlines[i]);
        assert_int_equal(active.items[i].formats, formats[i]);
        assert_memory_equal(active.items[i].batches, want, sizeof want);
        assert_true(active.items[i].content != 0);
    }
    luna_store_jobs_free(&active);
    luna_store_close(&store);
}

static void condition_of_a_sound_store(void **state)
{
    (void)state;
    luna_store_condition_t condition;
    luna_store *store = kit_open();
    luna_store_condition(store, &condition);
    assert_true(condition.free_bytes > 0);
    assert_false(condition.read_only);
    assert_false(condition.ballast_spent);
    assert_string_equal(condition.alarm, "");
    luna_store_close(&store);
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(priority_and_next_survive_reopen),
        TEST(priority_of_what_has_ended_or_never_was),
        TEST(pause_survives_reopen),
        TEST(images_outside_the_job_are_refused_whole),
        TEST(new_row_has_batches_formats_and_deadline),
        TEST(deadline_batches_and_formats_survive_reopen),
        TEST(condition_of_a_sound_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
