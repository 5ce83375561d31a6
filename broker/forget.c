//  forget.c - finished jobs leave when they are old enough
//
//  Their age is told by the wall clock, which may be wrong, as it often is until the
//  network has set it after a start: it is believed once it has run beside the steady
//  clock, without a jump, for a while.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    FORGET_MS = 60000,
    AT_A_TIME = 200,
    JUMP_MS = 60000,
    TRUST_MS = 600000  //  or the time that jobs are kept, when that is shorter
};

static void counts_are_back(luna_broker *b, luna_task *task)
{
    if (task->op.err == LUNA_OK)
        memcpy(b->ended, task->op.counts, sizeof b->ended);
    else
        luna_log(LUNA_LOG_WARNING, "counts", "err=%s", luna_err_name(task->op.err));
}

void luna_ask_counts(luna_broker *b)
{
    luna_task *task = luna_task_new(LUNA_STORE_COUNTS, NULL, counts_are_back);
    if (task) luna_task_submit(b, task);
}

static bool clock_is_right(luna_broker *b, int64_t now_ms)
{
    const int64_t ahead_ms = luna_wall_ms() - now_ms;
    const int64_t keep_ms = (int64_t)b->settings->keep_ms;
    if (llabs(ahead_ms - b->wall_ahead_ms) > JUMP_MS) {
        b->wall_ahead_ms = ahead_ms;
        b->wall_steady_ms = now_ms;
    }
    return now_ms - b->wall_steady_ms >= (keep_ms < TRUST_MS ? keep_ms : TRUST_MS);
}

static void forgotten(luna_broker *b, luna_task *task)
{
    b->forgetting = false;
    if (task->op.err == LUNA_OK && task->op.changed > 0) {
        luna_log(LUNA_LOG_INFO, "forgotten", "jobs=%llu",
                 (unsigned long long)task->op.changed);
        luna_ask_counts(b);
    }
    if (task->op.changed == AT_A_TIME) b->forget_due_ms = 0;
}

static void forget(luna_broker *b)
{
    const int64_t before_ms = luna_wall_ms() - (int64_t)b->settings->keep_ms;
    luna_task *task = luna_task_new(LUNA_STORE_FORGET, NULL, forgotten);
    if (!task) return;
    task->op.in.forget = (luna_store_forget){
        .before_ms = before_ms > 0 ? (uint64_t)before_ms : 0, .limit = AT_A_TIME};
    b->forgetting = true;
    luna_task_submit(b, task);
}

void luna_forget_old(luna_broker *b, int64_t now_ms)
{
    if (b->settings->keep_ms == 0 || !clock_is_right(b, now_ms)) return;
    if (b->forgetting || now_ms < b->forget_due_ms) return;
    b->forget_due_ms = now_ms + FORGET_MS;
    forget(b);
}
