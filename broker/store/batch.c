#include "broker/store/batch.h"

#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void set_result(luna_store_op *op, luna_err err)
{
    op->err = err;
    snprintf(op->detail, sizeof op->detail, "%s",
             err == LUNA_OK ? "" : luna_error_text());
}

static void reset_result(luna_store_op *op)
{
    luna_store_jobs_free(&op->found);
    op->changed = 0;
    op->state = LUNA_JOB_ANY;
    set_result(op, LUNA_OK);
}

//  ---- payloads ---------------------------------------------------------------------

//  Whether an earlier slot writes the payload of the same id: tmp/<id> is its file.
static bool written_before(const luna_engine *engine, const luna_batch_slot *slot)
{
    for (const luna_batch_slot *at = engine->slots; at < slot; at++)
        if (at->stage != LUNA_PUT_NONE &&
            luna_id_compare(&at->op->id, &slot->op->id) == 0)
            return true;
    return false;
}

static luna_err check_writable(luna_engine *engine)
{
    char why[300];
    if (luna_health_good(&engine->health, why, sizeof why))
        return luna_ballast_check(&engine->ballast);
    return luna_error(LUNA_IO, "the store is read-only: %s", why);
}

//  A known job is answered by luna_batch_apply; here it only must not be written.
static luna_err write_payload(luna_engine *engine, luna_batch_slot *slot)
{
    luna_job_state state;
    luna_store_op *op = slot->op;
    op->in.put.job.info.id = op->id;
    const luna_err err = luna_rows_state(&engine->db, &op->id, &state);
    if (err == LUNA_OK || written_before(engine, slot)) return LUNA_OK;
    if (err != LUNA_NOT_FOUND) return err;
    LUNA_TRY(check_writable(engine));
    luna_payload payload = {.id = op->id,
                            .accepted_ms = op->in.put.job.info.accepted_ms,
                            .body = op->in.put.body};
    LUNA_TRY(luna_spool_write(&engine->spool, &payload, &slot->fd));
    slot->stage = LUNA_PUT_WRITTEN;
    return luna_spool_publish(&engine->spool, &op->id);
}

static void close_payload(luna_batch_slot *slot)
{
    if (slot->fd >= 0) close(slot->fd);
    slot->fd = -1;
}

static void drop_payload(luna_engine *engine, luna_batch_slot *slot)
{
    char name[LUNA_ID_TEXT_BYTES];
    close_payload(slot);
    slot->stage = LUNA_PUT_REFUSED;
    engine->removed = true;
    if (luna_spool_remove(&engine->spool, &slot->op->id) == LUNA_OK) return;
    luna_id_text(&slot->op->id, name);
    luna_log(LUNA_LOG_WARNING, "spool.leftover",
             "job=%s error=\"%s\" next=\"a pending job at the next start\"", name,
             luna_error_text());
}

static void write_payloads(luna_engine *engine)
{
    for (size_t i = 0; i < engine->count; i++) {
        luna_batch_slot *slot = &engine->slots[i];
        if (slot->op->kind != LUNA_STORE_PUT) continue;
        const luna_err err = write_payload(engine, slot);
        set_result(slot->op, err);
        if (err == LUNA_OK) continue;
        close_payload(slot);
        slot->stage = LUNA_PUT_REFUSED;
    }
}

//  ---- their syncs -------------------------------------------------------------------

static luna_err result_of(const luna_engine *engine, const luna_sync *item)
{
    if (item->code == 0) return LUNA_OK;
    errno = item->code;
    return luna_error_errno(LUNA_IO, "cannot sync %s in %s/ready",
                            item->folder ? "the names" : "a payload", engine->spool.dir);
}

//  The payload's own result, or else that of the folder.
static void finish_payload(luna_engine *engine, luna_batch_slot *slot,
                           const luna_sync *file, const luna_sync *folder)
{
    luna_err err = result_of(engine, file);
    if (err == LUNA_OK) err = result_of(engine, folder);
    err = luna_health_judge(&engine->health, err);
    set_result(slot->op, err);
    close_payload(slot);
    slot->stage = LUNA_PUT_READY;
    engine->unsynced_bytes += slot->op->in.put.body.len;
    if (err != LUNA_OK) drop_payload(engine, slot);
}

static void sync_payloads(luna_engine *engine)
{
    luna_sync items[LUNA_BATCH_MAX + 1];
    luna_batch_slot *slots[LUNA_BATCH_MAX];
    size_t count = 0;
    for (size_t i = 0; i < engine->count; i++) {
        if (engine->slots[i].stage != LUNA_PUT_WRITTEN) continue;
        items[count] = (luna_sync){.fd = engine->slots[i].fd};
        slots[count++] = &engine->slots[i];
    }
    if (count == 0) return;
    items[count] = (luna_sync){.fd = engine->spool.ready, .folder = true};
    luna_syncer_run(&engine->syncer, items, count + 1);
    for (size_t i = 0; i < count; i++)
        finish_payload(engine, slots[i], &items[i], &items[count]);
}

//  ---- rows ---------------------------------------------------------------------------

//  The transaction may have failed, and not just the operation.
static bool is_fatal(luna_err err)
{
    return err != LUNA_OK && err != LUNA_EXISTS && err != LUNA_NOT_FOUND &&
           err != LUNA_BAD_REQUEST;
}

