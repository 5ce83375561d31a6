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

static void refusal_for_room_says_how_much(void **state)
{
    (void)state;
    char need[32];
    kit_job first, job = kit_job_new(1);
    luna_store *store = with_one_job(&first);
    faults_set(STEP_ALLOCATE, 1, ENOSPC, false);
    luna_store_op op = kit_put(&job);
    assert_int_equal(kit_run(store, &op), LUNA_NO_SPACE);
    snprintf(need, sizeof need, "%zu bytes", job.len + LUNA_PAYLOAD_HEADER_BYTES);
    assert_non_null(strstr(op.detail, need));
    assert_non_null(strstr(op.detail, "free"));
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free(first.body);
    free(job.body);
}

static int tight_free_bytes(const char *path, uint64_t *out)
{
    (void)path;
    *out = 10000;
    return 0;
}

static void reserve_is_kept(void **state)
{
    (void)state;
    luna_store *store = NULL;
    luna_store_jobs active;
    luna_files files = luna_files_system;
    files.free_bytes = tight_free_bytes;
    kit_job job = kit_job_new(1);
    luna_store_options options = kit_options(&files);
    const uint64_t need = job.len + LUNA_PAYLOAD_HEADER_BYTES;
    options.reserve_bytes = 10000 - need + 1;
    assert_int_equal(luna_store_open(&options, &store, &active), LUNA_OK);
    luna_store_op op = kit_put(&job);
    assert_int_equal(kit_run(store, &op), LUNA_NO_SPACE);
    assert_non_null(strstr(op.detail, "reserve"));
    assert_true(luna_store_writable(store, NULL, 0));
    luna_store_op_clear(&op);
    luna_store_close(&store);

    options.reserve_bytes = 10000 - need;
    assert_int_equal(luna_store_open(&options, &store, &active), LUNA_OK);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_close(&store);
    free(job.body);
}

//  A disk that stays full: what was accepted stays, and may still be asked for.
static void full_disk_loses_nothing(void **state)
{
    (void)state;
    kit_job first, job = kit_job_new(1);
    luna_store *store = with_one_job(&first);
    faults_set(STEP_DB_WRITE, 1, ENOSPC, true);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_NO_SPACE);
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_NO_SPACE);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)),
                     LUNA_NO_SPACE);
    luna_store_op op = kit_of(LUNA_STORE_GET, first.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    luna_store_op_clear(&op);
    char why[512];
    assert_false(luna_store_writable(store, why, sizeof why));
    assert_non_null(strstr(why, "ballast"));
    assert_true(kit_payload_is(&first));
    assert_false(kit_has("ready", job.id));

    faults_set(STEPS, 0, 0, false);
    while (!luna_store_writable(store, NULL, 0)) usleep(10000);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_close(&store);
    free(first.body);
    free(job.body);
}

//  The room that was kept is what the end of a job needs, and no job is accepted until
//  it is there again.
static void a_full_disk_does_not_keep_jobs_from_ending(void **state)
{
    (void)state;
    luna_store_condition_t condition;
    kit_job first, job = kit_job_new(1);
    luna_store *store = with_one_job(&first);
    luna_store_condition(store, &condition);
    assert_false(condition.ballast_spent);
    faults_set(STEP_DB_WRITE, 1, ENOSPC, false);  //  full until room is made
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_condition(store, &condition);
    assert_true(condition.ballast_spent);
    assert_non_null(strstr(condition.alarm, "ballast"));
    faults_set(STEP_ALLOCATE, 1, ENOSPC, true);
    luna_store_op op = kit_put(&job);
    assert_int_equal(kit_run(store, &op), LUNA_NO_SPACE);
    assert_non_null(strstr(op.detail, "full"));
    luna_store_op_clear(&op);
    faults_set(STEPS, 0, 0, false);
    while (!luna_store_writable(store, NULL, 0)) usleep(10000);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_condition(store, &condition);
    assert_false(condition.ballast_spent);
    assert_int_equal(strlen(condition.alarm), 0);
    luna_store_close(&store);
    free(first.body);
    free(job.body);
}

//  A disk that has no room for it at the start: served, not accepted.
static void a_start_without_room_for_the_ballast(void **state)
{
    (void)state;
    kit_job first;
    luna_store *store = with_one_job(&first);
    luna_store_close(&store);
    faults_set(STEP_ALLOCATE, 1, ENOSPC, true);
    store = kit_open_with(&faulty_files, NULL);
    assert_non_null(store);
    assert_false(luna_store_writable(store, NULL, 0));
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_OK);
    faults_set(STEPS, 0, 0, false);
    while (!luna_store_writable(store, NULL, 0)) usleep(10000);
    luna_store_close(&store);
    free(first.body);
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
        TEST(refusal_for_room_says_how_much),
        TEST(reserve_is_kept),
        TEST(full_disk_loses_nothing),
        TEST(a_full_disk_does_not_keep_jobs_from_ending),
        TEST(a_start_without_room_for_the_ballast),
        TEST(failed_removal_brings_no_job_back),
        TEST(forget_needs_a_durable_removal),
    };
    faults_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
