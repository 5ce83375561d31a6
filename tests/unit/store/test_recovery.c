//  What open repairs: each kind of disagreement between rows and payloads.

#include "kit.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

//  A store with these jobs, closed again.
static void prepare(kit_job *jobs, unsigned count)
{
    luna_store *store = kit_open();
    for (unsigned i = 0; i < count; i++) {
        jobs[i] = kit_job_new(i);
        assert_int_equal(kit_do(store, kit_put(&jobs[i])), LUNA_OK);
    }
    luna_store_close(&store);
}

static void free_jobs(kit_job *jobs, unsigned count)
{
    for (unsigned i = 0; i < count; i++) free(jobs[i].body);
}

static void assert_failed(luna_store *store, luna_id id, const char *word)
{
    luna_store_op op = kit_of(LUNA_STORE_GET, id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const luna_msg_job_info *info = &op.found.items[0].info;
    assert_int_equal(op.state, LUNA_JOB_FAILED);
    assert_true(luna_text_is(info->error, "io"));
    assert_non_null(strstr(info->detail.data, word));
    assert_true(info->finished_ms > 0);
    luna_store_op_clear(&op);
}

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void run_sql(const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open("state/luna.db", &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void damaged_and_missing_payloads_fail_their_job_alone(void **state)
{
    (void)state;
    char path[256];
    kit_job jobs[5];
    luna_store_jobs active;
    prepare(jobs, 5);
    kit_path(path, "ready", jobs[0].id);
    kit_damage(path, 20);  //  in the header
    kit_path(path, "ready", jobs[1].id);
    assert_int_equal(truncate(path, (off_t)jobs[1].len), 0);
    kit_path(path, "ready", jobs[2].id);
    assert_int_equal(unlink(path), 0);
    kit_path(path, "ready", jobs[3].id);
    assert_int_equal(truncate(path, 10), 0);

    luna_store *store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 1);
    assert_memory_equal(&active.items[0].info.id, &jobs[4].id, 16);
    luna_store_jobs_free(&active);
    assert_failed(store, jobs[0].id, "damaged");
    assert_failed(store, jobs[1].id, "damaged");
    assert_failed(store, jobs[2].id, "missing");
    assert_failed(store, jobs[3].id, "damaged");
    assert_true(kit_has("quarantine", jobs[0].id));
    assert_true(kit_has("quarantine", jobs[1].id));
    assert_false(kit_has("quarantine", jobs[2].id));
    assert_false(kit_has("ready", jobs[0].id));
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_RETRY, jobs[0].id)), LUNA_NOT_FOUND);
    luna_store_close(&store);
    free_jobs(jobs, 5);
}

static void payload_of_another_job_is_damage(void **state)
{
    (void)state;
    char from[256], to[256];
    kit_job jobs[2];
    prepare(jobs, 2);
    kit_path(from, "ready", jobs[0].id);
    kit_path(to, "ready", jobs[1].id);
    assert_int_equal(rename(from, to), 0);
    luna_store *store = kit_open();
    assert_failed(store, jobs[0].id, "missing");
    assert_failed(store, jobs[1].id, "another job");
    luna_store_close(&store);
    free_jobs(jobs, 2);
}

static void lost_database_is_rebuilt_from_the_spool(void **state)
{
    (void)state;
    char path[256];
    kit_job jobs[4];
    luna_store_jobs active;
    prepare(jobs, 4);
    kit_path(path, "ready", jobs[0].id);
    kit_damage(path, 300);  //  in the body
    kit_path(path, "ready", jobs[1].id);
    kit_damage(path, 0);  //  in the header
    kit_empty("state");

    luna_store *store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 2);
    for (int i = 0; i < 2; i++) {
        const luna_store_job *row = &active.items[i];
        assert_memory_equal(&row->info.id, &jobs[2 + i].id, 16);  //  oldest first
        assert_int_equal(row->state, LUNA_JOB_PENDING);
        assert_int_equal(row->info.bytes, jobs[2 + i].len);
        assert_int_equal(row->info.images, KIT_BATCH);
        assert_int_equal(row->batches[0], KIT_BATCH);
        assert_int_equal(row->info.created_ms, jobs[2 + i].accepted_ms - 1);
        assert_int_equal(row->info.accepted_ms, jobs[2 + i].accepted_ms);
        assert_true(luna_text_is(row->info.vae, "flux"));
        assert_true(luna_text_is(row->prompt_id, "prompt-7"));
        assert_int_equal(row->client.byte[15], (uint8_t)999);
    }
    luna_store_jobs_free(&active);
    assert_true(kit_has("quarantine", jobs[0].id));
    assert_true(kit_has("quarantine", jobs[1].id));
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_GET, jobs[0].id)), LUNA_NOT_FOUND);
    assert_int_equal(kit_do(store, kit_put(&jobs[2])), LUNA_EXISTS);
    luna_store_close(&store);
    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 2);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    free_jobs(jobs, 4);
}

