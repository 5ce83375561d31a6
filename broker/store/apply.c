//  apply.c - what each operation does to the rows

#include "broker/store/batch.h"

#include "common/log.h"

#include <stdlib.h>

//  Rows of an older schema do not tell.
static bool same_content(const luna_store_job *stored, const luna_store_job *job)
{
    return stored->content == 0 || stored->content == job->content;
}

static luna_err known(luna_engine *engine, luna_store_op *op)
{
    char text[LUNA_ID_TEXT_BYTES];
    LUNA_TRY(luna_rows_get(&engine->db, &op->id, &op->found));
    const luna_store_job *stored = &op->found.items[0];
    op->state = stored->state;
    luna_id_text(&op->id, text);
    if (same_content(stored, &op->in.put.job))
        return luna_error(LUNA_EXISTS, "job %s is known already: %s", text,
                          luna_job_state_name(op->state));
    luna_store_jobs_free(&op->found);
    return luna_error(LUNA_BAD_REQUEST,
                      "another job has this id, %s (it is %s); give the new one an id of "
                      "its own",
                      text, luna_job_state_name(op->state));
}

//  Without a payload it can only be a repetition: of a stored job, or of a PUT of the
//  same batch which then was not stored.
static luna_err apply_put(luna_engine *engine, luna_batch_slot *slot)
{
    luna_store_op *op = slot->op;
    if (slot->stage != LUNA_PUT_READY) {
        const luna_err err = known(engine, op);
        if (err != LUNA_NOT_FOUND) return err;
        return luna_error(LUNA_BUSY,
                          "the same job, sent a moment before, could not be stored; "
                          "send it again");
    }
    op->state = LUNA_JOB_PENDING;
    return luna_rows_insert(&engine->db, &op->in.put.job);
}

static luna_err check_payload(const luna_engine *engine, const luna_id *id)
{
    char *file;
    luna_payload payload;
    if (luna_spool_read(&engine->spool, id, &file, &payload) == LUNA_OK) {
        free(file);
        return LUNA_OK;
    }
    return luna_error(LUNA_NOT_FOUND, "the job cannot be retried: %s", luna_error_text());
}

//  What a damaged database does not show may be there.
static luna_err doubt(const luna_engine *engine, luna_err err)
{
    if (err != LUNA_NOT_FOUND || !engine->db.damaged) return err;
    return luna_error(LUNA_IO,
                      "%s, but the database is damaged and may not show it; stop the "
                      "broker and run luna-broker --recover",
                      luna_error_text());
}

static luna_err apply_retry(luna_engine *engine, luna_store_op *op)
{
    char text[LUNA_ID_TEXT_BYTES];
    LUNA_TRY(doubt(engine, luna_rows_state(&engine->db, &op->id, &op->state)));
    luna_id_text(&op->id, text);
    if (op->state != LUNA_JOB_FAILED)
        return luna_error(LUNA_BAD_REQUEST,
                          "job %s is %s; only a failed job can be retried", text,
                          luna_job_state_name(op->state));
    LUNA_TRY(check_payload(engine, &op->id));
    LUNA_TRY(luna_rows_retry(&engine->db, &op->id));
    op->state = LUNA_JOB_PENDING;
    return luna_rows_get(&engine->db, &op->id, &op->found);
}

static luna_err apply_get(luna_engine *engine, luna_store_op *op)
{
    LUNA_TRY(doubt(engine, luna_rows_get(&engine->db, &op->id, &op->found)));
    op->state = op->found.items[0].state;
    return LUNA_OK;
}

static luna_err apply_finish(luna_engine *engine, luna_store_op *op)
{
    const luna_job_state state = op->in.finish.state;
    if (luna_job_state_is_active(state) || state >= LUNA_JOB_STATES)
        return luna_error(LUNA_INTERNAL, "a job cannot finish as %s",
                          luna_job_state_name(state));
    return luna_rows_finish(&engine->db, &op->id, &op->in.finish, &op->state,
                            &op->changed);
}

//  Removes what it can; the others leave the list, so that they keep their rows.
static void remove_payloads(const luna_spool *spool, luna_store_jobs *old)
{
    size_t kept = 0;
    for (size_t i = 0; i < old->count; i++) {
        if (luna_spool_remove(spool, &old->items[i].info.id) == LUNA_OK)
            old->items[kept++] = old->items[i];
        else
            luna_log(LUNA_LOG_WARNING, "spool.leftover",
                     "error=\"%s\" next=\"the job is forgotten later\"",
                     luna_error_text());
    }
    old->count = kept;
}

//  Payloads go first and durably: a payload without a row would become a job again.
static luna_err forget(luna_engine *engine, luna_store_jobs *old)
{
    luna_reaper_drain(&engine->reaper);
    remove_payloads(&engine->spool, old);
    if (old->count == 0) return LUNA_OK;
    LUNA_TRY(luna_health_judge(&engine->health, luna_spool_sync(&engine->spool)));
    for (size_t i = 0; i < old->count; i++)
        LUNA_TRY(luna_rows_delete(&engine->db, &old->items[i].info.id));
    return LUNA_OK;
}

static luna_err apply_forget(luna_engine *engine, luna_store_op *op)
{
    luna_store_jobs old = {0};
    luna_err err = luna_rows_expired(&engine->db, &op->in.forget, &old);
    if (err == LUNA_OK) err = forget(engine, &old);
    if (err == LUNA_OK) op->changed = old.count;
    luna_store_jobs_free(&old);
    return err;
}

luna_err luna_batch_apply(luna_engine *engine, luna_batch_slot *slot)
{
    luna_store_op *op = slot->op;
    luna_db *db = &engine->db;
    switch (op->kind) {
        case LUNA_STORE_PUT:
            return apply_put(engine, slot);
        case LUNA_STORE_ATTEMPT:
            return luna_rows_attempt(db, &op->id, &op->in.attempt, &op->state);
        case LUNA_STORE_IMAGES:
            return luna_rows_images(db, &op->id, &op->in.images, &op->changed);
        case LUNA_STORE_FINISH:
            return apply_finish(engine, op);
        case LUNA_STORE_REQUEUE:
            return luna_rows_requeue(db, &op->id, &op->in.requeue, &op->state);
        case LUNA_STORE_PRIORITISE:
            return luna_rows_prioritise(db, &op->id, &op->in.prioritise, &op->state);
        case LUNA_STORE_PAUSE:
            return luna_rows_set(db, LUNA_SETTING_PAUSED, op->in.pause.paused);
        case LUNA_STORE_RETRY:
            return apply_retry(engine, op);
        case LUNA_STORE_GET:
            return apply_get(engine, op);
        case LUNA_STORE_LIST:
            return luna_rows_list(db, &op->in.list, &op->found);
        case LUNA_STORE_COUNTS:
            return luna_rows_counts(db, op->counts);
        case LUNA_STORE_FORGET:
            return apply_forget(engine, op);
        case LUNA_STORE_KINDS:
            break;
    }
    return luna_error(LUNA_INTERNAL, "the store has no operation %d", (int)op->kind);
}
