//  db.h - one SQLite database: opening it safely, prepared statements, errors
//
//  Knows nothing of jobs. Every statement is prepared once from a constant text;
//  values are bound, never written into SQL. One thread at a time.

#ifndef LUNA_BROKER_STORE_DB_H
#define LUNA_BROKER_STORE_DB_H

#include "common/arena.h"
#include "proto/message.h"

#include <sqlite3.h>

//  What a commit promises.
typedef enum luna_db_promise {
    LUNA_DB_READ,    //  nothing is written
    LUNA_DB_WRITE,   //  the rows survive a kill; a power loss may take them, and then
                     //  those of every later LUNA_DB_WRITE, but of no LUNA_DB_DURABLE
    LUNA_DB_DURABLE  //  they and all before them are on stable storage
} luna_db_promise;

typedef struct luna_db {
    sqlite3 *handle;
    sqlite3_stmt **statements;
    size_t count;
    luna_db_promise promise;  //  what SQLite is set to
    size_t log_pages;         //  in the log, as of the latest commit or checkpoint
    bool damaged;             //  SQLite has found a page that cannot be right, or read
    bool torn;                //  a sync of the log may have failed: see luna_db_begin
    char path[4096];
} luna_db;

typedef struct luna_db_schema {
    int application_id;           //  marks the file as ours
    int version;                  //  PRAGMA user_version, from 1
    const char *create;           //  SQL for an empty database
    const char *const *upgrades;  //  [v - 1]: SQL that brings version v to the next
    const char *const *sql;       //  the statements
    size_t count;
} luna_db_schema;

//  Opens or makes the database in WAL mode. An older version is upgraded in place, whole
//  or not at all. SQL may use luna_sum(value, ...), a checksum over its arguments that is
//  never 0. LUNA_UNSUPPORTED for another application's file or a newer version;
//  LUNA_CANT_CREATE, LUNA_IO, LUNA_NO_SPACE, LUNA_NO_MEMORY. On failure only `damaged`
//  says something: whether a new database would help.
//  The log is allocated `log_bytes` long where there is room, so that a sync of it has
//  no size to write. *db must not move until it is closed.
LUNA_MUST_USE luna_err luna_db_open(luna_db *db, const char *path,
                                    const luna_db_schema *schema, size_t log_bytes);

//  Moves the log into the database, and removes it.
void luna_db_close(luna_db *db);

#define LUNA_DB_PAGE_BYTES 4096  //  and a few more in the log

//  A transaction. One that writes takes its lock at once and waits for it as long as
//  another program holds it, at most 5 s. After a failed commit the transaction is
//  rolled back. A failed sync leaves a log of which parts may be missing on the disk
//  although they can be read: the next durable transaction begins by writing it anew,
//  and fails when that fails. LUNA_IO means that the disk cannot be
//  trusted; LUNA_NO_SPACE, LUNA_BUSY, LUNA_NO_MEMORY that the same may succeed later.
LUNA_MUST_USE luna_err luna_db_begin(luna_db *db, luna_db_promise promise);
LUNA_MUST_USE luna_err luna_db_commit(luna_db *db);
void luna_db_rollback(luna_db *db);

//  Whether one is open: SQLite ends it by itself after some errors.
bool luna_db_in_transaction(const luna_db *db);

//  Reads every page and checks that it can be right (PRAGMA quick_check, which tells of
//  pages before it tells of values in them: those are not asked about). LUNA_IO with the
//  first thing that is not; `damaged` is set then.
LUNA_MUST_USE luna_err luna_db_check(luna_db *db);

//  Runs constant SQL that is needed once.
LUNA_MUST_USE luna_err luna_db_run(luna_db *db, const char *sql);

//  ---- the log (db_log.c) ----------------------------------------------------------

//  All three outside a transaction. LUNA_IO means that the disk cannot be trusted.

//  Makes every transaction so far durable.
LUNA_MUST_USE luna_err luna_db_log_sync(luna_db *db);

//  Moves the log into the database; log_pages is 0 then. It is not when another program
//  reads what the database was before: that is no error, and later it may succeed.
//  Costs two syncs and a write of every page that has changed.
LUNA_MUST_USE luna_err luna_db_checkpoint(luna_db *db);

//  For db.c and db_log.c: the log at open and before close; its repair, inside a
//  transaction that writes; the error of an SQLite code, with its sentence.
LUNA_MUST_USE luna_err luna_db_log_start(luna_db *db, size_t bytes);
void luna_db_log_stop(luna_db *db);
LUNA_MUST_USE luna_err luna_db_log_mend(luna_db *db);
LUNA_MUST_USE luna_err luna_db_fail(luna_db *db, int problem);

//  ---- one use of a prepared statement ---------------------------------------------

typedef struct luna_query {
    luna_db *db;
    sqlite3_stmt *statement;
    int bound;    //  parameters so far
    int problem;  //  the first error of a bind
} luna_query;

luna_query luna_query_start(luna_db *db, size_t statement);

//  Bind the next parameter. Borrowed until luna_query_end. An absent text is NULL.
void luna_query_uint(luna_query *query, uint64_t value);
void luna_query_real(luna_query *query, double value);
void luna_query_text(luna_query *query, luna_text value);
void luna_query_id(luna_query *query, const luna_id *value);

//  Runs to the next row: *row says whether there is one.
LUNA_MUST_USE luna_err luna_query_step(luna_query *query, bool *row);

//  Runs a statement that gives no rows, and ends it. *changed: rows; NULL if unwanted.
LUNA_MUST_USE luna_err luna_query_run(luna_query *query, uint64_t *changed);

//  Read a column of the current row. Texts are copied to the arena: NULL data when
//  absent; LUNA_NO_MEMORY.
uint64_t luna_query_as_uint(const luna_query *query, int column);
double luna_query_as_real(const luna_query *query, int column);
luna_id luna_query_as_id(const luna_query *query, int column);
LUNA_MUST_USE luna_err luna_query_as_text(const luna_query *query, int column,
                                          luna_arena *arena, luna_text *out);

//  Frees the statement for its next use. Needed after every start but luna_query_run.
void luna_query_end(luna_query *query);

#endif
