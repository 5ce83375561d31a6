//  A disk without room: what is refused, what must go on, and what comes back.

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

static void wait_until_writable(luna_store *store)
{
    while (!luna_store_writable(store, NULL, 0)) usleep(10000);
}

//  From the next step on there is no room; with the ballast there is, but not for it.
static void fill_disk(int at, bool ballast_helps)
{
    faults_set(STEPS, at, ENOSPC, true);
    faults.plan.ballast_helps = ballast_helps;
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

//  ---- the ballast -------------------------------------------------------------------

static void assert_spent(luna_store *store, bool spent)
{
    char why[512] = "";
    luna_store_condition_t condition;
    luna_store_condition(store, &condition);
    assert_int_equal(condition.ballast_spent, spent);
    assert_int_equal(strstr(condition.alarm, "disk is full") != NULL, spent);
    assert_int_equal(luna_store_writable(store, why, sizeof why), !spent);
    assert_int_equal(strstr(why, "disk is full") != NULL, spent);
}

//  A job comes to its end whenever the disk became full in its life; new ones are
//  refused from then on, and taken again when there is room.
static void jobs_end_on_a_full_disk(void **state)
{
    (void)state;
    kit_job first, job = kit_job_new(1);
    const luna_msg_image image = kit_image(0, "/o/a.png");
    bool hit = true;
    for (int at = 1; hit; at++) {
        luna_store *store = with_one_job(&first);
        fill_disk(at, true);
        assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_OK);
        assert_int_equal(kit_do(store, kit_images(first.id, &image, 1)), LUNA_OK);
        assert_int_equal(kit_do(store, kit_requeue(first.id, 1, 0)), LUNA_OK);
        assert_int_equal(kit_do(store, kit_attempt(first.id, 2)), LUNA_OK);
        assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)),
                         LUNA_OK);
        hit = atomic_load(&faults.freed);
        if (hit) {
            assert_spent(store, true);
            luna_store_op op = kit_put(&job);
            assert_int_equal(kit_run(store, &op), LUNA_NO_SPACE);
            assert_non_null(strstr(op.detail, "reserve"));
            luna_store_op_clear(&op);
            assert_false(kit_has("ready", job.id));
        }
        faults_set(STEPS, 0, 0, false);
        if (hit && at > 1) {  //  once is enough to wait for
            luna_store_close(&store);
            store = kit_open();
        }
        wait_until_writable(store);
        assert_spent(store, false);
        assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
        luna_store_close(&store);
        kit_clean(NULL);
        free(first.body);
        assert_true(at < 100);
    }
    free(job.body);
}

//  Even the ballast is not enough: what was accepted stays, and may still be asked for.
static void full_disk_loses_nothing(void **state)
{
    (void)state;
    kit_job first, job = kit_job_new(1);
    luna_store *store = with_one_job(&first);
    faults_set(STEP_DB_WRITE, 1, ENOSPC, true);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_NO_SPACE);
    assert_true(luna_store_writable(store, NULL, 0));  //  a PUT never spends it
    assert_int_equal(kit_do(store, kit_attempt(first.id, 1)), LUNA_NO_SPACE);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)),
                     LUNA_NO_SPACE);
    luna_store_op op = kit_of(LUNA_STORE_GET, first.id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_PENDING);
    luna_store_op_clear(&op);
    assert_true(kit_payload_is(&first));
    assert_false(kit_has("ready", job.id));

    faults_set(STEPS, 0, 0, false);
    wait_until_writable(store);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(first.id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_close(&store);
    free(first.body);
    free(job.body);
}

//  A broker that starts on a full disk serves what it has.
static void opening_on_a_full_disk_spends_the_ballast(void **state)
{
    (void)state;
    kit_job first;
    luna_store_jobs active;
    luna_store *store = with_one_job(&first);
    luna_store_close(&store);
    fill_disk(1, true);
    faults.plan.kind = STEP_DB_WRITE;
    store = kit_open_with(&faulty_files, &active);
    assert_non_null(store);
    assert_int_equal(active.count, 1);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free(first.body);
}

static void full_disk_at_the_first_start_is_no_error(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    faults_set(STEP_ALLOCATE, 1, ENOSPC, true);
    luna_store *store = kit_open_with(&faulty_files, NULL);
    assert_non_null(store);
    assert_spent(store, true);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_NO_SPACE);
    faults_set(STEPS, 0, 0, false);
    wait_until_writable(store);
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_close(&store);
    free(job.body);
}

static int clean(void **state)
{
    faults_set(STEPS, 0, 0, false);
    return kit_clean(state);
}

#define TEST(name) cmocka_unit_test_teardown(name, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refusal_for_room_says_how_much),
        TEST(reserve_is_kept),
        TEST(jobs_end_on_a_full_disk),
        TEST(full_disk_loses_nothing),
        TEST(opening_on_a_full_disk_spends_the_ballast),
        TEST(full_disk_at_the_first_start_is_no_error),
    };
    faults_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
