#include "broker/store/db.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

//  What another program (a backup, an sqlite3 shell) may hold the lock for.
#define LOCK_WAIT_MS 1000

//  Beyond what this program will ever reach: a version that is more is damage.
#define VERSION_MAX 999

#define RECOVER_HINT                                                                   \
    "stop the broker and run luna-broker --recover: it makes a new database of every " \
    "payload that is sound"

//  ---- errors ----------------------------------------------------------------------

static luna_err code_of(int problem)
{
    switch (problem & 0xff) {
        case SQLITE_FULL:
            return LUNA_NO_SPACE;
        case SQLITE_NOMEM:
            return LUNA_NO_MEMORY;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return LUNA_BUSY;
        case SQLITE_CANTOPEN:
            return LUNA_CANT_CREATE;
        case SQLITE_CONSTRAINT:
        case SQLITE_MISUSE:
        case SQLITE_RANGE:
        case SQLITE_ERROR:
            return LUNA_INTERNAL;
        default:
            return LUNA_IO;
    }
}

//  A full disk may show in a sync or when a file is made: errno is what it was when
//  SQLite failed, because those who call it set it to 0 before.
static bool is_full(int problem)
{
    const int kind = problem & 0xff;
    if (kind != SQLITE_IOERR && kind != SQLITE_CANTOPEN) return false;
    return errno == ENOSPC || errno == EDQUOT;
}

//  A key that was looked for and not found, and then is there when it is to be added, is
//  damage as well; so is a file that can be written but says that it is for reading only
//  (files that cannot be written are refused before, folders have codes of their own).
static bool is_damage(int problem)
{
    const int kind = problem & 0xff;
    return kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB ||
           problem == SQLITE_IOERR_READ || problem == SQLITE_IOERR_SHORT_READ ||
           problem == SQLITE_CONSTRAINT_PRIMARYKEY || problem == SQLITE_READONLY;
}

luna_err luna_db_fail(luna_db *db, int problem)
{
    luna_err err = is_full(problem) ? LUNA_NO_SPACE : code_of(problem);
    const char *hint = "";
    if (is_damage(problem)) {
        db->damaged = true;
        err = LUNA_IO;
        hint = "; " RECOVER_HINT;
    }
    if (err == LUNA_BUSY) hint = "; another program holds its lock";
    return luna_error(err, "%s: %s (%d)%s", db->path,
                      db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(problem),
                      problem, hint);
}

luna_err luna_db_run(luna_db *db, const char *sql)
{
    errno = 0;
    const int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? LUNA_OK
                           : luna_db_fail(db, sqlite3_extended_errcode(db->handle));
}

//  ---- open and close ---------------------------------------------------------------

//  The first column of the first row, as text. Run to its end: what a PRAGMA changes is
//  committed after its row, and may fail then.
static luna_err ask(luna_db *db, const char *sql, char *out, size_t room)
{
    sqlite3_stmt *statement = NULL;
    errno = 0;
    if (sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL) != SQLITE_OK)
        return luna_db_fail(db, sqlite3_extended_errcode(db->handle));
    snprintf(out, room, "%s", "");
    int rc = sqlite3_step(statement);
    const char *text =
        rc == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    if (text) snprintf(out, room, "%s", text);
    while (rc == SQLITE_ROW) rc = sqlite3_step(statement);
    const luna_err err = rc == SQLITE_DONE
                             ? LUNA_OK
                             : luna_db_fail(db, sqlite3_extended_errcode(db->handle));
    sqlite3_finalize(statement);
    return err;
}

static luna_err ask_int(luna_db *db, const char *sql, int *out)
{
    char text[32];
    LUNA_TRY(ask(db, sql, text, sizeof text));
    *out = atoi(text);
    return LUNA_OK;
}