static luna_err apply_all(luna_engine *engine)
{
    for (size_t i = 0; i < engine->count; i++) {
        luna_batch_slot *slot = &engine->slots[i];
        if (slot->stage == LUNA_PUT_REFUSED) continue;
        const luna_err err = luna_batch_apply(engine, slot);
        if (is_fatal(err)) return err;
        set_result(slot->op, err);
    }
    return LUNA_OK;
}

//  A payload in ready/ is what its row can be made of again, so a row that is no more
//  than that need not be durable itself.
static luna_db_promise promise_of(const luna_store_op *op)
{
    switch (op->kind) {
        case LUNA_STORE_GET:
        case LUNA_STORE_LIST:
        case LUNA_STORE_COUNTS:
            return LUNA_DB_READ;
        case LUNA_STORE_PUT:
            return LUNA_DB_WRITE;
        default:
            return LUNA_DB_DURABLE;
    }
}

static luna_db_promise promise_of_all(const luna_engine *engine)
{
    luna_db_promise most = LUNA_DB_READ;
    for (size_t i = 0; i < engine->count; i++) {
        const luna_db_promise one = promise_of(engine->slots[i].op);
        if (one > most) most = one;
    }
    return most;
}

static luna_err commit(luna_engine *engine, luna_db_promise promise)
{
    LUNA_TRY(luna_health_judge(&engine->health, luna_db_commit(&engine->db)));
    if (promise == LUNA_DB_DURABLE) engine->unsynced_bytes = 0;
    return LUNA_OK;
}

//  All or nothing; the results stand only when this succeeds. *locked: another program
//  did not let it begin.
static luna_err run_together(luna_engine *engine, bool *locked)
{
    const luna_db_promise promise = promise_of_all(engine);
    luna_err err = luna_db_begin(&engine->db, promise);
    *locked = err == LUNA_BUSY;
    LUNA_TRY(err);
    err = apply_all(engine);
    if (err == LUNA_OK) return commit(engine, promise);
    luna_db_rollback(&engine->db);
    return err;
}

//  A payload that was written before the disk failed is not accepted after it.
static luna_err refuse_put(luna_engine *engine, const luna_batch_slot *slot)
{
    return slot->stage == LUNA_PUT_READY ? check_writable(engine) : LUNA_OK;
}

static luna_err try_alone(luna_engine *engine, luna_batch_slot *slot)
{
    LUNA_TRY(refuse_put(engine, slot));
    LUNA_TRY(luna_db_begin(&engine->db, promise_of(slot->op)));
    luna_err err = luna_batch_apply(engine, slot);
    if (err == LUNA_OK) return commit(engine, promise_of(slot->op));
    luna_db_rollback(&engine->db);
    return err;
}

//  The ballast is for all but new jobs.
static luna_err run_alone(luna_engine *engine, luna_batch_slot *slot)
{
    const luna_err err = try_alone(engine, slot);
    if (err != LUNA_NO_SPACE || slot->op->kind == LUNA_STORE_PUT) return err;
    if (!luna_ballast_spend(&engine->ballast)) return err;
    reset_result(slot->op);
    return try_alone(engine, slot);
}

static luna_err foreign_lock(const luna_engine *engine)
{
    return luna_error(LUNA_BUSY, "%s: another program holds its lock", engine->db.path);
}

//  One operation that fails, or needs more room than there is, must not fail its
//  neighbours: each gets a transaction of its own. A foreign lock that was waited for
//  once is not waited for again by each of them.
static void store_rows(luna_engine *engine)
{
    bool locked = false;
    if (engine->count > 1 && run_together(engine, &locked) == LUNA_OK) return;
    for (size_t i = 0; i < engine->count; i++) {
        luna_batch_slot *slot = &engine->slots[i];
        if (slot->stage == LUNA_PUT_REFUSED) continue;
        reset_result(slot->op);
        if (locked && promise_of(slot->op) != LUNA_DB_READ)
            set_result(slot->op, foreign_lock(engine));
        else
            set_result(slot->op, run_alone(engine, slot));
    }
}

//  ---- the batch -----------------------------------------------------------------------

//  After LUNA_IO the row may be on the disk all the same, so the payload stays.
static void clean_up(luna_engine *engine, luna_batch_slot *slot)
{
    const luna_store_op *op = slot->op;
    if (slot->stage == LUNA_PUT_READY && op->err != LUNA_OK && op->err != LUNA_IO)
        drop_payload(engine, slot);
    if (op->kind == LUNA_STORE_FINISH && op->err == LUNA_OK &&
        op->state != LUNA_JOB_FAILED)
        luna_reaper_add(&engine->reaper, &op->id);
}

//  So that a job that was refused does not come back by a power loss.
static void sync_removals(luna_engine *engine)
{
    if (!engine->removed) return;
    engine->removed = false;
    const luna_err err =
        luna_health_judge(&engine->health, luna_spool_sync(&engine->spool));
    if (err != LUNA_OK)
        luna_log(LUNA_LOG_WARNING, "spool.leftover",
                 "error=\"%s\" next=\"a refused job may be pending at the next start\"",
                 luna_error_text());
}

void luna_batch_run(luna_engine *engine, luna_store_op *const *ops, size_t count)
{
    engine->count = count;
    for (size_t i = 0; i < count; i++) {
        engine->slots[i] = (luna_batch_slot){.op = ops[i], .fd = -1};
        reset_result(ops[i]);
    }
    write_payloads(engine);
    sync_payloads(engine);
    store_rows(engine);
    for (size_t i = 0; i < count; i++) clean_up(engine, &engine->slots[i]);
    sync_removals(engine);
}
