//  task.c - operations of the store
//
//  Three kinds of failure. A question or a new job: its `back` answers with the
//  error. An attempt: its `back` puts the job off. An image or an end that could not
//  be recorded: tried again each second until it can, because the picture exists
//  and forgetting it would decode it twice, or leave the job in progress for ever.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>

enum { RETRY_MS = 1000 };

void luna_message_close(luna_message *message)
{
    luna_packet_close(&message->packet);
    zframe_destroy(&message->frame);
}

luna_task *luna_task_new(luna_store_kind kind, const luna_id *id, luna_task_back *back)
{
    luna_task *task = calloc(1, sizeof *task);
    if (!task) {
        luna_log(LUNA_LOG_ERROR, "no_memory", "next=\"the broker goes on\"");
        return NULL;
    }
    task->op.kind = kind;
    task->op.user = task;
    if (id) task->op.id = *id;
    task->back = back;
    return task;
}

void luna_task_free(luna_task *task)
{
    luna_store_op_clear(&task->op);
    luna_message_close(&task->message);
    free(task->topic);
    free(task);
}

void luna_task_submit(luna_broker *b, luna_task *task)
{
    b->task_count++;
    task->submitted_ns = luna_now_ns();
    task->op.next = NULL;
    if (b->last_op)
        b->last_op->next = &task->op;
    else
        b->first_op = &task->op;
    b->last_op = &task->op;
}

void luna_task_hand_over(luna_broker *b)
{
    if (!b->first_op) return;
    luna_store_submit_all(b->store, b->first_op);
    b->first_op = b->last_op = NULL;
}

//  LUNA_BUSY: another program, a backup or a shell, holds the database's lock.
static bool must_be_repeated(const luna_store_op *op)
{
    const bool passing = op->err == LUNA_IO || op->err == LUNA_NO_SPACE ||
                         op->err == LUNA_NO_MEMORY || op->err == LUNA_BUSY ||
                         op->err == LUNA_CANT_CREATE;
    return passing && (op->kind == LUNA_STORE_IMAGES || op->kind == LUNA_STORE_FINISH);
}

static void stall(luna_broker *b, luna_task *task)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    luna_log(LUNA_LOG_ERROR, "store_failed",
             "job=%s err=%s detail=\"%s\" next=\"again in "
             "1 s\"",
             id, luna_err_name(task->op.err), task->op.detail);
    luna_store_jobs_free(&task->op.found);
    task->op.err = LUNA_OK;
    task->op.detail[0] = '\0';
    task->op.changed = 0;
    task->due_ms = luna_now_ms() + RETRY_MS;
    task->next = NULL;
    luna_task **end = &b->stalled;
    while (*end) end = &(*end)->next;
    *end = task;
}

void luna_task_collect(luna_broker *b)
{
    for (luna_store_op *op; (op = luna_store_collect(b->store));) {
        luna_task *task = op->user;
        b->task_count--;
        luna_metrics_store(b, task);
        if (must_be_repeated(op)) {
            stall(b, task);
            continue;
        }
        task->back(b, task);
        luna_task_free(task);
    }
}

void luna_task_retry_stalled(luna_broker *b, int64_t now_ms)
{
    while (b->stalled && b->stalled->due_ms <= now_ms) {
        luna_task *task = b->stalled;
        b->stalled = task->next;
        luna_task_submit(b, task);
    }
}
