#include "broker/store/recover.h"

#include "broker/store/adopt.h"
#include "common/clock.h"
#include "common/log.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct recovery {
    luna_spool *spool;
    luna_db *db;
    luna_store_jobs *active;
    luna_recovered *found;
    luna_id *listed;  //  ids of the active rows, in their order
    size_t listed_count;
    bool doubtful;  //  something is wrong with the rows
    bool checked;   //  every page was looked at
    bool unlisted;  //  an index lacks a row
    bool unread;    //  the disk did not give a payload that has no row
    bool rebuild;   //  the database is new, or was asked to be checked
    uint64_t now_ms;
    uint64_t attempts;  //  of a job that is rebuilt
} recovery;

static void report(luna_log_level level, const char *event, const char *name,
                   const char *next)
{
    luna_log(level, event, "job=%s error=\"%s\" next=\"%s\"", name, luna_error_text(),
             next);
}

//  ---- rows that are damaged -----------------------------------------------------------

static luna_err leave_alone(recovery *r, const char *name)
{
    r->doubtful = true;
    r->found->unreadable++;
    report(LUNA_LOG_ERROR, "row.unreadable", name,
           "the job waits; stop the broker and run luna-broker --recover");
    return LUNA_OK;
}

//  What SQLite cannot read or write in one place does not stop the rest.
static luna_err tolerate(recovery *r, const char *name, luna_err err)
{
    if (err != LUNA_IO || !r->db->damaged || !luna_db_in_transaction(r->db)) return err;
    return leave_alone(r, name);
}

//  Whether rows may be made and moved. Checked once, when that is first needed.
static bool may_repair(recovery *r)
{
    if (r->checked || r->db->damaged) return !r->db->damaged;
    r->checked = true;
    return luna_db_check(r->db) == LUNA_OK;
}

//  The reason is the latest sentence. *gone: it is no longer among the jobs.
static luna_err set_row_aside(recovery *r, const luna_id *id, bool *gone)
{
    char name[LUNA_ID_TEXT_BYTES], why[600];
    luna_id_text(id, name);
    luna_text_copy(luna_text_of(luna_error_text()), why, sizeof why);
    r->doubtful = true;
    *gone = false;
    if (!may_repair(r)) return leave_alone(r, name);
    const luna_err err = luna_rows_set_aside(r->db, id, why, r->now_ms);
    if (err != LUNA_OK) return tolerate(r, name, err);
    *gone = true;
    r->found->damaged++;
    luna_log(LUNA_LOG_ERROR, "row.damaged",
             "job=%s error=\"%s\" next=\"its payload becomes a pending job\"", name, why);
    return LUNA_OK;
}

//  ---- active jobs ---------------------------------------------------------------

static luna_err fail_job(recovery *r, const luna_id *id)
{
    char name[LUNA_ID_TEXT_BYTES], detail[600];
    luna_job_state state;
    uint64_t added = 0;
    luna_id_text(id, name);
    luna_text_copy(luna_text_of(luna_error_text()), detail, sizeof detail);
    report(LUNA_LOG_WARNING, "job.failed", name,
           "what is left of its payload is in quarantine/");
    r->doubtful = true;
    if (luna_spool_quarantine(r->spool, name) != LUNA_OK)
        report(LUNA_LOG_WARNING, "spool.leftover", name, "it stays in ready/");
    const luna_store_finish finish = {.state = LUNA_JOB_FAILED,
                                      .error = luna_text_of(luna_err_name(LUNA_IO)),
                                      .detail = luna_text_of(detail),
                                      .finished_ms = r->now_ms};
    return tolerate(r, name, luna_rows_finish(r->db, id, &finish, &state, &added));
}

static void report_unread(const luna_id *id)
{
    char name[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, name);
    report(LUNA_LOG_WARNING, "spool.unread", name, "the job goes on; it is read again");
}

//  An index may name a row that is not there, or that a damaged page hides until rows are
//  added: the payload decides what becomes of it. It counts as not listed from now on.
static void doubt(recovery *r, luna_id *id)
{
    r->doubtful = r->unlisted = true;
    *id = (luna_id){0};
}

