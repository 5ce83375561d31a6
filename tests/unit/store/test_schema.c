//  Databases of older versions, and what a row's checksum notices.

#include "kit.h"

#include <sqlite3.h>
#include <sys/stat.h>

static void run_sql(const char *sql)
{
    sqlite3 *db = NULL;
    char *why = NULL;
    assert_int_equal(sqlite3_open("state/luna.db", &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) fail_msg("%s", why);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

//  The database as version 1 made it, with a waiting, a running and a failed job.
static const char version_1[] =
    "PRAGMA journal_mode = WAL;"
    "CREATE TABLE job ("
    "  id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),"
    "  state TEXT NOT NULL CHECK (state IN"
    "    ('pending', 'in_progress', 'completed', 'failed', 'cancelled')),"
    "  client BLOB NOT NULL, prompt_id TEXT, priority INTEGER NOT NULL,"
    "  images INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    "  attempts INTEGER NOT NULL, lost INTEGER NOT NULL, refused INTEGER NOT NULL,"
    "  created_ms INTEGER NOT NULL, accepted_ms INTEGER NOT NULL,"
    "  started_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,"
    "  vae TEXT, decoder TEXT, error TEXT, detail TEXT"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX job_accepted ON job (accepted_ms, id);"
    "CREATE INDEX job_state ON job (state, accepted_ms, id);"
    "CREATE INDEX job_finished ON job (finished_ms)"
    "  WHERE state IN ('completed', 'failed', 'cancelled');"
    "CREATE TABLE image ("
    "  job BLOB NOT NULL REFERENCES job (id) ON DELETE CASCADE,"
    "  input INTEGER NOT NULL, idx INTEGER NOT NULL,"
    "  path TEXT, bytes INTEGER NOT NULL, sha256 TEXT,"
    "  width INTEGER NOT NULL, height INTEGER NOT NULL,"
    "  decode_ms REAL, encode_ms REAL, write_ms REAL,"
    "  PRIMARY KEY (job, input, idx)"
    ") STRICT, WITHOUT ROWID;"
    "PRAGMA application_id = 1280659009;"
    "PRAGMA user_version = 1;"
    "INSERT INTO job VALUES"
    "  (x'0193f1c2000070008000000000000001', 'pending',"
    "   x'0193f1c20000700080000000000003e7', 'prompt-7', 1, 2, %zu, 0, 0, 0,"
    "   1000, 1001, 0, 0, 'flux', NULL, NULL, NULL),"
    "  (x'0193f1c2000070008000000000000002', 'in_progress',"
    "   x'0193f1c20000700080000000000003e7', NULL, 2, 2, %zu, 3, 1, 1,"
    "   1001, 1002, 1500, 0, 'flux', 'gpu1', NULL, NULL),"
    "  (x'0193f1c2000070008000000000000003', 'failed',"
    "   x'0193f1c20000700080000000000003e7', NULL, 3, 2, %zu, 2, 0, 2,"
    "   1002, 1003, 1600, 1700, 'flux', 'gpu1', 'bad_latent', 'NaN');"
    "INSERT INTO image VALUES (x'0193f1c2000070008000000000000002', 0, 1,"
    "  '/o/b.png', 77, 'ab12', 1024, 768, 1.5, 2.0, 0.25);";

static void write_payload(const kit_job *job)
{
    char path[256];
    uint8_t header[LUNA_PAYLOAD_HEADER_BYTES];
    const luna_blob body = {.data = job->body, .len = job->len};
    luna_payload_header(
        &(luna_payload){.id = job->id, .body = body, .hash = luna_payload_hash(body)},
        header);
    kit_path(path, "ready", job->id);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(header, 1, sizeof header, file), sizeof header);
    assert_int_equal(fwrite(job->body, 1, job->len, file), job->len);
    assert_int_equal(fclose(file), 0);
}

static void make_version_1(kit_job jobs[4])
{
    char sql[4096];
    luna_store *store = kit_open();  //  the folders
    luna_store_close(&store);
    kit_empty("state");
    assert_int_equal(mkdir("state", 0700), 0);
    for (unsigned i = 1; i < 4; i++) {
        jobs[i] = kit_job_new(i);
        write_payload(&jobs[i]);
    }
    snprintf(sql, sizeof sql, version_1, jobs[1].len, jobs[2].len, jobs[3].len);
    run_sql(sql);
}

static void version_1_is_brought_up_to_date(void **state)
{
    (void)state;
    kit_job jobs[4];
    luna_store_jobs active;
    make_version_1(jobs);
    for (int round = 0; round < 2; round++) {
        luna_store *store = kit_open_with(NULL, &active);
        assert_non_null(store);
        assert_int_equal(active.count, 2);
        assert_memory_equal(&active.items[0].info.id, &jobs[1].id, 16);
        assert_int_equal(active.items[0].batches[0], 0);  //  not known
        assert_int_equal(active.items[0].content, 0);
        assert_int_equal(active.items[0].info.deadline_ms, 0);
        assert_false(active.items[0].info.next);
        assert_int_equal(active.items[1].state, LUNA_JOB_IN_PROGRESS);
        assert_int_equal(active.items[1].info.attempts, 3);
        assert_int_equal(active.items[1].info.lost, 1);
        assert_int_equal(active.items[1].info.files.count, 1);
        assert_true(luna_text_is(active.items[1].info.files.items[0].path, "/o/b.png"));
        luna_store_jobs_free(&active);
        assert_false(luna_store_paused(store));
        luna_store_close(&store);
    }
    for (unsigned i = 1; i < 4; i++) free(jobs[i].body);
}

static void jobs_of_version_1_go_on(void **state)
{
    (void)state;
    kit_job jobs[4];
    luna_msg_image far = kit_image(40, "/o/x.png");
    make_version_1(jobs);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&jobs[1])), LUNA_EXISTS);
    assert_int_equal(kit_do(store, kit_images(jobs[2].id, &far, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_attempt(jobs[1].id, 1)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(jobs[1].id, LUNA_JOB_COMPLETED)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_finish(jobs[2].id, LUNA_JOB_COMPLETED)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_of(LUNA_STORE_RETRY, jobs[3].id)), LUNA_OK);
    luna_store_close(&store);
    luna_store_jobs active;
    store = kit_open_with(NULL, &active);
    assert_int_equal(active.count, 1);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    for (unsigned i = 1; i < 4; i++) free(jobs[i].body);
}

