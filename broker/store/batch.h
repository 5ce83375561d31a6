//  batch.h - executes operations that share their syncs and one transaction

#ifndef LUNA_BROKER_STORE_BATCH_H
#define LUNA_BROKER_STORE_BATCH_H

#include "broker/store/ballast.h"
#include "broker/store/health.h"
#include "broker/store/reaper.h"
#include "broker/store/rows.h"
#include "broker/store/syncer.h"

#define LUNA_BATCH_MAX 64  //  operations

//  Where the payload of a PUT stands.
typedef enum luna_put_stage {
    LUNA_PUT_NONE,     //  not a PUT, or a repetition
    LUNA_PUT_WRITTEN,  //  in ready/, file descriptor open, not durable
    LUNA_PUT_READY,    //  in ready/ and durable
    LUNA_PUT_REFUSED   //  failed and gone; the operation has its result
} luna_put_stage;

typedef struct luna_batch_slot {
    luna_store_op *op;
    luna_put_stage stage;
    int fd;
} luna_batch_slot;

//  What the store's thread works with; it alone uses db and the slots.
typedef struct luna_engine {
    luna_spool spool;
    luna_ballast ballast;
    luna_db db;
    luna_reaper reaper;
    luna_syncer syncer;
    luna_health health;
    luna_batch_slot slots[LUNA_BATCH_MAX];
    size_t count;             //  slots in use
    bool removed;             //  a payload of this batch was taken back
    uint64_t unsynced_bytes;  //  of payloads whose row may not be durable
    size_t log_step;          //  pages of the log between two checkpoints
    size_t log_mark;          //  the log's length at the next
} luna_engine;

//  Executes `count` operations, at most LUNA_BATCH_MAX, and sets their results. A
//  FORGET must be alone: what it removes must not be asked for by its neighbours.
void luna_batch_run(luna_engine *engine, luna_store_op *const *ops, size_t count);

//  The rows' half of one operation, inside a transaction; sets all results but err and
//  detail. In apply.c.
LUNA_MUST_USE luna_err luna_batch_apply(luna_engine *engine, luna_batch_slot *slot);

#endif
