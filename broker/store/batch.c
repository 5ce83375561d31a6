#include "broker/store/batch.h"

#include <stdio.h>

static void set_result(luna_store_op *op, luna_err err)
{
    op->err = err;
    snprintf(op->detail, sizeof op->detail, "%s", err == LUNA_OK ? "" : luna_error_text());
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

//  A known job is answered by luna_batch_apply; here it only must not be written.
static luna_err write_payload(luna_engine *engine, luna_batch_slot *slot)
{
    luna_job_state state;
    luna_store_op *op = slot->op;
    op->in.put.job.info.id = op->id;
    const luna_err err = luna_rows_state(&engine->db, &op->id, &state);
    if (err == LUNA_OK || written_before(engine, slot)) return LUNA_OK;
    if (err != LUNA_NOT_FOUND) return err;
    char why[300];
    if (!luna_health_good(&engine->health, why, sizeof why))
        return luna_error(LUNA_IO, "the store is read-only: %s", why);
    LUNA_TRY(luna_spool_write(&engine->spool, &op->id, op->in.put.body, &slot->fd));
    slot->stage = LUNA_PUT_WRITTEN;
    return LUNA_OK;
}

static void drop_payload(luna_engine *engine, luna_batch_slot *slot)
{
    slot->stage = LUNA_PUT_NONE;
    (void)luna_spool_remove(&engine->spool, &slot->op->id);
}

//  All write-backs have been started by now, so the syncs overlap on the device.
static void finish_payload(luna_engine *engine, luna_batch_slot *slot)
{
    const luna_id *id = &slot->op->id;
    luna_err err = luna_spool_finish(&engine->spool, id, slot->fd);
    err = luna_health_judge(&engine->health, err);
    if (err == LUNA_OK) err = luna_spool_publish(&engine->spool, id);
    slot->stage = err == LUNA_OK ? LUNA_PUT_READY : LUNA_PUT_NONE;
    set_result(slot->op, err);
}

static void sync_names(luna_engine *engine)
{
    const luna_err err = luna_health_judge(&engine->health, luna_spool_sync(&engine->spool));
    if (err == LUNA_OK) return;
    for (size_t i = 0; i < engine->count; i++) {
        if (engine->slots[i].stage != LUNA_PUT_READY) continue;
        set_result(engine->slots[i].op, err);
        drop_payload(engine, &engine->slots[i]);
    }
}

static void store_payloads(luna_engine *engine)
{
    bool any = false;
    for (size_t i = 0; i < engine->count; i++) {
        luna_batch_slot *slot = &engine->slots[i];
        if (slot->op->kind == LUNA_STORE_PUT)
            set_result(slot->op, write_payload(engine, slot));
    }
    for (size_t i = 0; i < engine->count; i++) {
        if (engine->slots[i].stage != LUNA_PUT_WRITTEN) continue;
        finish_payload(engine, &engine->slots[i]);
        any |= engine->slots[i].stage == LUNA_PUT_READY;
    }
    if (any) sync_names(engine);
}

//  ---- rows ---------------------------------------------------------------------------

//  The transaction, not the operation, has failed.
static bool is_fatal(luna_err err)
{
    return err == LUNA_IO || err == LUNA_NO_SPACE || err == LUNA_NO_MEMORY ||
           err == LUNA_BUSY || err == LUNA_INTERNAL || err == LUNA_CANT_CREATE;
}

//  A PUT that failed before the rows is not tried.
static bool wants_rows(const luna_batch_slot *slot)
{
    return slot->op->kind != LUNA_STORE_PUT || slot->op->err == LUNA_OK;
}
