//  open.c - a store's folders after anything may have happened to them
//
//  Jobs in every state; then bytes of database, log and payloads change, files go, come,
//  swap and are no files, columns get other values. The store opens or says why not. A
//  payload nobody touched is never lost, and with a row that nobody touched neither is
//  its job; what the store hands out can be sent on; the operations come back.
//
//  Columns that are changed by hand have no checksum, and the row is then what it says.

#include "fuzz/quiet_log.h"
#include "fuzz/store/folder.h"
#include "fuzz/store/plain_memory.h"

enum { CHANGES = 6, OPERATIONS = 10 };

//  What the jobs were before anything happened; folders are made in this order.
static const luna_job_state states[FOLDER_JOBS] = {
    LUNA_JOB_PENDING,   LUNA_JOB_IN_PROGRESS, LUNA_JOB_COMPLETED,   LUNA_JOB_FAILED,
    LUNA_JOB_CANCELLED, LUNA_JOB_PENDING,     LUNA_JOB_IN_PROGRESS, LUNA_JOB_PENDING};

static folder crashed, closed;

typedef struct trial {
    fuzz_bytes from;
    bool recover;
    folder files;
    bool touched[FOLDER_JOBS];  //  the payload
    bool edited[FOLDER_JOBS];   //  the row, by hand
    bool no_rows;               //  the database's bytes were changed
    bool rebuilt;               //  it may have made way for a new one
} trial;

//  ---- the first folders --------------------------------------------------------------

static void give_states(luna_store *store)
{
    const luna_msg_image image = folder_image(1);
    for (uint64_t i = 1; i < FOLDER_JOBS; i++)
        if (states[i] != LUNA_JOB_PENDING)
            CHECK(folder_do(store, folder_attempt(i, 1)) == LUNA_OK);
    CHECK(folder_do(store, folder_images(1, &image)) == LUNA_OK);
    for (uint64_t i = 2; i < 5; i++)
        CHECK(folder_do(store, folder_finish(i, states[i])) == LUNA_OK);
    luna_store_op order = {.kind = LUNA_STORE_PRIORITISE, .id = folder_id(5)};
    order.in.prioritise =
        (luna_store_prioritise){.priority = 9, .next_ms = 1790000001000};
    CHECK(folder_do(store, order) == LUNA_OK);
    luna_store_op pause = {.kind = LUNA_STORE_PAUSE};
    pause.in.pause.paused = true;
    CHECK(folder_do(store, pause) == LUNA_OK);
}

static void make_folders(void)
{
    luna_store *store = NULL;
    luna_store_jobs active;
    const luna_store_options options = folder_options();
    CHECK(luna_store_open(&options, &store, &active) == LUNA_OK);
    for (uint64_t i = 0; i < FOLDER_JOBS; i++) {
        void *body = NULL;
        luna_store_op op = folder_put(i, &body);
        CHECK(folder_run(store, &op) == LUNA_OK);
        luna_store_op_clear(&op);
        free(body);
    }
    give_states(store);
    crashed = folder_take();
    luna_store_close(&store);
    closed = folder_take();
    CHECK(crashed.wal.data && closed.db.data && closed.payloads[0].data);
    //  They may be gone already or not.
    CHECK(!closed.payloads[2].data && !closed.payloads[4].data);
}

static void remove_root(void)
{
    char path[FOLDER_PATH];
    folder_clear();
    for (size_t i = 4; i-- > 0;) (void)rmdir(folder_path(folder_names[i], path));
    (void)unlink(folder_path("spool/LOCK", path));
    (void)rmdir(folder_path("spool", path));
    (void)rmdir(folder_root);
}

int LLVMFuzzerInitialize(int *count, char ***words)
{
    (void)count;
    (void)words;
    const char *dir = getenv("LUNA_FUZZ_DIR");
    snprintf(folder_root, sizeof folder_root, "%.200s/store-XXXXXX",
             dir ? dir : "/dev/shm");
    CHECK(mkdtemp(folder_root));
    plain_memory();
    make_folders();
    atexit(remove_root);
    return 0;
}

//  ---- changes to bytes
//  -----------------------------------------------------------------

static void change_bytes(trial *t, folder_file *file)
{
    const size_t at = (size_t)fuzz_uint(&t->from, 3);
    const luna_blob with = fuzz_blob(&t->from, 16);
    if (file->len == 0) return;
    for (size_t i = 0; i < with.len; i++)
        file->data[(at + i) % file->len] = ((const uint8_t *)with.data)[i];
}

static void flip_bit(trial *t, folder_file *file)
{
    const size_t at = (size_t)fuzz_uint(&t->from, 3);
    if (file->len) file->data[at / 8 % file->len] ^= (uint8_t)(1 << at % 8);
}

