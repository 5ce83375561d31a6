#include "broker/store/recover.h"

#include "common/clock.h"
#include "common/log.h"
#include "proto/codec.h"
#include "proto/job.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct recovery {
    luna_spool *spool;
    luna_db *db;
    uint64_t now_ms;
    uint64_t attempts;  //  of a job that is rebuilt
} recovery;

static void report(const char *event, const char *name, const char *next)
{
    luna_log(LUNA_LOG_WARNING, event, "job=%s error=\"%s\" next=\"%s\"", name,
             luna_error_text(), next);
}

//  ---- active jobs ---------------------------------------------------------------

static luna_err fail_job(const recovery *r, const luna_id *id)
{
    char name[LUNA_ID_TEXT_BYTES], detail[600];
    luna_job_state state;
    uint64_t added = 0;
    luna_id_text(id, name);
    luna_text_copy(luna_text_of(luna_error_text()), detail, sizeof detail);
    report("job.failed", name, "what is left of its payload is in quarantine/");
    if (luna_spool_quarantine(r->spool, name) != LUNA_OK)
        report("spool.leftover", name, "it stays in ready/");
    const luna_store_finish finish = {.state = LUNA_JOB_FAILED,
                                      .error = luna_text_of(luna_err_name(LUNA_IO)),
                                      .detail = luna_text_of(detail),
                                      .finished_ms = r->now_ms};
    return luna_rows_finish(r->db, id, &finish, &state, &added);
}

static luna_err check_job(const recovery *r, const luna_id *id)
{
    const luna_err err = luna_spool_check(r->spool, id);
    return err == LUNA_OK ? LUNA_OK : fail_job(r, id);
}

static luna_err check_active(const recovery *r)
{
    luna_store_jobs jobs = {0};
    luna_err err = luna_rows_active(r->db, &jobs);
    for (size_t i = 0; err == LUNA_OK && i < jobs.count; i++)
        err = check_job(r, &jobs.items[i].info.id);
    luna_store_jobs_free(&jobs);
    return err;
}

//  ---- payloads without a row ---------------------------------------------------------

typedef struct orphan {
    char *file;
    luna_packet *packet;
    luna_payload payload;
    luna_msg_job message;
} orphan;

static void orphan_close(orphan *o)
{
    luna_packet_close(&o->packet);
    free(o->file);
}

static luna_err orphan_read(orphan *o, const luna_id *id)
{
    if (luna_packet_type(o->packet) != LUNA_MSG_JOB)
        return luna_error(LUNA_BAD_REQUEST, "the payload holds no job");
    LUNA_TRY(luna_packet_read(o->packet, &o->message));
    if (luna_id_compare(&o->message.id, id) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the payload holds another job");
    return luna_job_check(&o->message);
}

//  Any error says that the payload cannot become a job.
static luna_err orphan_open(const recovery *r, const luna_id *id, orphan *o)
{
    char *file;
    LUNA_TRY(luna_spool_read(r->spool, id, &file, &o->payload));
    o->file = file;
    LUNA_TRY(luna_packet_open(o->payload.body.data, o->payload.body.len, &o->packet));
    return orphan_read(o, id);
}

//  *sound is false, with the reason as the latest sentence, when it cannot be a job.
static luna_err rebuild(const recovery *r, const luna_id *id, bool *sound)
{
    orphan o = {0};
    luna_err err = orphan_open(r, id, &o);
    *sound = err == LUNA_OK;
    if (err == LUNA_OK) {
        luna_store_job job =
            luna_store_job_new(&o.message, o.payload.body.len, o.payload.accepted_ms);
        job.info.attempts = r->attempts;
        err = luna_spool_sync_file(r->spool, id);
        if (err == LUNA_OK) err = luna_rows_insert(r->db, &job);
    } else if (err != LUNA_NO_MEMORY) {
        err = LUNA_OK;
    }
    orphan_close(&o);
    return err;
}

static void set_aside(const recovery *r, const char *name)
{
    report("spool.damaged", name, "moved to quarantine/");
    if (luna_spool_quarantine(r->spool, name) != LUNA_OK)
        report("spool.leftover", name, "it stays in ready/");
}

static luna_err adopt(const recovery *r, const luna_id *id, const char *name)
{
    bool sound;
    LUNA_TRY(rebuild(r, id, &sound));
    if (sound)
        luna_log(LUNA_LOG_INFO, "job.recovered", "job=%s next=\"pending\"", name);
    else
        set_aside(r, name);
    return LUNA_OK;
}

//  ---- what lies in ready/ -------------------------------------------------------------

static bool is_id(const char *name, luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    if (luna_id_parse(name, id) != LUNA_OK) return false;
    luna_id_text(id, text);
    if (strcmp(text, name) == 0) return true;
    (void)luna_error(LUNA_BAD_REQUEST, "the file's name is not in lower case");
    return false;
}

static luna_err check_file(const recovery *r, const char *name)
{
    luna_id id;
    luna_job_state state;
    if (!is_id(name, &id)) {
        set_aside(r, name);
        return LUNA_OK;
    }
    const luna_err err = luna_rows_state(r->db, &id, &state);
    if (err == LUNA_NOT_FOUND) return adopt(r, &id, name);
    LUNA_TRY(err);
    if (state != LUNA_JOB_COMPLETED && state != LUNA_JOB_CANCELLED) return LUNA_OK;
    if (luna_spool_remove(r->spool, &id) != LUNA_OK)
        report("spool.leftover", name, "removed at the next start");
    return LUNA_OK;
}

static luna_err check_files(const recovery *r)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, r->spool->dir, "ready"));
    DIR *dir = opendir(path);
    if (!dir) return luna_error_errno(LUNA_IO, "cannot read the folder %s", path);
    luna_err err = LUNA_OK;
    for (struct dirent *entry; err == LUNA_OK && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            err = check_file(r, entry->d_name);
    closedir(dir);
    return err;
}

//  ---- all of it -------------------------------------------------------------------

//  A name found here may not be durable yet: it must be before its row is. The bytes of
//  those without a row were synced by rebuild.
static luna_err recover(const recovery *r)
{
    LUNA_TRY(check_active(r));
    LUNA_TRY(check_files(r));
    return luna_spool_sync(r->spool);
}

luna_err luna_recover(luna_spool *spool, luna_db *db, bool fresh)
{
    const recovery r = {.spool = spool,
                        .db = db,
                        .now_ms = (uint64_t)luna_wall_ms(),
                        .attempts = fresh ? LUNA_REBUILT_ATTEMPTS : 0};
    LUNA_TRY(luna_db_begin(db, LUNA_DB_DURABLE));
    const luna_err err = recover(&r);
    if (err == LUNA_OK) return luna_db_commit(db);
    luna_db_rollback(db);
    return err;
}
