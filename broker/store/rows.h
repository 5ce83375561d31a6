//  rows.h - the rows of jobs and images; the only place with SQL about them
//
//  Functions change rows inside the caller's transaction (luna_db_begin). Errors are
//  those of luna_db plus the ones named. Checks come before changes, so an error
//  other than those of luna_db has changed nothing. A row that is damaged (its
//  checksum, a state or number that cannot be) is LUNA_IO where it is asked for by its
//  id, and left out of lists with one line in the log.

#ifndef LUNA_BROKER_STORE_ROWS_H
#define LUNA_BROKER_STORE_ROWS_H

#include "broker/store/db.h"
#include "broker/store/store.h"

//  Opens STATE/luna.db, makes the tables in a new one and brings older ones up to
//  date. `log_bytes` and errors as luna_db_open.
LUNA_MUST_USE luna_err luna_rows_open(luna_db *db, const char *path, size_t log_bytes);

//  What checks need of a job.
typedef struct luna_rows_head {
    luna_job_state state;
    uint32_t batches[LUNA_MAX_INPUTS];  //  as in luna_store_job
} luna_rows_head;

//  LUNA_NOT_FOUND, with a sentence naming the id.
LUNA_MUST_USE luna_err luna_rows_read_head(luna_db *db, const luna_id *id,
                                           luna_rows_head *out);

//  The state alone.
LUNA_MUST_USE luna_err luna_rows_state(luna_db *db, const luna_id *id,
                                       luna_job_state *out);

//  Adds the job to `out`, its image records as info.files. LUNA_NOT_FOUND.
LUNA_MUST_USE luna_err luna_rows_get(luna_db *db, const luna_id *id,
                                     luna_store_jobs *out);

//  Newest accepted first, without files.
LUNA_MUST_USE luna_err luna_rows_list(luna_db *db, const luna_store_list *want,
                                      luna_store_jobs *out);

//  Ids of active jobs, oldest accepted, then id; items[].info.id is all that is set.
//  Read from an index alone: the rows may be damaged, or not there.
LUNA_MUST_USE luna_err luna_rows_active_ids(luna_db *db, luna_store_jobs *out);

LUNA_MUST_USE luna_err luna_rows_counts(luna_db *db, uint64_t counts[LUNA_JOB_STATES]);

//  A pending job with the attempts, deadline and place that it says. The id must not
//  be known.
LUNA_MUST_USE luna_err luna_rows_insert(luna_db *db, const luna_store_job *job);

//  As the operations of store.h. `state` is set also with LUNA_EXISTS.
LUNA_MUST_USE luna_err luna_rows_attempt(luna_db *db, const luna_id *id,
                                         const luna_store_attempt *attempt,
                                         luna_job_state *state);
LUNA_MUST_USE luna_err luna_rows_images(luna_db *db, const luna_id *id,
                                        const luna_store_images *images, uint64_t *added);
LUNA_MUST_USE luna_err luna_rows_finish(luna_db *db, const luna_id *id,
                                        const luna_store_finish *finish,
                                        luna_job_state *state, uint64_t *added);
LUNA_MUST_USE luna_err luna_rows_requeue(luna_db *db, const luna_id *id,
                                         const luna_store_requeue *requeue,
                                         luna_job_state *state);
LUNA_MUST_USE luna_err luna_rows_prioritise(luna_db *db, const luna_id *id,
                                            const luna_store_prioritise *to,
                                            luna_job_state *state);

//  What is remembered beside jobs. A setting that was never made is false; one that is
//  damaged is true, which is the careful value of both.
#define LUNA_SETTING_PAUSED  "paused"
#define LUNA_SETTING_REBUILD "rebuild"  //  the spool may hold jobs of any history
LUNA_MUST_USE luna_err luna_rows_set(luna_db *db, const char *name, bool value);
LUNA_MUST_USE luna_err luna_rows_setting(luna_db *db, const char *name, bool *out);

//  The state must be failed already: the caller has checked.
LUNA_MUST_USE luna_err luna_rows_retry(luna_db *db, const luna_id *id);

//  Ids of jobs that finished before the given time, oldest first; items[].info.id is
//  all that is set.
LUNA_MUST_USE luna_err luna_rows_expired(luna_db *db, const luna_store_forget *forget,
                                         luna_store_jobs *out);

//  Deletes the job and its image records.
LUNA_MUST_USE luna_err luna_rows_delete(luna_db *db, const luna_id *id);

//  The same, with what the row was kept in the table `damaged`.
LUNA_MUST_USE luna_err luna_rows_set_aside(luna_db *db, const luna_id *id,
                                           const char *why, uint64_t now_ms);

//  Makes all indexes anew.
LUNA_MUST_USE luna_err luna_rows_reindex(luna_db *db);

#endif