//  A page somewhere else, or zeros.
static void move_page(trial *t, folder_file *file)
{
    const size_t page = (size_t)512 << fuzz_below(&t->from, 4), pages = file->len / page;
    const size_t source = (size_t)fuzz_uint(&t->from, 1),
                 to = (size_t)fuzz_uint(&t->from, 1);
    if (pages == 0) return;
    if (source == 0)
        memset(file->data + to % pages * page, 0, page);
    else
        memmove(file->data + to % pages * page, file->data + source % pages * page, page);
}

static void cut(trial *t, folder_file *file)
{
    if (file->len) file->len = (size_t)fuzz_uint(&t->from, 3) % file->len;
}

static void drop(trial *t, folder_file *file)
{
    (void)t;
    free(file->data);
    *file = (folder_file){0};
}

static void change_file(trial *t)
{
    static void (*const ways[])(trial *, folder_file *) = {
        change_bytes, flip_bit, move_page, cut, flip_bit, drop, change_bytes, flip_bit};
    const uint64_t which = fuzz_below(&t->from, 8 + FOLDER_JOBS);
    folder_file *file = which < 4   ? &t->files.db
                        : which < 8 ? &t->files.wal
                                    : &t->files.payloads[which - 8];
    if (which < 8)
        t->no_rows = true;
    else
        t->touched[which - 8] = true;
    if (file->data) ways[fuzz_below(&t->from, 8)](t, file);
}

static void swap_payloads(trial *t)
{
    const uint64_t a = fuzz_below(&t->from, FOLDER_JOBS),
                   b = fuzz_below(&t->from, FOLDER_JOBS);
    const folder_file kept = t->files.payloads[a];
    t->files.payloads[a] = t->files.payloads[b];
    t->files.payloads[b] = kept;
    t->touched[a] = t->touched[b] = true;
}

//  ---- changes to folders
//  ---------------------------------------------------------------

//  A name in ready/ that is not a payload's, or is one's and no file.
static void add_name(trial *t)
{
    static const char *const names[] = {"notes.txt",
                                        "0193F1C2-0000-7000-8000-000000000000",
                                        "0193f1c2-0000-7000-8000-0000000000aa",
                                        "0193f1c2-0000-7000-8000-00000000000",
                                        ".hidden",
                                        "0193f1c2-0000-7000-8000-000000000003",
                                        "x y;z'\"",
                                        "\xff\xfe"};
    char path[2 * FOLDER_PATH], ready[FOLDER_PATH];
    const uint64_t which = fuzz_below(&t->from, 8), kind = fuzz_below(&t->from, 5);
    const folder_file empty = {.data = (uint8_t *)(uintptr_t) "junk", .len = kind};
    snprintf(path, sizeof path, "%s/%s", folder_path("spool/ready", ready), names[which]);
    if (which == 5) t->touched[3] = true;
    if (kind < 2) folder_write(path, &empty);
    if (kind == 2) (void)mkdir(path, 0700);
    if (kind == 3) (void)mkfifo(path, 0600);
    if (kind == 4) (void)!symlink("/dev/zero", path);
}

//  ---- changes to columns
//  -----------------------------------------------------------------

//  Columns as the schema has them, so that new ones are tried too.
static const char *choose_column(sqlite3 *db, const char *table, uint64_t pick,
                                 char out[64])
{
    sqlite3_stmt *statement = NULL;
    char sql[128];
    uint64_t at = 0;
    out[0] = '\0';
    snprintf(sql, sizeof sql, "SELECT name FROM pragma_table_info('%s')", table);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) return NULL;
    while (at++ <= pick && sqlite3_step(statement) == SQLITE_ROW)
        snprintf(out, 64, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return out[0] ? out : NULL;
}

static void bind_value(sqlite3_stmt *statement, fuzz_bytes *from)
{
    static const int64_t numbers[] = {0,   1,     -1,         9,         10,
                                      255, 20481, 4294967296, INT64_MAX, INT64_MIN};
    const uint64_t kind = fuzz_below(from, 5);
    const luna_blob bytes = fuzz_blob(from, 20);
    int64_t number = 0;
    if (bytes.len) memcpy(&number, bytes.data, bytes.len < 8 ? bytes.len : 8);
    if (kind == 0) sqlite3_bind_int64(statement, 1, number);
    if (kind == 1) sqlite3_bind_int64(statement, 1, numbers[(uint64_t)number % 10]);
    if (kind == 2)
        sqlite3_bind_text(statement, 1, bytes.data, (int)bytes.len, SQLITE_TRANSIENT);
    if (kind == 3)
        sqlite3_bind_blob(statement, 1, bytes.data, (int)bytes.len, SQLITE_TRANSIENT);
}

