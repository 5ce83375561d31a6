//  Group commit: what a batch shares, in which order, and that neighbours are
//  independent.

#include "faults.h"

#define MANY 50

static void free_jobs(kit_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) free(jobs[i].body);
}

//  One job is named, its bytes and the folder are synced, and then its row is written,
//  without a sync of its own. What follows a job is synced, and the row with it.
static void steps_are_in_the_order_that_makes_them_safe(void **state)
{
    (void)state;
    kit_job job = kit_job_sized(1, 424);
    luna_store *store = kit_open_with(&faulty_files, NULL);
    faults_set(STEPS, 0, 0, false);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    const char *at = faults.log;
    assert_int_equal(*at++, 'a');
    assert_int_equal(strspn(at, "w"), 4);  //  header, then 2.9 MB in pieces
    at += 4;
    assert_memory_equal(at, "resd", 4);
    at += 4;
    assert_true(strlen(at) >= 2);
    assert_int_equal(strspn(at, "W"), strlen(at));

    faults_set(STEPS, 0, 0, false);
    assert_int_equal(kit_do(store, kit_attempt(job.id, 1)), LUNA_OK);
    const size_t rows = strspn(faults.log, "W");
    assert_true(rows >= 2);
    assert_string_equal(faults.log + rows, "S");
    luna_store_close(&store);
    free(job.body);
}

static void many_puts_share_their_syncs(void **state)
{
    (void)state;
    kit_job jobs[MANY];
    luna_store_op ops[MANY];
    luna_store *store = kit_open_with(&faulty_files, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        jobs[i] = kit_job_new(i);
        ops[i] = kit_put(&jobs[i]);
        ops[i].user = &jobs[i];
    }
    faults_set(STEPS, 0, 0, false);
    faults_submit_behind(store, ops, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        luna_store_op *op = kit_collect(store);
        assert_ptr_equal(op, &ops[i]);
        assert_ptr_equal(op->user, &jobs[i]);
        assert_int_equal(op->err, LUNA_OK);
        assert_true(kit_payload_is(&jobs[i]));
    }
    assert_int_equal(faults.each[STEP_SYNC_DATA], MANY);
    assert_int_equal(faults.each[STEP_SYNC_DIR], 2);
    assert_int_equal(faults.each[STEP_DB_SYNC], 0);
    luna_store_close(&store);
    free_jobs(jobs, MANY);
}

//  Even to a store that waits for work: the first of them does not go alone.
static void operations_handed_over_together_share_a_batch(void **state)
{
    (void)state;
    kit_job jobs[MANY];
    luna_store_op ops[MANY];
    luna_store *store = kit_open_with(&faulty_files, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        jobs[i] = kit_job_new(i);
        ops[i] = kit_put(&jobs[i]);
        if (i > 0) ops[i - 1].next = &ops[i];
    }
    faults_set(STEPS, 0, 0, false);
    luna_store_submit_all(store, ops);
    for (unsigned i = 0; i < MANY; i++) {
        assert_ptr_equal(kit_collect(store), &ops[i]);
        assert_int_equal(ops[i].err, LUNA_OK);
    }
    assert_int_equal(faults.each[STEP_SYNC_DIR], 1);
    luna_store_close(&store);
    free_jobs(jobs, MANY);
}

//  The number of batches that 9 jobs behind one need.
static int batches_with(luna_store_options options)
{
    kit_job jobs[10];
    luna_store_op ops[10];
    luna_store_jobs active;
    luna_store *store = NULL;
    assert_int_equal(luna_store_open(&options, &store, &active), LUNA_OK);
    for (unsigned i = 0; i < 10; i++) {
        jobs[i] = kit_job_new(i);
        ops[i] = kit_put(&jobs[i]);
    }
    faults_set(STEPS, 0, 0, false);
    faults_submit_behind(store, ops, 10);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(kit_collect(store)->err, LUNA_OK);
    luna_store_close(&store);
    free_jobs(jobs, 10);
    kit_clean(NULL);
    return faults.each[STEP_SYNC_DIR] - 1;
}

static void batches_are_bounded_by_count_and_bytes(void **state)
{
    (void)state;
    luna_store_options options = kit_options(&faulty_files);
    assert_int_equal(batches_with(options), 1);
    options.batch_ops = 4;
    assert_int_equal(batches_with(options), 3);
    options.batch_ops = 0;
    options.batch_bytes = 1;  //  smaller than any job: each goes alone
    assert_int_equal(batches_with(options), 9);
}

static void repetition_in_one_batch_is_told(void **state)
{
    (void)state;
    kit_job gate = kit_job_new(0), job = kit_job_new(1), twin = kit_job_sized(1, 16);
    luna_store *store = kit_open_with(&faulty_files, NULL);
    luna_store_op ops[] = {kit_put(&gate), kit_put(&job), kit_put(&job), kit_put(&twin),
                           kit_of(LUNA_STORE_GET, job.id)};
    faults_set(STEPS, 0, 0, false);
    faults_submit_behind(store, ops, 5);
    luna_store_drain(store);
    assert_int_equal(ops[1].err, LUNA_OK);
    assert_int_equal(ops[2].err, LUNA_EXISTS);
    assert_int_equal(ops[2].found.count, 1);
    assert_int_equal(ops[3].err, LUNA_BAD_REQUEST);
    assert_int_equal(ops[4].err, LUNA_OK);
    assert_int_equal(ops[4].found.items[0].info.bytes, job.len);
    assert_true(kit_payload_is(&job));
    for (int i = 0; i < 5; i++) luna_store_op_clear(&ops[i]);
    luna_store_close(&store);
    free(gate.body);
    free(job.body);
    free(twin.body);
}