static luna_err check_job(recovery *r, luna_id *id)
{
    bool gone;
    const luna_err err = luna_rows_get(r->db, id, r->active);
    if (err == LUNA_IO) return set_row_aside(r, id, &gone);
    if (err == LUNA_NOT_FOUND) {
        doubt(r, id);
        return LUNA_OK;
    }
    LUNA_TRY(err);
    const luna_err payload = luna_spool_check(r->spool, id);
    if (payload == LUNA_UNAVAILABLE) report_unread(id);
    if (payload == LUNA_OK || payload == LUNA_UNAVAILABLE) return LUNA_OK;
    r->active->count--;
    return fail_job(r, id);
}

static luna_err list_active(recovery *r)
{
    luna_store_jobs ids = {0};
    luna_err err = luna_rows_active_ids(r->db, &ids);
    r->listed = calloc(ids.count + 1, sizeof *r->listed);
    if (err == LUNA_OK && !r->listed)
        err = luna_error(LUNA_NO_MEMORY, "no memory for a list of jobs");
    if (err == LUNA_OK) {
        r->listed_count = ids.count;
        for (size_t i = 0; i < ids.count; i++) r->listed[i] = ids.items[i].info.id;
    }
    luna_store_jobs_free(&ids);
    return err;
}

static int by_id(const void *a, const void *b)
{
    return luna_id_compare(a, b);
}

static luna_err check_active(recovery *r)
{
    LUNA_TRY(list_active(r));
    for (size_t i = 0; i < r->listed_count; i++) LUNA_TRY(check_job(r, &r->listed[i]));
    qsort(r->listed, r->listed_count, sizeof *r->listed, by_id);
    return LUNA_OK;
}

//  ---- what lies in ready/ -------------------------------------------------------------

static void set_file_aside(const recovery *r, const char *name)
{
    report(LUNA_LOG_WARNING, "spool.damaged", name, "moved to quarantine/");
    if (luna_spool_quarantine(r->spool, name) != LUNA_OK)
        report(LUNA_LOG_WARNING, "spool.leftover", name, "it stays in ready/");
}

//  The next start finds it again, and knows then that the job may have run before.
static luna_err leave_unread(recovery *r, const char *name)
{
    r->unread = true;
    report(LUNA_LOG_ERROR, "spool.unread", name,
           "it stays in ready/; start the broker again when the disk reads it");
    return LUNA_OK;
}

static luna_err adopt(recovery *r, const luna_id *id, const char *name)
{
    bool sound;
    if (!may_repair(r)) return leave_alone(r, name);
    const uint64_t attempts = r->doubtful ? LUNA_STORE_REBUILT_ATTEMPTS : 0;
    const luna_err err = luna_adopt(r->spool, r->db, id, attempts, &sound);
    if (err == LUNA_UNAVAILABLE) return leave_unread(r, name);
    if (err != LUNA_OK) return tolerate(r, name, err);
    if (!sound) {
        set_file_aside(r, name);
        return LUNA_OK;
    }
    luna_log(LUNA_LOG_INFO, "job.recovered", "job=%s next=\"pending\"", name);
    r->found->adopted++;
    return luna_rows_get(r->db, id, r->active);
}

static bool is_id(const char *name, luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    if (luna_id_parse(name, id) != LUNA_OK) return false;
    luna_id_text(id, text);
    if (strcmp(text, name) == 0) return true;
    (void)luna_error(LUNA_BAD_REQUEST, "the file's name is not in lower case");
    return false;
}

static bool is_listed(const recovery *r, const luna_id *id)
{
    return bsearch(id, r->listed, r->listed_count, sizeof *id, by_id) != NULL;
}

//  A job that its index does not show: the row is sound, and goes on.
static luna_err take_unlisted(recovery *r, const luna_id *id, const char *name)
{
    r->doubtful = r->unlisted = true;
    (void)luna_error(LUNA_IO, "an index of the database lacks the job");
    report(LUNA_LOG_ERROR, "row.damaged", name, "the index is made anew");
    return tolerate(r, name, luna_rows_get(r->db, id, r->active));
}

