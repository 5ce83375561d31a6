//  db_log.c - the half of db.h about the write-ahead log
//
//  A commit appends pages to the log; a checkpoint moves them into the database, and
//  the log starts over. SQLite would do that within a commit, which then waits for two
//  syncs and up to a thousand pages: so it is told not to, and the owner calls
//  luna_db_checkpoint when nobody waits.

#include "broker/store/db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES 65536

static int note_pages(void *argument, sqlite3 *handle, const char *name, int pages)
{
    luna_db *db = argument;
    (void)handle;
    (void)name;
    db->log_pages = (size_t)pages;
    return SQLITE_OK;
}

//  SQLite's own file of the log; NULL before the first transaction.
static sqlite3_file *log_file(luna_db *db)
{
    sqlite3_file *file = NULL;
    if (sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) !=
        SQLITE_OK)
        return NULL;
    return file && file->pMethods ? file : NULL;
}

static luna_err sync_file(luna_db *db, sqlite3_file *file)
{
    errno = 0;
    const int rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
    if (rc == SQLITE_OK) return LUNA_OK;
    db->torn = true;
    return luna_db_fail(db, rc);
}

//  ---- made durable --------------------------------------------------------------------

luna_err luna_db_log_sync(luna_db *db)
{
    sqlite3_file *file = log_file(db);
    return file ? sync_file(db, file) : LUNA_OK;
}

static int rewrite(sqlite3_file *file, char *piece)
{
    sqlite3_int64 size;
    int rc = file->pMethods->xFileSize(file, &size);
    for (sqlite3_int64 at = 0; rc == SQLITE_OK && at < size; at += PIECE_BYTES) {
        const sqlite3_int64 left = size - at;
        const int n = left < PIECE_BYTES ? (int)left : PIECE_BYTES;
        rc = file->pMethods->xRead(file, piece, n, at);
        if (rc == SQLITE_OK) rc = file->pMethods->xWrite(file, piece, n, at);
    }
    return rc;
}

luna_err luna_db_log_mend(luna_db *db)
{
    sqlite3_file *file = log_file(db);
    if (!file) return LUNA_OK;
    char *piece = malloc(PIECE_BYTES);
    if (!piece) return luna_error(LUNA_NO_MEMORY, "no memory to mend the log");
    errno = 0;
    const int rc = rewrite(file, piece);
    free(piece);
    if (rc != SQLITE_OK) return luna_db_fail(db, rc);
    LUNA_TRY(sync_file(db, file));
    db->torn = false;
    return LUNA_OK;
}

//  Needed before a checkpoint: a database must not get ahead of a log that may turn out
//  shorter than it was, because the rest of the log would be taken for news.
static luna_err mend_now(luna_db *db)
{
    LUNA_TRY(luna_db_begin(db, LUNA_DB_DURABLE));
    luna_db_rollback(db);
    return LUNA_OK;
}

//  ---- allocated ahead ---------------------------------------------------------------

//  Zeros are no frames: whoever reads the log stops at them.
static int fill_with_zeros(sqlite3_file *file, sqlite3_int64 from, sqlite3_int64 to)
{
    static const char zeros[PIECE_BYTES];
    for (sqlite3_int64 at = from; at < to; at += PIECE_BYTES) {
        const sqlite3_int64 left = to - at;
        const int n = left < PIECE_BYTES ? (int)left : PIECE_BYTES;
        const int rc = file->pMethods->xWrite(file, zeros, n, at);
        if (rc != SQLITE_OK) return rc;
    }
    return SQLITE_OK;
}

luna_err luna_db_log_start(luna_db *db, size_t bytes)
{
    sqlite3_int64 size;
    char sql[64];
    sqlite3_wal_hook(db->handle, note_pages, db);
    sqlite3_snprintf(sizeof sql, sql, "PRAGMA journal_size_limit = %lld",
                     (long long)bytes);
    const int set = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    if (set != SQLITE_OK) return luna_db_fail(db, set);
    db->torn = true;  //  it may be what a failed sync has left
    LUNA_TRY(mend_now(db));
    sqlite3_file *file = log_file(db);
    if (!file) return LUNA_OK;
    errno = 0;
    int rc = file->pMethods->xFileSize(file, &size);
    if (rc == SQLITE_OK && size < (sqlite3_int64)bytes)
        rc = fill_with_zeros(file, size, (sqlite3_int64)bytes);
    if (rc == SQLITE_FULL) return LUNA_OK;
    return rc == SQLITE_OK ? sync_file(db, file) : luna_db_fail(db, rc);
}

//  ---- moved into the database ------------------------------------------------------

luna_err luna_db_checkpoint(luna_db *db)
{
    int in_log = 0, moved = 0;
    if (db->torn) LUNA_TRY(mend_now(db));
    errno = 0;
    const int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE,
                                             &in_log, &moved);
    if ((rc & 0xff) == SQLITE_BUSY) return LUNA_OK;
    const luna_err err = rc == SQLITE_OK
                             ? LUNA_OK
                             : luna_db_fail(db, sqlite3_extended_errcode(db->handle));
    if (err != LUNA_OK) db->torn = true;  //  it begins with a sync of the log
    if (err == LUNA_OK && moved == in_log) db->log_pages = 0;
    return err;
}

void luna_db_log_stop(luna_db *db)
{
    if (db->torn && mend_now(db) != LUNA_OK)
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}