//  Before anything is written, so that a foreign file stays as it is.
//  *version is 0 for an empty file.
static luna_err check_owner(luna_db *db, const luna_db_schema *schema, int *version)
{
    int application, objects;
    LUNA_TRY(ask_int(db, "PRAGMA application_id", &application));
    LUNA_TRY(ask_int(db, "PRAGMA user_version", version));
    LUNA_TRY(ask_int(db, "SELECT count(*) FROM sqlite_schema", &objects));
    if (application == 0 && *version == 0 && objects == 0) return LUNA_OK;
    db->damaged = application != schema->application_id;
    if (db->damaged)
        return luna_error(LUNA_UNSUPPORTED,
                          "%s is the database of another program; choose another folder, "
                          "or move it aside by luna-broker --recover",
                          db->path);
    db->damaged = *version <= 0 || *version > VERSION_MAX;
    if (db->damaged)
        return luna_error(LUNA_IO, "%s is damaged: it has no version; " RECOVER_HINT,
                          db->path);
    if (*version <= schema->version) return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED,
                      "%s has schema version %d, this broker knows %d; use the Luna that "
                      "wrote it or a newer one",
                      db->path, *version, schema->version);
}

static luna_err set_modes(luna_db *db)
{
    char mode[16];
    LUNA_TRY(ask(db, "PRAGMA journal_mode = WAL", mode, sizeof mode));
    if (strcmp(mode, "wal") != 0)
        return luna_error(LUNA_IO,
                          "%s: the file system cannot share memory (journal mode %s); "
                          "put the state folder on a local disk",
                          db->path, mode);
    return luna_db_run(db,
                       "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                       "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
                       "PRAGMA cell_size_check = ON");
}

//  One transaction from `version` (0: empty) to the schema's.
static luna_err bring_up(luna_db *db, const luna_db_schema *schema, int version)
{
    char marks[96];
    snprintf(marks, sizeof marks, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             schema->application_id, schema->version);
    LUNA_TRY(luna_db_run(db, "BEGIN IMMEDIATE"));
    if (version == 0) LUNA_TRY(luna_db_run(db, schema->create));
    for (int v = version; v > 0 && v < schema->version; v++)
        LUNA_TRY(luna_db_run(db, schema->upgrades[v - 1]));
    LUNA_TRY(luna_db_run(db, marks));
    return luna_db_commit(db);
}

//  ---- luna_sum ----------------------------------------------------------------------

static uint64_t add_value(uint64_t sum, sqlite3_value *value)
{
    const int type = sqlite3_value_type(value);
    const sqlite3_int64 integer = sqlite3_value_int64(value);
    const double real = sqlite3_value_double(value);
    sum = XXH3_64bits_withSeed(&type, sizeof type, sum);
    if (type == SQLITE_NULL) return sum;
    if (type == SQLITE_INTEGER)
        return XXH3_64bits_withSeed(&integer, sizeof integer, sum);
    if (type == SQLITE_FLOAT) return XXH3_64bits_withSeed(&real, sizeof real, sum);
    const void *data = sqlite3_value_blob(value);
    return XXH3_64bits_withSeed(data, (size_t)sqlite3_value_bytes(value), sum);
}

static void sum_values(sqlite3_context *context, int count, sqlite3_value **values)
{
    uint64_t sum = (uint64_t)count;
    for (int i = 0; i < count; i++) sum = add_value(sum, values[i]);
    sqlite3_result_int64(context, sum ? (sqlite3_int64)sum : 1);
}

static luna_err add_functions(luna_db *db)
{
    const int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
    const int rc = sqlite3_create_function_v2(db->handle, "luna_sum", -1, flags, NULL,
                                              sum_values, NULL, NULL, NULL);
    return rc == SQLITE_OK ? LUNA_OK : luna_db_fail(db, rc);
}

//  ---- open and close, continued -------------------------------------------------------