//  A name that leads to itself is as a disk that cannot read now: `well` ends it.
static void fall_ill(luna_id id, bool well)
{
    char path[256];
    const char *away = "away";
    kit_path(path, "ready", id);
    if (well) {
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rename(away, path), 0);
    } else {
        assert_int_equal(rename(path, away), 0);
        assert_int_equal(symlink(strrchr(path, '/') + 1, path), 0);
    }
}

static size_t active_at_start(void)
{
    luna_store_jobs active;
    luna_store *store = kit_open_with(NULL, &active);
    const size_t count = active.count;
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    return count;
}

static void what_cannot_be_read_now_is_no_damage(void **state)
{
    (void)state;
    kit_job jobs[2];
    prepare(jobs, 2);
    fall_ill(jobs[0].id, false);
    assert_int_equal(active_at_start(), 2);
    assert_int_equal(kit_files_in("spool/quarantine"), 0);
    fall_ill(jobs[0].id, true);
    assert_int_equal(active_at_start(), 2);
    free_jobs(jobs, 2);
}

static void a_lost_row_waits_for_its_payload(void **state)
{
    (void)state;
    kit_job jobs[2];
    prepare(jobs, 2);
    kit_empty("state");
    fall_ill(jobs[0].id, false);
    assert_int_equal(active_at_start(), 1);
    assert_int_equal(kit_files_in("spool/quarantine"), 0);
    fall_ill(jobs[0].id, true);
    assert_int_equal(active_at_start(), 2);
    free_jobs(jobs, 2);
}

//  A sound file around bytes that are no job, or one that would be refused.
static void put_file(luna_id id, const void *body, size_t len)
{
    char path[256];
    uint8_t *file = malloc(LUNA_PAYLOAD_HEADER_BYTES + len);
    const luna_blob blob = {.data = body, .len = len};
    luna_payload_header(
        &(luna_payload){.id = id, .body = blob, .hash = luna_payload_hash(blob)}, file);
    memcpy(file + LUNA_PAYLOAD_HEADER_BYTES, body, len);
    kit_path(path, "ready", id);
    write_file(path, file, LUNA_PAYLOAD_HEADER_BYTES + len);
    free(file);
}

static void what_is_no_job_is_put_aside(void **state)
{
    (void)state;
    kit_job jobs[1], other = kit_job_new(50);
    luna_store_jobs active;
    prepare(jobs, 1);
    write_file("spool/ready/notes.txt", "hello", 5);
    write_file("spool/ready/0193F1C2-0000-7000-8000-000000000009", "x", 1);
    put_file(kit_id(10), "\x01", 1);
    put_file(kit_id(11), "", 0);
    put_file(kit_id(12), other.body, other.len);  //  the body is job 50

    luna_store *store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 1);
    luna_store_jobs_free(&active);
    assert_int_equal(kit_files_in("spool/ready"), 1);
    assert_int_equal(kit_files_in("spool/quarantine"), 5);
    luna_store_close(&store);
    free_jobs(jobs, 1);
    free(other.body);
}

static void leftovers_of_a_crash_are_removed(void **state)
{
    (void)state;
    kit_job jobs[3];
    prepare(jobs, 3);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_finish(jobs[0].id, LUNA_JOB_COMPLETED)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(jobs[1].id, LUNA_JOB_FAILED)), LUNA_OK);
    luna_store_close(&store);
    put_file(jobs[0].id, jobs[0].body, jobs[0].len);  //  its removal was cut off
    write_file("spool/tmp/0193f1c2-0000-7000-8000-000000000077", "half", 4);

    store = kit_open();
    assert_int_equal(kit_files_in("spool/tmp"), 0);
    assert_false(kit_has("ready", jobs[0].id));
    assert_true(kit_payload_is(&jobs[1]));
    assert_true(kit_payload_is(&jobs[2]));
    luna_store_op op = kit_of(LUNA_STORE_GET, jobs[0].id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    assert_int_equal(op.state, LUNA_JOB_COMPLETED);
    luna_store_op_clear(&op);
    luna_store_close(&store);
    free_jobs(jobs, 3);
}

static luna_err open_again(void)
{
    luna_store *store = NULL;
    luna_store_jobs active = {0};
    const luna_store_options options = kit_options(NULL);
    const luna_err err = luna_store_open(&options, &store, &active);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    return err;
}

