//  Single failures of the disk: what each does to its operation and to the others.

#include "faults.h"

//  A store that holds job 0, and nothing counted yet.
static luna_store *with_one_job(kit_job *first)
{
    *first = kit_job_new(0);
    luna_store *store = kit_open_with(&faulty_files, NULL);
    assert_non_null(store);
    assert_int_equal(kit_do(store, kit_put(first)), LUNA_OK);
    return store;
}

//  Whatever a PUT died of: nothing of it is left, and the store serves what it has.
static void assert_unharmed(luna_store *store, const kit_job *first, const kit_job *job)
{
    faults_set(STEPS, 0, 0, false);
    assert_int_equal(kit_files_in("spool/tmp"), 0);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, job->id)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_attempt(first->id, 1)), LUNA_OK);
    assert_true(kit_payload_is(first));
}

static void put_fails_with(step kind, int code, luna_err want, bool writable)
{
    char why[512] = "";
    kit_job first, job = kit_job_new(1);
    luna_store *store = with_one_job(&first);
    faults_set((int)kind, 1, code, false);
    luna_store_op op = kit_put(&job);
    assert_int_equal(kit_run(store, &op), want);
    assert_true(strlen(op.detail) > 10);
    luna_store_op_clear(&op);
    assert_unharmed(store, &first, &job);
    assert_int_equal(luna_store_writable(store, why, sizeof why), writable);
    assert_int_equal(strlen(why) > 10, !writable);

    op = kit_put(&job);
    assert_int_equal(kit_run(store, &op), writable ? LUNA_OK : LUNA_IO);
    if (!writable) assert_non_null(strstr(op.detail, "read-only"));
    luna_store_op_clear(&op);
    assert_int_equal(kit_do(store, kit_put(&first)), LUNA_EXISTS);
    luna_store_close(&store);

    store = kit_open();  //  a new start accepts again
    const luna_err again = kit_do(store, kit_put(&job));
    assert_true(again == LUNA_OK || again == LUNA_EXISTS);
    assert_true(kit_payload_is(&job));
    luna_store_close(&store);
    kit_clean(NULL);
    free(first.body);
    free(job.body);
}

static void each_step_of_a_put_may_fail(void **state)
{
    (void)state;
    static const struct {
        step kind;
        bool io_is_final;  //  EIO here makes the store read-only
    } rows[] = {{STEP_ALLOCATE, false}, {STEP_WRITE, false},    {STEP_RENAME, false},
                {STEP_SETTLE, true},    {STEP_SYNC_DATA, true}, {STEP_SYNC_DIR, true},
                {STEP_DB_WRITE, true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put_fails_with(rows[i].kind, EIO, LUNA_IO, !rows[i].io_is_final);
        put_fails_with(rows[i].kind, ENOSPC, LUNA_NO_SPACE, true);
    }
}

//  The sync of a later operation fails: it has not happened, and no job is taken in.
static void failed_sync_of_the_rows_is_final(void **state)
{
    (void)state;
    kit_job first, job = kit_job_new(1);
    luna_store_condition_t condition;
    luna_store *store = with_one_job(&first);
    faults_set(STEP_DB_SYNC, 1, EIO, false);
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_IO);
    luna_store_op op = kit_of(LUNA_STORE_GET, first.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    luna_store_op_clear(&op);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_IO);
    assert_false(luna_store_writable(store, NULL, 0));
    luna_store_condition(store, &condition);
    assert_true(condition.read_only);
    assert_true(strlen(condition.alarm) > 10);
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_OK);
    luna_store_close(&store);
    free(first.body);
    free(job.body);
}

//  Bytes that could not be removed: the job does not come back.
static void failed_removal_brings_no_job_back(void **state)
{
    (void)state;
    kit_job first;
    luna_store_jobs active;
    luna_store *store = with_one_job(&first);
    faults_set(STEP_UNLINK, 1, EIO, true);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_op op = kit_forget(10000, 10);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 0);  //  its row guards the payload
    luna_store_close(&store);
    assert_true(kit_has("ready", first.id));

    faults_set(STEPS, 0, 0, false);
    store = kit_open_with(&faulty_files, &active);
    assert_int_equal(active.count, 0);
    assert_false(kit_has("ready", first.id));
    op = kit_forget(10000, 10);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.changed, 1);
    luna_store_close(&store);
    free(first.body);
}

static void forget_needs_a_durable_removal(void **state)
{
    (void)state;
    kit_job first;
    luna_store *store = with_one_job(&first);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_FAILED)), LUNA_OK);
    faults_set(STEP_SYNC_DIR, 1, EIO, false);
    luna_store_op op = kit_forget(10000, 10);
    assert_int_equal(kit_run(store, &op), LUNA_IO);
    assert_int_equal(op.changed, 0);
    luna_store_op_clear(&op);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, first.id)), LUNA_OK);
    assert_false(luna_store_writable(store, NULL, 0));
    luna_store_close(&store);
    free(first.body);
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_step_of_a_put_may_fail),
        TEST(failed_sync_of_the_rows_is_final),
        TEST(failed_removal_brings_no_job_back),
        TEST(forget_needs_a_durable_removal),
    };
    faults_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