static luna_err prepare(luna_db *db, const luna_db_schema *schema)
{
    db->statements = calloc(schema->count, sizeof *db->statements);
    if (!db->statements) return luna_error(LUNA_NO_MEMORY, "no memory for the store");
    db->count = schema->count;
    errno = 0;
    for (size_t i = 0; i < schema->count; i++)
        if (sqlite3_prepare_v3(db->handle, schema->sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &db->statements[i], NULL) != SQLITE_OK)
            return luna_db_fail(db, sqlite3_extended_errcode(db->handle));
    return LUNA_OK;
}

static luna_err open_checked(luna_db *db, const luna_db_schema *schema, size_t log_bytes)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    errno = 0;
    const int rc = sqlite3_open_v2(db->path, &db->handle, flags, NULL);
    if (rc != SQLITE_OK) return luna_db_fail(db, rc);
    //  What cannot be opened for writing SQLite opens for reading all the same.
    if (sqlite3_db_readonly(db->handle, "main") == 1)
        return luna_error(LUNA_CANT_CREATE, "%s cannot be opened for writing", db->path);
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, LOCK_WAIT_MS);
    int version;
    LUNA_TRY(check_owner(db, schema, &version));
    LUNA_TRY(set_modes(db));
    LUNA_TRY(luna_db_log_start(db, log_bytes));
    LUNA_TRY(add_functions(db));
    if (version != schema->version) LUNA_TRY(bring_up(db, schema, version));
    return prepare(db, schema);
}

//  Our own SQL is sound. Where SQLite cannot make anything of it, or not of the file, the
//  file is not what it was made.
static luna_err blame_file(luna_db *db)
{
    db->damaged = true;
    return luna_error(LUNA_IO, "%s; " RECOVER_HINT, luna_error_text());
}

luna_err luna_db_open(luna_db *db, const char *path, const luna_db_schema *schema,
                      size_t log_bytes)
{
    *db = (luna_db){.promise = LUNA_DB_DURABLE};
    if (strlen(path) >= sizeof db->path)
        return luna_error(LUNA_TOO_LARGE, "the path %.60s... is too long", path);
    memcpy(db->path, path, strlen(path) + 1);
    luna_err err = open_checked(db, schema, log_bytes);
    if (err == LUNA_INTERNAL) err = blame_file(db);
    const bool damaged = db->damaged;
    if (err == LUNA_OK) return LUNA_OK;
    luna_db_close(db);
    db->damaged = damaged;
    return err;
}

void luna_db_close(luna_db *db)
{
    for (size_t i = 0; i < db->count; i++) sqlite3_finalize(db->statements[i]);
    free(db->statements);
    luna_db_log_stop(db);
    sqlite3_close(db->handle);
    *db = (luna_db){0};
}

//  ---- transactions -----------------------------------------------------------------

//  The log is one file: a sync of it takes every transaction before along.
static luna_err set_promise(luna_db *db, luna_db_promise promise)
{
    if (promise == LUNA_DB_READ || promise == db->promise) return LUNA_OK;
    LUNA_TRY(luna_db_run(db, promise == LUNA_DB_WRITE ? "PRAGMA synchronous = NORMAL"
                                                      : "PRAGMA synchronous = FULL"));
    db->promise = promise;
    return LUNA_OK;
}

luna_err luna_db_begin(luna_db *db, luna_db_promise promise)
{
    LUNA_TRY(set_promise(db, promise));
    LUNA_TRY(luna_db_run(db, promise == LUNA_DB_READ ? "BEGIN" : "BEGIN IMMEDIATE"));
    if (!db->torn || promise != LUNA_DB_DURABLE) return LUNA_OK;
    const luna_err err = luna_db_log_mend(db);
    if (err != LUNA_OK) luna_db_rollback(db);
    return err;
}

luna_err luna_db_commit(luna_db *db)
{
    const luna_err err = luna_db_run(db, "COMMIT");
    if (err == LUNA_IO || err == LUNA_NO_SPACE) db->torn = true;
    if (err != LUNA_OK) luna_db_rollback(db);
    return err;
}