static void run_edit(sqlite3 *db, const char *sql, fuzz_bytes *from, uint64_t number)
{
    sqlite3_stmt *statement = NULL;
    const luna_id id = folder_id(number);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) return;
    bind_value(statement, from);
    sqlite3_bind_blob(statement, 2, id.byte, LUNA_ID_BYTES, SQLITE_TRANSIENT);
    (void)sqlite3_step(statement);
    sqlite3_finalize(statement);
}

static void edit_column(trial *t)
{
    char path[FOLDER_PATH], column[64], sql[256];
    sqlite3 *db = NULL;
    const uint64_t number = fuzz_below(&t->from, FOLDER_JOBS);
    const uint64_t pick = fuzz_below(&t->from, 32);
    const bool image = fuzz_below(&t->from, 4) == 3,
               sealed = fuzz_below(&t->from, 8) == 7;
    const char *table = image ? "image" : "job", *key = image ? "job" : "id";
    if (sqlite3_open(folder_path("state/luna.db", path), &db) == SQLITE_OK &&
        choose_column(db, table, pick, column)) {
        (void)sqlite3_exec(db, "PRAGMA ignore_check_constraints = ON", NULL, NULL, NULL);
        snprintf(sql, sizeof sql, "UPDATE %s SET %s = ?1%s WHERE %s = ?2", table, column,
                 sealed || strcmp(column, "sum") == 0 ? "" : ", sum = 0", key);
        run_edit(db, sql, &t->from, number);
    }
    sqlite3_close(db);
    t->edited[number] = true;
    t->rebuilt = t->recover;
}

//  ---- after an open
//  ---------------------------------------------------------------------

static bool is_active(luna_job_state state)
{
    return state == LUNA_JOB_PENDING || state == LUNA_JOB_IN_PROGRESS;
}

//  Wherever it is, it is whole.
static void check_payloads(const trial *t)
{
    char path[FOLDER_PATH];
    for (uint64_t i = 0; i < FOLDER_JOBS; i++) {
        const folder_file *payload = &t->files.payloads[i];
        if (t->touched[i] || t->edited[i] || !payload->data) continue;
        if (!is_active(states[i]) && states[i] != LUNA_JOB_FAILED) continue;
        CHECK(folder_has(folder_payload("ready", i, path), payload) ||
              folder_has(folder_payload("quarantine", i, path), payload));
    }
}

//  What the broker does with a job as soon as it has it.
static void check_job(const luna_store_job *job)
{
    uint64_t sum = 0;
    void *bytes = NULL;
    size_t len;
    luna_msg_answer answer = {.re = 1};
    CHECK(job->state < LUNA_JOB_STATES && !luna_id_is_nil(&job->info.id));
    CHECK(job->info.priority <= LUNA_PRIORITY_MAX);
    CHECK(job->info.images <= LUNA_MAX_INPUTS * LUNA_MAX_BATCH);
    for (size_t i = 0; i < LUNA_MAX_INPUTS; i++) sum += job->batches[i];
    CHECK(sum == 0 || sum == job->info.images);
    answer.jobs.items = &job->info;
    answer.jobs.count = 1;
    CHECK(luna_msg_pack(LUNA_MSG_ANSWER, &answer, &bytes, &len) == LUNA_OK);
    free(bytes);
}

static const luna_store_job *find_job(const luna_store_jobs *jobs, const luna_id *id)
{
    const luna_store_job *found = NULL;
    for (size_t i = 0; i < jobs->count; i++) {
        if (luna_id_compare(&jobs->items[i].info.id, id) != 0) continue;
        CHECK(!found);
        found = &jobs->items[i];
    }
    return found;
}

//  A job whose payload nobody touched and whose row nobody edited is there: as it was, or
//  rebuilt from the payload where its row was lost.
static void check_kept(const trial *t, luna_store *store, const luna_store_jobs *active)
{
    for (uint64_t i = 0; i < FOLDER_JOBS; i++) {
        if (t->touched[i] || t->edited[i] || !t->files.payloads[i].data) continue;
        luna_store_op op = {.kind = LUNA_STORE_GET, .id = folder_id(i)};
        const luna_err err = folder_run(store, &op);
        const luna_store_job *listed = find_job(active, &op.id);
        CHECK(err == LUNA_OK || t->no_rows);
        if (err == LUNA_OK)
            CHECK((listed != NULL) == is_active(op.found.items[0].state));
        if (err == LUNA_OK && !t->no_rows && !t->rebuilt)
            CHECK(op.found.items[0].state == states[i]);
        CHECK(err != LUNA_NOT_FOUND);
        luna_store_op_clear(&op);
    }
}

//  ---- operations
//  ------------------------------------------------------------------------

