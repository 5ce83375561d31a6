//  Bits that flipped on the disk: every page of the database and many bytes of payloads
//  are damaged in turn. Opening never fails in another way than by saying what to do,
//  never loses an intact payload, and tells of what it found.

#include "kit.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#define JOBS       60
#define PAGE_BYTES 4096

//  What a job was before anything was damaged.
typedef struct was {
    kit_job job;
    luna_job_state state;
    uint64_t attempts;
    uint64_t images;
    void *file;  //  its payload, NULL when it has none
    size_t len;
} was;

static was before[JOBS];
static char *database;
static size_t database_len;

//  ---- the store before the damage
//  -------------------------------------------------------

static void live_one(luna_store *store, unsigned i)
{
    static const luna_job_state ends[] = {LUNA_JOB_COMPLETED, LUNA_JOB_CANCELLED,
                                          LUNA_JOB_FAILED};
    const luna_msg_image image = kit_image(0, "/o/a.png");
    was *w = &before[i];
    assert_int_equal(kit_do(store, kit_put(&w->job)), LUNA_OK);
    w->state = LUNA_JOB_PENDING;
    if (i % 3 == 0) return;
    w->attempts = 1 + i % 5;
    w->images = 1;
    w->state = i % 3 == 1 ? LUNA_JOB_IN_PROGRESS : ends[i / 3 % 3];
    assert_int_equal(kit_do(store, kit_attempt(w->job.id, w->attempts)), LUNA_OK);
    assert_int_equal(kit_do(store, kit_images(w->job.id, &image, 1)), LUNA_OK);
    if (i % 3 == 2)
        assert_int_equal(kit_do(store, kit_finish(w->job.id, w->state)), LUNA_OK);
}

static void keep_files(void)
{
    char path[256];
    assert_int_equal(
        luna_file_read("state/luna.db", SIZE_MAX - 1, &database, &database_len), LUNA_OK);
    for (unsigned i = 0; i < JOBS; i++) {
        char *data = NULL;
        kit_path(path, "ready", before[i].job.id);
        if (luna_file_read(path, SIZE_MAX - 1, &data, &before[i].len) == LUNA_OK)
            before[i].file = data;
    }
}

static int make_store(void **state)
{
    luna_store *store = kit_open();
    for (unsigned i = 0; i < JOBS; i++) {
        before[i].job = kit_job_new(i);
        live_one(store, i);
    }
    luna_store_close(&store);
    keep_files();
    return kit_clean(state);
}

static int free_all(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOBS; i++) {
        free(before[i].job.body);
        free(before[i].file);
    }
    free(database);
    return 0;
}

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void restore(void)
{
    char path[256];
    static const char *const folders[] = {"state", "spool", "spool/ready", "spool/tmp",
                                          "spool/quarantine"};
    for (size_t i = 0; i < 5; i++) mkdir(folders[i], 0700);
    write_file("state/luna.db", database, database_len);
    for (unsigned i = 0; i < JOBS; i++) {
        kit_path(path, "ready", before[i].job.id);
        if (before[i].file) write_file(path, before[i].file, before[i].len);
    }
}

//  ---- opening with an eye on the log
//  -----------------------------------------------------

static char log_text[65536];