void luna_db_rollback(luna_db *db)
{
    //  SQLite has rolled back by itself after some errors.
    if (!sqlite3_get_autocommit(db->handle))
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

bool luna_db_in_transaction(const luna_db *db)
{
    return !sqlite3_get_autocommit(db->handle);
}

luna_err luna_db_check(luna_db *db)
{
    char found[256];
    static const char of_pages[] = "*** in database";
    LUNA_TRY(ask(db, "PRAGMA quick_check(1)", found, sizeof found));
    if (strncmp(found, of_pages, strlen(of_pages)) != 0) return LUNA_OK;
    db->damaged = true;
    return luna_error(LUNA_IO, "%s is damaged: %s", db->path, found);
}

//  ---- queries ------------------------------------------------------------------------

luna_query luna_query_start(luna_db *db, size_t statement)
{
    return (luna_query){.db = db, .statement = db->statements[statement]};
}

static void note(luna_query *query, int rc)
{
    if (query->problem == SQLITE_OK) query->problem = rc;
}

//  The bits are kept, so values above INT64_MAX come back as they were.
void luna_query_uint(luna_query *query, uint64_t value)
{
    note(query,
         sqlite3_bind_int64(query->statement, ++query->bound, (sqlite3_int64)value));
}

void luna_query_real(luna_query *query, double value)
{
    note(query, sqlite3_bind_double(query->statement, ++query->bound, value));
}

void luna_query_text(luna_query *query, luna_text value)
{
    note(query, sqlite3_bind_text64(query->statement, ++query->bound, value.data,
                                    value.len, SQLITE_STATIC, SQLITE_UTF8));
}

void luna_query_id(luna_query *query, const luna_id *value)
{
    note(query, sqlite3_bind_blob(query->statement, ++query->bound, value->byte,
                                  LUNA_ID_BYTES, SQLITE_STATIC));
}

luna_err luna_query_step(luna_query *query, bool *row)
{
    if (query->problem != SQLITE_OK) return luna_db_fail(query->db, query->problem);
    errno = 0;
    const int rc = sqlite3_step(query->statement);
    *row = rc == SQLITE_ROW;
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? LUNA_OK : luna_db_fail(query->db, rc);
}

luna_err luna_query_run(luna_query *query, uint64_t *changed)
{
    bool row;
    const luna_err err = luna_query_step(query, &row);
    if (err == LUNA_OK && changed)
        *changed = (uint64_t)sqlite3_changes64(query->db->handle);
    luna_query_end(query);
    return err;
}

uint64_t luna_query_as_uint(const luna_query *query, int column)
{
    return (uint64_t)sqlite3_column_int64(query->statement, column);
}

double luna_query_as_real(const luna_query *query, int column)
{
    return sqlite3_column_double(query->statement, column);
}

luna_id luna_query_as_id(const luna_query *query, int column)
{
    luna_id id = {0};
    const void *data = sqlite3_column_blob(query->statement, column);
    if (data && sqlite3_column_bytes(query->statement, column) == LUNA_ID_BYTES)
        memcpy(id.byte, data, LUNA_ID_BYTES);
    return id;
}

luna_err luna_query_as_text(const luna_query *query, int column, luna_arena *arena,
                            luna_text *out)
{
    *out = (luna_text){0};
    if (sqlite3_column_type(query->statement, column) == SQLITE_NULL) return LUNA_OK;
    const char *text = (const char *)sqlite3_column_text(query->statement, column);
    const size_t len = (size_t)sqlite3_column_bytes(query->statement, column);
    out->data = text ? luna_arena_text(arena, text, len) : NULL;
    if (!out->data) return luna_error(LUNA_NO_MEMORY, "no memory for a stored text");
    out->len = len;
    return LUNA_OK;
}

void luna_query_end(luna_query *query)
{
    sqlite3_reset(query->statement);
    sqlite3_clear_bindings(query->statement);
}