static luna_store_op choose_operation(trial *t, void **body, const luna_msg_image *image)
{
    const uint64_t number = fuzz_below(&t->from, FOLDER_JOBS + 2);
    luna_store_op op = {
        .kind = (luna_store_kind)fuzz_below(&t->from, LUNA_STORE_FORGET + 1),
        .id = folder_id(number)};
    if (op.kind == LUNA_STORE_PUT) op = folder_put(number, body);
    if (op.kind == LUNA_STORE_ATTEMPT) op = folder_attempt(number, 2);
    if (op.kind == LUNA_STORE_IMAGES) op = folder_images(number, image);
    if (op.kind == LUNA_STORE_FINISH)
        op = folder_finish(number, (luna_job_state)(2 + fuzz_below(&t->from, 3)));
    if (op.kind == LUNA_STORE_PRIORITISE) op.in.prioritise.priority = 8;
    if (op.kind == LUNA_STORE_LIST)
        op.in.list = (luna_store_list){(luna_job_state)fuzz_below(&t->from, 6), 5};
    if (op.kind == LUNA_STORE_FORGET)
        op.in.forget = (luna_store_forget){1790000009001, 1 + fuzz_below(&t->from, 4)};
    return op;
}

static void check_operation(const luna_store_op *op)
{
    CHECK(op->err < LUNA_ERR_COUNT && (op->err == LUNA_OK) == (op->detail[0] == '\0'));
    for (size_t i = 0; i < op->found.count; i++) check_job(&op->found.items[i]);
}

static void operate(trial *t, luna_store *store)
{
    luna_store_op ops[OPERATIONS];
    void *bodies[OPERATIONS] = {NULL};
    const luna_msg_image image = folder_image(fuzz_below(&t->from, 4));
    const size_t count = (size_t)fuzz_below(&t->from, OPERATIONS + 1);
    for (size_t i = 0; i < count; i++) {
        ops[i] = choose_operation(t, &bodies[i], &image);
        luna_store_submit(store, &ops[i]);
    }
    luna_store_drain(store);
    for (size_t i = 0; i < count; i++) {
        CHECK(luna_store_collect(store) == &ops[i]);
        check_operation(&ops[i]);
        luna_store_op_clear(&ops[i]);
        free(bodies[i]);
    }
    CHECK(!luna_store_collect(store));
}

//  ---- one input -----------------------------------------------------------------------

static void check_refused(luna_err err)
{
    CHECK(err == LUNA_IO || err == LUNA_UNSUPPORTED || err == LUNA_CANT_CREATE ||
          err == LUNA_NO_SPACE || err == LUNA_NO_MEMORY);
    fuzz_check_error(err);
}

static bool open_once(trial *t)
{
    luna_store *store = NULL;
    luna_store_jobs active;
    luna_store_condition_t condition;
    luna_store_options options = folder_options();
    options.recover = t->recover;
    const luna_err err = luna_store_open(&options, &store, &active);
    check_payloads(t);
    if (err != LUNA_OK) {
        check_refused(err);
        CHECK(!store && active.count == 0);
        return false;
    }
    for (size_t i = 0; i < active.count; i++) {
        check_job(&active.items[i]);
        CHECK(is_active(active.items[i].state));
    }
    check_kept(t, store, &active);
    luna_store_jobs_free(&active);
    luna_store_condition(store, &condition);
    operate(t, store);
    luna_store_close(&store);
    return true;
}

static void change_once(trial *t)
{
    const uint64_t kind = fuzz_below(&t->from, 8);
    if (kind == 7)
        swap_payloads(t);
    else
        change_file(t);
}

static void prepare(trial *t)
{
    const uint64_t start = fuzz_below(&t->from, 8);
    t->files = folder_copy(start & 1 ? &crashed : &closed);
    if (start == 7) {
        drop(t, &t->files.db);
        drop(t, &t->files.wal);
        t->no_rows = true;
    }
    for (uint64_t n = fuzz_below(&t->from, CHANGES); n > 0; n--) change_once(t);
    folder_lay_out(&t->files);
    for (uint64_t n = fuzz_below(&t->from, 3); n > 0; n--) edit_column(t);
    for (uint64_t n = fuzz_below(&t->from, 3); n > 0; n--) add_name(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    trial t = {.from = {.at = data, .left = len}};
    t.recover = fuzz_bool(&t.from);
    folder_clear();
    prepare(&t);
    if (open_once(&t)) {
        //  From here on the jobs are what the operations made of them.
        for (size_t i = 0; i < FOLDER_JOBS; i++) t.touched[i] = true;
        (void)open_once(&t);
    }
    CHECK(sqlite3_memory_used() == 0);
    folder_free(&t.files);
    return 0;
}