static void strange_databases_are_refused_and_left_alone(void **state)
{
    (void)state;
    kit_job jobs[1];
    prepare(jobs, 1);
    run_sql("PRAGMA user_version = 6");
    assert_int_equal(open_again(), LUNA_UNSUPPORTED);
    assert_non_null(strstr(luna_error_text(), "schema version 6"));
    run_sql("PRAGMA user_version = 5");
    assert_int_equal(open_again(), LUNA_OK);
    run_sql("PRAGMA application_id = 7");
    assert_int_equal(open_again(), LUNA_UNSUPPORTED);
    assert_true(kit_payload_is(&jobs[0]));

    kit_empty("state");
    assert_int_equal(mkdir("state", 0700), 0);
    char noise[8192];
    memset(noise, 'x', sizeof noise);
    write_file("state/luna.db", noise, sizeof noise);
    assert_int_equal(open_again(), LUNA_IO);
    assert_non_null(strstr(luna_error_text(), "--recover"));
    assert_true(kit_payload_is(&jobs[0]));
    free_jobs(jobs, 1);
}

static size_t open_to_recover(void)
{
    luna_store *store = NULL;
    luna_store_jobs active = {0};
    luna_store_options options = kit_options(NULL);
    options.recover = true;
    assert_int_equal(luna_store_open(&options, &store, &active), LUNA_OK);
    for (size_t i = 0; i < active.count; i++)
        assert_int_equal(active.items[i].state, LUNA_JOB_PENDING);
    const size_t count = active.count;
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    return count;
}

static uint64_t attempts_of(const kit_job *job)
{
    luna_store *store = kit_open();
    luna_store_op op = kit_of(LUNA_STORE_GET, job->id);
    assert_int_equal(kit_run(store, &op), LUNA_OK);
    const uint64_t attempts = op.found.items[0].info.attempts;
    luna_store_op_clear(&op);
    luna_store_close(&store);
    return attempts;
}

//  Each page of the database overwritten in turn: with `recover` every payload is a job
//  again, and the damaged file is kept.
static void damaged_database_makes_way(void **state)
{
    (void)state;
    kit_job jobs[3];
    prepare(jobs, 3);
    struct stat info;
    assert_int_equal(stat("state/luna.db", &info), 0);
    char noise[4096];
    memset(noise, 0xa5, sizeof noise);
    for (off_t at = 0; at < info.st_size; at += (off_t)sizeof noise) {
        const int fd = open("state/luna.db", O_RDWR);
        assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
        close(fd);
        unlink("state/luna.db-wal");
        unlink("state/luna.db-shm");
        assert_int_equal(open_to_recover(), 3);
        for (int i = 0; i < 3; i++) assert_true(kit_payload_is(&jobs[i]));
    }
    assert_true(attempts_of(&jobs[0]) >= 1000);
    assert_true(kit_files_in("state") > 4);
    free_jobs(jobs, 3);
}

static void sound_database_is_kept(void **state)
{
    (void)state;
    kit_job jobs[2];
    prepare(jobs, 2);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_finish(jobs[0].id, LUNA_JOB_COMPLETED)), LUNA_OK);
    luna_store_close(&store);
    assert_int_equal(open_to_recover(), 1);
    assert_int_equal(attempts_of(&jobs[0]), 0);
    assert_int_equal(attempts_of(&jobs[1]), 0);
    free_jobs(jobs, 2);
}

static void folders_that_cannot_be_made_are_named(void **state)
{
    (void)state;
    write_file("spool", "", 0);
    assert_int_equal(open_again(), LUNA_CANT_CREATE);
    assert_non_null(strstr(luna_error_text(), "spool"));
    unlink("spool");
    write_file("state", "", 0);
    assert_int_equal(open_again(), LUNA_CANT_CREATE);
    assert_non_null(strstr(luna_error_text(), "state"));
    unlink("state");
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(damaged_and_missing_payloads_fail_their_job_alone),
        TEST(payload_of_another_job_is_damage),
        TEST(lost_database_is_rebuilt_from_the_spool),
        TEST(what_cannot_be_read_now_is_no_damage),
        TEST(a_lost_row_waits_for_its_payload),
        TEST(what_is_no_job_is_put_aside),
        TEST(leftovers_of_a_crash_are_removed),
        TEST(strange_databases_are_refused_and_left_alone),
        TEST(damaged_database_makes_way),
        TEST(sound_database_is_kept),
        TEST(folders_that_cannot_be_made_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