//  What version 4 added, taken away again: as version 3 had it, its sums over fewer
//  columns.
static void version_3_is_brought_up_to_date(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_close(&store);
    run_sql(
        "ALTER TABLE job DROP COLUMN vae_name; ALTER TABLE job DROP COLUMN vae_path;"
        "ALTER TABLE job DROP COLUMN vae_sha256; ALTER TABLE job DROP COLUMN formats;"
        "UPDATE job SET sum = 12345;"
        "PRAGMA user_version = 3;");
    luna_store_jobs active;
    store = kit_open_with(NULL, &active);
    assert_non_null(store);
    assert_int_equal(active.count, 1);
    assert_int_equal(active.items[0].info.bytes, job.len);
    assert_null(active.items[0].info.vae_name.data);
    luna_store_jobs_free(&active);
    assert_int_equal(kit_do(store, kit_attempt(job.id, 1)), LUNA_OK);
    luna_store_op done = kit_finish(job.id, LUNA_JOB_COMPLETED);
    done.in.finish.vae.name = luna_text_of("ae");
    assert_int_equal(kit_do(store, done), LUNA_OK);
    luna_store_close(&store);
    free(job.body);
}

//  A job of version 4 is asked of any decoder, as it was.
static void version_4_is_brought_up_to_date(void **state)
{
    (void)state;
    kit_job job = kit_job_new(1);
    luna_store *store = kit_open();
    assert_int_equal(kit_do(store, kit_put(&job)), LUNA_OK);
    luna_store_close(&store);
    run_sql(
        "ALTER TABLE job DROP COLUMN formats; UPDATE job SET sum = 12345;"
        "PRAGMA user_version = 4;");
    luna_store_jobs active;
    store = kit_open_with(NULL, &active);
    assert_non_null(store);
    assert_int_equal(active.count, 1);
    assert_int_equal(active.items[0].info.bytes, job.len);
    assert_int_equal(active.items[0].formats, 0);
    luna_store_jobs_free(&active);
    assert_int_equal(kit_do(store, kit_attempt(job.id, 1)), LUNA_OK);
    luna_store_close(&store);
    free(job.body);
}

//  A half done upgrade would have no version of its own: all of it or nothing.
static void upgrade_that_fails_changes_nothing(void **state)
{
    (void)state;
    kit_job jobs[4];
    luna_store *store = NULL;
    luna_store_jobs active;
    const luna_store_options options = kit_options(NULL);
    make_version_1(jobs);
    run_sql("CREATE TABLE setting (x)");  //  in the way of the last statement
    assert_int_not_equal(luna_store_open(&options, &store, &active), LUNA_OK);
    run_sql("DROP TABLE setting");
    store = kit_open_with(NULL, &active);
    assert_non_null(store);
    assert_int_equal(active.count, 2);
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    for (unsigned i = 1; i < 4; i++) free(jobs[i].body);
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(version_1_is_brought_up_to_date),    TEST(jobs_of_version_1_go_on),
        TEST(version_3_is_brought_up_to_date),    TEST(version_4_is_brought_up_to_date),
        TEST(upgrade_that_fails_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