static luna_err open_watched(bool recover, luna_store **store, luna_store_jobs *active)
{
    luna_store_options options = kit_options(NULL);
    options.recover = recover;
    fflush(stderr);
    const int own = dup(2), file = open("log", O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(own >= 0 && file >= 0);
    dup2(file, 2);
    *store = NULL;
    const luna_err err = luna_store_open(&options, store, active);
    dup2(own, 2);
    close(own);
    const ssize_t n = pread(file, log_text, sizeof log_text - 1, 0);
    log_text[n > 0 ? n : 0] = '\0';
    close(file);
    unlink("log");
    return err;
}

static bool told_of(luna_id id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(&id, text);
    return strstr(log_text, text) != NULL;
}

//  ---- what must hold ------------------------------------------------------------------

typedef struct now {
    luna_err err;
    luna_job_state state;
    uint64_t attempts;
    uint64_t images;
    bool rest;  //  all that never changes is as it was
} now;

static now ask(luna_store *store, const was *w)
{
    luna_store_op op = kit_of(LUNA_STORE_GET, w->job.id);
    now seen = {.err = kit_run(store, &op), .state = op.state};
    if (seen.err == LUNA_OK) {
        const luna_store_job *job = &op.found.items[0];
        const luna_id client = kit_id(999);
        seen.attempts = job->info.attempts;
        seen.images = job->info.images_done;
        seen.rest = job->info.priority == w->job.priority &&
                    job->info.accepted_ms == w->job.accepted_ms &&
                    job->info.bytes == w->job.len && job->batches[0] == KIT_BATCH &&
                    luna_id_compare(&job->client, &client) == 0 &&
                    luna_text_is(job->info.vae, "flux") &&
                    luna_text_is(job->prompt_id, "prompt-7");
    }
    luna_store_op_clear(&op);
    return seen;
}

static bool is_active(const luna_store_jobs *active, luna_id id)
{
    for (size_t i = 0; i < active->count; i++)
        if (luna_id_compare(&active->items[i].info.id, &id) == 0) return true;
    return false;
}

//  As it was, or made again of its payload, or left alone with an alarm.
static void assert_served(luna_store *store, const luna_store_jobs *active, const was *w)
{
    luna_store_condition_t condition;
    const now seen = ask(store, w);
    const bool same =
        seen.err == LUNA_OK && seen.state == w->state && seen.attempts == w->attempts;
    assert_true(kit_payload_is(&w->job));
    luna_store_condition(store, &condition);
    if (seen.err == LUNA_IO) {
        assert_true(strlen(condition.alarm) > 10);
        assert_true(told_of(w->job.id) || w->state == LUNA_JOB_FAILED);
        return;
    }
    assert_int_equal(seen.err, LUNA_OK);
    assert_true(seen.rest);
    assert_true(seen.attempts >= w->attempts);
    assert_true(seen.images <= w->images);  //  a decoder finds the file of a lost record
    if (!same) assert_true(told_of(w->job.id));
    assert_int_equal(is_active(active, w->job.id), luna_job_state_is_active(seen.state));
}

//  The record of a finished job is as it was, or not to be had: nothing wrong is told.
static void assert_not_wrong(luna_store *store, const was *w)
{
    const now seen = ask(store, w);
    if (seen.err != LUNA_OK) return;
    const bool as_it_was =
        seen.state == w->state && seen.attempts == w->attempts && seen.rest;
    assert_true(as_it_was || told_of(w->job.id));
}

static void assert_all(luna_store *store, const luna_store_jobs *active)
{
    for (unsigned i = 0; i < JOBS; i++)
        if (before[i].file)
            assert_served(store, active, &before[i]);
        else
            assert_not_wrong(store, &before[i]);
    luna_store_op list = kit_list(LUNA_JOB_ANY, 1000);
    const luna_err err = kit_do(store, list);
    assert_true(err == LUNA_OK || err == LUNA_IO);
}

//  With --recover every payload is a job, whatever the database was.
static void assert_recovers(void)
{
    luna_store *store;
    luna_store_jobs active;
    const luna_err err = open_watched(true, &store, &active);
    if (err != LUNA_OK) fail_msg("--recover: %s", luna_error_text());
    for (unsigned i = 0; i < JOBS; i++) {
        if (!before[i].file) continue;
        const now seen = ask(store, &before[i]);
        assert_int_equal(seen.err, LUNA_OK);
        assert_true(seen.rest);
        assert_true(seen.attempts >= before[i].attempts);
        assert_true(seen.state == LUNA_JOB_FAILED ||
                    is_active(&active, before[i].job.id));
        assert_true(kit_payload_is(&before[i].job));
    }
    luna_store_jobs_free(&active);
    luna_store_close(&store);
}

static void clean(void)
{
    (void)kit_clean(NULL);
}

//  Returns whether it opened.
static bool assert_withstood(void)
{
    luna_store *store;
    luna_store_jobs active = {0};
    const luna_err err = open_watched(false, &store, &active);
    if (err == LUNA_OK) {
        assert_all(store, &active);
        luna_store_jobs_free(&active);
        luna_store_close(&store);
    } else {
        if (err != LUNA_IO && err != LUNA_UNSUPPORTED)
            fail_msg("%s: %s", luna_err_name(err), luna_error_text());
        if (!strstr(luna_error_text(), "--recover")) fail_msg("%s", luna_error_text());
    }
    assert_recovers();
    clean();
    return err == LUNA_OK;
}

//  ---- the database
//  ---------------------------------------------------------------------

static uint32_t seed;

static uint32_t next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void damage_database(size_t page, int how)
{
    FILE *file = fopen("state/luna.db", "r+b");
    assert_non_null(file);
    const size_t at = page * PAGE_BYTES;
    static const char zeros[PAGE_BYTES];
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    if (how == 0) {
        assert_int_equal(fwrite(zeros, 1, PAGE_BYTES, file), PAGE_BYTES);
    } else {
        //  The first bits of a page hold its structure; most of the rest is rows.
        const size_t offset = how == 1 ? next_random() % 16 : next_random() % PAGE_BYTES;
        const char byte = (char)(database[at + offset] ^ (1 << next_random() % 8));
        assert_int_equal(fseek(file, (long)(at + offset), SEEK_SET), 0);
        assert_int_equal(fwrite(&byte, 1, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
}

static void every_page_damaged(void **state)
{
    (void)state;
    int opened = 0, all = 0;
    const size_t pages = database_len / PAGE_BYTES;
    assert_true(pages > 8);
    for (size_t page = 0; page < pages; page++)
        for (int how = 0; how < 24; how++) {
            seed = (uint32_t)(page * 1000 + (size_t)how);
            restore();
            damage_database(page, how);
            opened += assert_withstood();
            all++;
        }
    printf("%d of %d damaged databases opened\n", opened, all);
    assert_true(opened > 0 && opened < all);
}

//  What SQLite reads before anything else: sizes, formats, whose file it is. A larger
//  version of ours may be true: it is refused, and not moved aside.
enum { HEADER_BYTES = 100, VERSION_AT = 63 };

static void every_byte_of_the_header_damaged(void **state)
{
    (void)state;
    static const char masks[] = {0x05, 0x7f};
    for (size_t at = 0; at < HEADER_BYTES; at++)
        for (size_t i = 0; at != VERSION_AT && i < sizeof masks; i++) {
            restore();
            FILE *file = fopen("state/luna.db", "r+b");
            assert_non_null(file);
            assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
            assert_int_not_equal(fputc(database[at] ^ masks[i], file), EOF);
            assert_int_equal(fclose(file), 0);
            (void)assert_withstood();
        }
}

static void database_cut_at_every_page(void **state)
{
    (void)state;
    for (size_t len = 0; len < database_len; len += PAGE_BYTES / 2) {
        restore();
        assert_int_equal(truncate("state/luna.db", (off_t)len), 0);
        assert_withstood();
    }
}

//  ---- rows that SQLite finds nothing wrong with
//  -------------------------------------------

static const char *const sound_to_sqlite[] = {
    "PRAGMA ignore_check_constraints = 1; UPDATE job SET state = 'asleep' WHERE %s",
    "UPDATE job SET attempts = 0 WHERE %s",
    "UPDATE job SET priority = 77, sum = 0 WHERE %s",
    "UPDATE job SET bytes = -5, sum = 0 WHERE %s",
    "UPDATE job SET accepted_ms = 9007199254740993, sum = 0 WHERE %s",
    "UPDATE job SET batches = '1 x', sum = 0 WHERE %s",
    "UPDATE job SET batches = '1 2 3 4 5 6', sum = 0 WHERE %s",
    "UPDATE job SET images = images + 1, sum = 0 WHERE %s",
    "UPDATE job SET detail = CAST(x'66ff' AS TEXT), sum = 0 WHERE %s",
    "UPDATE job SET vae = CAST(x'660066' AS TEXT), sum = 0 WHERE %s",
    "UPDATE job SET vae = 'flax' WHERE %s",
    "UPDATE job SET state = 'completed' WHERE %s",
    "DELETE FROM job WHERE %s",
};

static void run_sql(const char *format)
{
    char sql[512];
    sqlite3 *db = NULL;
    char *why = NULL;
    snprintf(sql, sizeof sql, format, "id = x'0193f1c2000070008000000000000004'");
    assert_int_equal(sqlite3_open("state/luna.db", &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) fail_msg("%s", why);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void impossible_rows_are_made_again(void **state)
{
    (void)state;
    luna_store *store;
    luna_store_jobs active;
    const was *w = &before[4];  //  in progress, with attempts and an image
    for (size_t i = 0; i < sizeof sound_to_sqlite / sizeof sound_to_sqlite[0]; i++) {
        restore();
        run_sql(sound_to_sqlite[i]);
        assert_int_equal(open_watched(false, &store, &active), LUNA_OK);
        assert_true(told_of(w->job.id));
        const now seen = ask(store, w);
        assert_int_equal(seen.err, LUNA_OK);
        assert_int_equal(seen.state, LUNA_JOB_PENDING);
        const bool deleted = strncmp(sound_to_sqlite[i], "DELETE", 6) == 0;
        assert_int_equal(seen.attempts, deleted ? 0 : LUNA_STORE_REBUILT_ATTEMPTS);
        assert_true(seen.rest);
        assert_true(is_active(&active, w->job.id));
        luna_store_jobs_free(&active);
        luna_store_close(&store);
        clean();
    }
}

static void checksum_of_zero_is_none(void **state)
{
    (void)state;
    luna_store *store;
    luna_store_jobs active;
    restore();
    run_sql("UPDATE job SET vae = 'flax', sum = 0 WHERE %s");  //  by hand
    assert_int_equal(open_watched(false, &store, &active), LUNA_OK);
    assert_false(told_of(before[4].job.id));
    assert_true(is_active(&active, before[4].job.id));
    luna_store_jobs_free(&active);
    luna_store_close(&store);
}

//  ---- recover
//  ------------------------------------------------------------------------------

static size_t damaged_databases(void)
{
    size_t count = 0;
    DIR *dir = opendir("state");
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strstr(entry->d_name, "luna.db.damaged-") != NULL &&
                 strstr(entry->d_name, "-wal") == NULL;
    closedir(dir);
    return count;
}

static void sound_database_is_kept(void **state)
{
    (void)state;
    luna_store *store;
    luna_store_jobs active;
    restore();
    run_sql("DELETE FROM job WHERE %s");
    assert_int_equal(open_watched(true, &store, &active), LUNA_OK);
    assert_int_equal(damaged_databases(), 0);
    for (unsigned i = 0; i < JOBS; i++) {
        const now seen = ask(store, &before[i]);
        assert_int_equal(seen.err, LUNA_OK);
        const bool made_again = i == 4;
        assert_int_equal(seen.attempts,
                         made_again ? LUNA_STORE_REBUILT_ATTEMPTS : before[i].attempts);
        assert_int_equal(seen.state, made_again ? LUNA_JOB_PENDING : before[i].state);
    }
    luna_store_jobs_free(&active);
    luna_store_close(&store);
}

static void damaged_database_is_moved_aside(void **state)
{
    (void)state;
    luna_store *store;
    luna_store_jobs active;
    restore();
    damage_database(0, 0);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(open_watched(false, &store, &active), LUNA_IO);
        assert_int_equal(open_watched(true, &store, &active), LUNA_OK);
        assert_int_equal(damaged_databases(), i);
        for (size_t j = 1; j < active.count; j++)
            assert_true(active.items[j - 1].info.accepted_ms <
                        active.items[j].info.accepted_ms);
        luna_store_jobs_free(&active);
        luna_store_close(&store);
        damage_database(0, 0);
    }
}

static void other_versions_are_not_moved_aside(void **state)
{
    (void)state;
    luna_store *store;
    luna_store_jobs active;
    restore();
    run_sql("PRAGMA user_version = 99; SELECT %s FROM job");
    assert_int_equal(open_watched(true, &store, &active), LUNA_UNSUPPORTED);
    assert_int_equal(damaged_databases(), 0);
}

//  ---- payloads
//  ------------------------------------------------------------------------------

static void damage_payload(const was *w, int how)
{
    char path[256];
    kit_path(path, "ready", w->job.id);
    if (how % 4 == 3)
        assert_int_equal(truncate(path, (off_t)(next_random() % w->len)), 0);
    else
        kit_damage(
            path, (long)(next_random() % (how % 4 ? w->len : LUNA_PAYLOAD_HEADER_BYTES)));
}

//  The first of them is damaged; with `database` the rows are there.
static void open_with_damaged_payload(bool with_rows, int how)
{
    luna_store *store;
    luna_store_jobs active;
    const was *w = &before[0];
    restore();
    if (!with_rows) unlink("state/luna.db");
    damage_payload(w, how);
    const bool header = how % 4 == 0 || how % 4 == 3;
    assert_int_equal(open_watched(false, &store, &active), LUNA_OK);
    const now seen = ask(store, w);
    if (!with_rows) assert_int_equal(seen.err, LUNA_NOT_FOUND);
    if (with_rows && header) assert_int_equal(seen.state, LUNA_JOB_FAILED);
    if (!with_rows || header) {
        assert_true(told_of(w->job.id));
        assert_false(is_active(&active, w->job.id));
        assert_true(kit_has("quarantine", w->job.id));
    }
    for (unsigned i = 1; i < JOBS; i++)
        if (before[i].file) assert_true(kit_payload_is(&before[i].job));
    luna_store_jobs_free(&active);
    luna_store_close(&store);
    clean();
}

static void damaged_payloads_stop_nothing(void **state)
{
    (void)state;
    for (int how = 0; how < 40; how++) {
        seed = (uint32_t)how;
        open_with_damaged_payload(true, how);
        seed = (uint32_t)how;
        open_with_damaged_payload(false, how);
    }
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(impossible_rows_are_made_again),
        TEST(checksum_of_zero_is_none),
        TEST(sound_database_is_kept),
        TEST(damaged_database_is_moved_aside),
        TEST(other_versions_are_not_moved_aside),
        TEST(damaged_payloads_stop_nothing),
        TEST(every_page_damaged),
        TEST(every_byte_of_the_header_damaged),
        TEST(database_cut_at_every_page),
    };
    char memory[64];
    kit_enter_memory(memory);
    const int failed = cmocka_run_group_tests(tests, make_store, free_all);
    kit_leave(memory);
    return failed;
}