static luna_err check_payload(recovery *r, const luna_id *id, const char *name)
{
    luna_job_state state;
    luna_err err = luna_rows_state(r->db, id, &state);
    if (err == LUNA_IO && is_listed(r, id)) return LUNA_OK;  //  that was told
    if (err == LUNA_IO) {
        bool gone;
        LUNA_TRY(set_row_aside(r, id, &gone));
        if (!gone) return LUNA_OK;
        err = LUNA_NOT_FOUND;
    }
    if (err == LUNA_NOT_FOUND) return adopt(r, id, name);
    LUNA_TRY(err);
    if (luna_job_state_is_active(state) && !is_listed(r, id))
        return take_unlisted(r, id, name);
    if (state != LUNA_JOB_COMPLETED && state != LUNA_JOB_CANCELLED) return LUNA_OK;
    if (luna_spool_remove(r->spool, id) != LUNA_OK)
        report(LUNA_LOG_WARNING, "spool.leftover", name, "removed at the next start");
    return LUNA_OK;
}

static luna_err check_file(recovery *r, const char *name)
{
    luna_id id;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return LUNA_OK;
    if (is_id(name, &id)) return check_payload(r, &id, name);
    set_file_aside(r, name);
    return LUNA_OK;
}

static luna_err check_files(recovery *r)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, r->spool->dir, "ready"));
    DIR *dir = opendir(path);
    if (!dir) return luna_error_errno(LUNA_IO, "cannot read the folder %s", path);
    luna_err err = LUNA_OK;
    for (struct dirent *entry; err == LUNA_OK && (entry = readdir(dir));)
        err = check_file(r, entry->d_name);
    closedir(dir);
    return err;
}

//  ---- all of it -------------------------------------------------------------------

static int by_acceptance(const void *a, const void *b)
{
    const luna_msg_job_info *x = &((const luna_store_job *)a)->info;
    const luna_msg_job_info *y = &((const luna_store_job *)b)->info;
    if (x->accepted_ms != y->accepted_ms) return x->accepted_ms < y->accepted_ms ? -1 : 1;
    return luna_id_compare(&x->id, &y->id);
}

static luna_err reindex(recovery *r)
{
    if (!r->unlisted || !may_repair(r)) return LUNA_OK;
    return tolerate(r, "all", luna_rows_reindex(r->db));
}

//  A name found here may not be durable yet: it must be before its row is.
static luna_err recover(recovery *r)
{
    LUNA_TRY(luna_rows_setting(r->db, LUNA_SETTING_REBUILD, &r->rebuild));
    r->doubtful = r->rebuild;
    LUNA_TRY(check_active(r));
    LUNA_TRY(check_files(r));
    LUNA_TRY(reindex(r));
    if (r->rebuild && !r->unread)
        LUNA_TRY(luna_rows_set(r->db, LUNA_SETTING_REBUILD, false));
    return luna_spool_sync(r->spool);
}

//  So that a rebuild that is cut short goes on as one.
static luna_err mark_rebuild(luna_db *db)
{
    LUNA_TRY(luna_db_begin(db, LUNA_DB_DURABLE));
    const luna_err err = luna_rows_set(db, LUNA_SETTING_REBUILD, true);
    if (err == LUNA_OK) return luna_db_commit(db);
    luna_db_rollback(db);
    return err;
}

luna_err luna_recover(luna_spool *spool, luna_db *db, bool thorough,
                      luna_store_jobs *active, luna_recovered *out)
{
    *out = (luna_recovered){0};
    recovery r = {.spool = spool,
                  .db = db,
                  .active = active,
                  .found = out,
                  .now_ms = (uint64_t)luna_wall_ms()};
    if (thorough) LUNA_TRY(mark_rebuild(db));
    LUNA_TRY(luna_db_begin(db, LUNA_DB_DURABLE));
    luna_err err = recover(&r);
    if (err == LUNA_OK)
        err = luna_db_commit(db);
    else
        luna_db_rollback(db);
    free(r.listed);
    if (active->count > 0)
        qsort(active->items, active->count, sizeof active->items[0], by_acceptance);
    return err;
}