//  The first of two equal jobs fails: the second must not claim that it is stored.
static void repetition_of_a_failed_put_is_not_accepted(void **state)
{
    (void)state;
    kit_job gate = kit_job_new(0), job = kit_job_new(1), other = kit_job_new(2);
    luna_store *store = kit_open_with(&faulty_files, NULL);
    luna_store_op ops[] = {kit_put(&gate), kit_put(&job), kit_put(&job), kit_put(&other)};
    faults_set(STEP_SYNC_DATA, 2, ENOSPC, false);
    faults_submit_behind(store, ops, 4);
    luna_store_drain(store);
    assert_int_equal(ops[0].err, LUNA_OK);
    assert_int_equal(ops[1].err, LUNA_NO_SPACE);
    assert_int_equal(ops[2].err, LUNA_BUSY);
    assert_int_equal(ops[3].err, LUNA_OK);
    while (luna_store_collect(store)) continue;
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, job.id)), LUNA_NOT_FOUND);
    luna_store_close(&store);
    assert_int_equal(kit_files_in("spool/ready"), 2);
    assert_int_equal(kit_files_in("spool/tmp"), 0);
    free(gate.body);
    free(job.body);
    free(other.body);
}

static void whole_life_fits_in_one_batch(void **state)
{
    (void)state;
    kit_job gate = kit_job_new(0), job = kit_job_new(1);
    luna_msg_image image = kit_image(0, "/o/a.png");
    luna_store *store = kit_open_with(&faulty_files, NULL);
    luna_store_op ops[] = {kit_put(&gate),
                           kit_put(&job),
                           kit_attempt(job.id, 1),
                           kit_requeue(job.id, 1, 0),
                           kit_attempt(job.id, 2),
                           kit_images(job.id, &image, 1),
                           kit_finish(job.id, LUNA_JOB_COMPLETED),
                           kit_forget(10000, 10),
                           kit_put(&job)};
    faults_set(STEPS, 0, 0, false);
    faults_submit_behind(store, ops, 9);
    luna_store_drain(store);
    for (int i = 0; i < 9; i++) assert_int_equal(ops[i].err, LUNA_OK);
    assert_int_equal(ops[7].changed, 1);
    assert_true(kit_payload_is(&job));
    luna_store_close(&store);
    assert_true(kit_payload_is(&job));
    free(gate.body);
    free(job.body);
}

#define NEIGHBOURS 7

//  Eight jobs in two batches, the first of one. The `at`-th write of the database finds
//  no room. Returns the writes that the first batch made.
static int put_with_full_database(int at, luna_err errs[NEIGHBOURS])
{
    kit_job jobs[NEIGHBOURS + 1];
    luna_store_op ops[NEIGHBOURS + 1];
    luna_store *store = kit_open_with(&faulty_files, NULL);
    for (unsigned i = 0; i <= NEIGHBOURS; i++) {
        jobs[i] = kit_job_new(i);
        ops[i] = kit_put(&jobs[i]);
    }
    faults_set(STEP_DB_WRITE, at, ENOSPC, false);
    faults_submit_behind(store, ops, NEIGHBOURS + 1);
    luna_store_drain(store);
    assert_true(luna_store_writable(store, NULL, 0));
    luna_store_close(&store);
    assert_int_equal(ops[0].err, LUNA_OK);
    for (int i = 0; i < NEIGHBOURS; i++) {
        errs[i] = ops[i + 1].err;
        assert_true(kit_payload_is(&jobs[i + 1]));
    }
    free_jobs(jobs, NEIGHBOURS + 1);
    kit_clean(NULL);
    int writes = 0;
    for (const char *c = strchr(faults.log, 'd'); *c != 'a'; c++) writes += *c == 'W';
    return writes;
}

//  The transaction of a batch fails once for lack of room: each operation gets a
//  second one of its own.
static void full_database_does_not_fail_the_neighbours(void **state)
{
    (void)state;
    luna_err errs[NEIGHBOURS];
    const int writes = put_with_full_database(0, errs);
    assert_true(writes > 0);
    assert_int_equal(faults.each[STEP_SYNC_DIR], 2);
    const int all = faults.each[STEP_DB_WRITE];
    put_with_full_database(writes + 1, errs);
    for (int i = 0; i < NEIGHBOURS; i++) assert_int_equal(errs[i], LUNA_OK);
    assert_int_equal(faults.each[STEP_SYNC_DIR], 2);
    assert_true(faults.each[STEP_DB_WRITE] >= all + NEIGHBOURS);
}

static void close_executes_what_is_queued(void **state)
{
    (void)state;
    kit_job jobs[10];
    luna_store_op ops[10];
    luna_store *store = kit_open_with(&faulty_files, NULL);
    for (unsigned i = 0; i < 10; i++) {
        jobs[i] = kit_job_new(i);
        ops[i] = kit_put(&jobs[i]);
    }
    faults_set(STEPS, 0, 0, false);
    faults_submit_behind(store, ops, 10);
    luna_store_close(&store);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(ops[i].err, LUNA_OK);
        assert_true(kit_payload_is(&jobs[i]));
    }
    free_jobs(jobs, 10);
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(steps_are_in_the_order_that_makes_them_safe),
        TEST(many_puts_share_their_syncs),
        TEST(operations_handed_over_together_share_a_batch),
        TEST(batches_are_bounded_by_count_and_bytes),
        TEST(repetition_in_one_batch_is_told),
        TEST(repetition_of_a_failed_put_is_not_accepted),
        TEST(whole_life_fits_in_one_batch),
        TEST(full_database_does_not_fail_the_neighbours),
        TEST(close_executes_what_is_queued),
    };
    faults_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
