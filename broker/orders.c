//  orders.c - cancel, retry, prioritise, pause, resume, drain
//
//  An order is answered when what it changed is durable. Draining is not kept across a
//  restart of the broker; pausing is.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

enum { RETRY_ALL_MAX = 10000 };

static luna_err new_task(luna_broker *b, luna_store_kind kind, const luna_peer *peer,
                         const luna_msg_order *order, luna_task_back *back,
                         luna_task **out)
{
    LUNA_TRY(luna_answer_room(b));
    luna_task *task = luna_task_new(kind, &order->id, back);
    if (!task) return luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    task->peer = *peer;
    task->re = order->re;
    *out = task;
    return LUNA_OK;
}

static luna_err need_job(const luna_msg_order *order)
{
    if (!luna_id_is_nil(&order->id)) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "the order names no job");
}

//  The error of an operation that is back, with its sentence noted again.
static luna_err error_of(const luna_task *task)
{
    if (task->op.err == LUNA_OK) return LUNA_OK;
    return luna_error(task->op.err, "%s", task->op.detail);
}

//  ---- cancel --------------------------------------------------------------------

static void explain_ended(luna_broker *b, luna_task *task)
{
    luna_err err = error_of(task);
    if (err == LUNA_OK)
        err = luna_error(LUNA_EXISTS, "the job is %s already; it cannot be changed",
                         luna_job_state_name(task->op.state));
    luna_answer_order(b, &task->peer, task->re, err, 0);
}

//  Not active: the store tells whether it ever was.
static luna_err look_up_ended(luna_broker *b, const luna_peer *peer,
                              const luna_msg_order *order)
{
    luna_task *task;
    LUNA_TRY(new_task(b, LUNA_STORE_GET, peer, order, explain_ended, &task));
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  The scheduler's finish call takes the order with it, and answers when the end is
//  durable.
static luna_err cancel(luna_broker *b, const luna_peer *peer, const luna_msg_order *order)
{
    LUNA_TRY(need_job(order));
    b->current.order = true;
    b->current.re = order->re;
    const luna_err err = luna_scheduler_cancel(b->scheduler, &order->id);
    const bool taken = !b->current.order;
    b->current.order = false;
    if (err == LUNA_NOT_FOUND) return look_up_ended(b, peer, order);
    if (err == LUNA_OK && !taken)
        return luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    return err;
}

//  ---- retry ---------------------------------------------------------------------

static void failed_again(luna_broker *b, luna_task *task)
{
    if (task->op.err == LUNA_OK) b->ended[LUNA_JOB_FAILED]++;
}

//  There is no room for it after all: it is failed again.
static void undo_retry(luna_broker *b, const luna_id *id, luna_err err)
{
    luna_task *task = luna_task_new(LUNA_STORE_FINISH, id, failed_again);
    if (!task) return;
    luna_text_copy(luna_text_of(luna_err_name(err)), task->error, sizeof task->error);
    luna_text_copy(luna_text_of(luna_error_text()), task->detail, sizeof task->detail);
    task->op.in.finish = (luna_store_finish){.state = LUNA_JOB_FAILED,
                                             .error = luna_text_of(task->error),
                                             .detail = luna_text_of(task->detail),
                                             .finished_ms = (uint64_t)luna_wall_ms()};
    luna_task_submit(b, task);
}

static void tell_retried(luna_broker *b, const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    luna_log(LUNA_LOG_INFO, "retried", "job=%s next=\"pending\"", text);
    const luna_job *job = luna_scheduler_find(b->scheduler, id);
    const luna_msg_job_info info = luna_info_job(b, job);
    b->tally.retried++;
    luna_events_job(b, "requeued", &info);
}

static luna_err finish_retry(luna_broker *b, luna_task *task)
{
    LUNA_TRY(error_of(task));
    b->ended[LUNA_JOB_FAILED]--;
    const luna_err err = luna_loop_enter(b, &task->op.found.items[0], LUNA_PLACE_WAITING,
                                         false, luna_now_ms());
    if (err != LUNA_OK)
        undo_retry(b, &task->op.id, err);
    else
        tell_retried(b, &task->op.id);
    return err;
}

static void log_refused(const luna_id *id, luna_err err)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    luna_log(LUNA_LOG_WARNING, "retry_refused", "job=%s err=%s detail=\"%s\"", text,
             luna_err_name(err), luna_error_text());
}

static void retried(luna_broker *b, luna_task *task)
{
    const luna_err err = finish_retry(b, task);
    if (err != LUNA_OK) log_refused(&task->op.id, err);
    luna_answer_order(b, &task->peer, task->re, err, err == LUNA_OK);
}

static luna_err retry_one(luna_broker *b, const luna_peer *peer,
                          const luna_msg_order *order)
{
    luna_task *task;
    LUNA_TRY(need_job(order));
    LUNA_TRY(new_task(b, LUNA_STORE_RETRY, peer, order, retried, &task));
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  ---- retry of all failed jobs --------------------------------------------------

struct luna_retry_all {
    luna_peer peer;
    uint64_t re;
    size_t left;       //  jobs not back yet, and one for the one who counts them
    uint64_t changed;  //  jobs that are pending again
};

static void settle_all(luna_broker *b, struct luna_retry_all *all)
{
    if (--all->left > 0) return;
    luna_answer_order(b, &all->peer, all->re, LUNA_OK, all->changed);
    free(all);
}

static void one_retried(luna_broker *b, luna_task *task)
{
    const luna_err err = finish_retry(b, task);
    if (err != LUNA_OK)
        log_refused(&task->op.id, err);
    else
        task->all->changed++;
    settle_all(b, task->all);
}

static void retry_listed(luna_broker *b, const luna_store_jobs *failed,
                         struct luna_retry_all *all)
{
    all->left = 1;
    for (size_t i = 0; i < failed->count; i++) {
        luna_task *task =
            luna_task_new(LUNA_STORE_RETRY, &failed->items[i].info.id, one_retried);
        if (!task) break;
        task->all = all;
        all->left++;
        luna_task_submit(b, task);
    }
    settle_all(b, all);
}

static void failed_listed(luna_broker *b, luna_task *task)
{
    luna_err err = error_of(task);
    struct luna_retry_all *all = err == LUNA_OK ? calloc(1, sizeof *all) : NULL;
    if (err == LUNA_OK && !all)
        err = luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    if (err != LUNA_OK) {
        luna_answer_order(b, &task->peer, task->re, err, 0);
        return;
    }
    all->peer = task->peer;
    all->re = task->re;
    retry_listed(b, &task->op.found, all);
}

static luna_err retry_failed(luna_broker *b, const luna_peer *peer,
                             const luna_msg_order *order)
{
    luna_task *task;
    LUNA_TRY(new_task(b, LUNA_STORE_LIST, peer, order, failed_listed, &task));
    task->op.in.list =
        (luna_store_list){.state = LUNA_JOB_FAILED, .limit = RETRY_ALL_MAX};
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  ---- prioritise ----------------------------------------------------------------

static void prioritised(luna_broker *b, luna_task *task)
{
    luna_err err = error_of(task);
    const luna_store_prioritise *to = &task->op.in.prioritise;
    if (err == LUNA_OK)
        err = luna_scheduler_prioritise(b->scheduler, &task->op.id, to->priority,
                                        (int64_t)to->next_ms);
    luna_answer_order(b, &task->peer, task->re, err, err == LUNA_OK);
    if (err != LUNA_OK) return;
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    const luna_msg_job_info info = luna_info_job(b, job);
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    luna_log(LUNA_LOG_INFO, "prioritised", "job=%s priority=%llu next=%s", id,
             (unsigned long long)to->priority, to->next_ms ? "yes" : "no");
    luna_events_job(b, "prioritised", &info);
}

static luna_err prioritise(luna_broker *b, const luna_peer *peer,
                           const luna_msg_order *order)
{
    luna_task *task;
    LUNA_TRY(need_job(order));
    const luna_job *job = luna_scheduler_find(b->scheduler, &order->id);
    if (!job || job->place == LUNA_PLACE_STORING) return look_up_ended(b, peer, order);
    LUNA_TRY(new_task(b, LUNA_STORE_PRIORITISE, peer, order, prioritised, &task));
    //  "Next" leaves the priority as it is.
    task->op.in.prioritise =
        (luna_store_prioritise){.priority = order->next ? job->priority : order->priority,
                                .next_ms = order->next ? (uint64_t)luna_wall_ms() : 0};
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  ---- pause, resume, drain ------------------------------------------------------

static void paused(luna_broker *b, luna_task *task)
{
    const bool pause = task->op.in.pause.paused;
    const luna_err err = error_of(task);
    if (err == LUNA_OK) {
        luna_scheduler_pause(b->scheduler, pause);
        luna_log(LUNA_LOG_INFO, pause ? "paused" : "resumed", "next=\"%s\"",
                 pause ? "no attempt is started until resume" : "as before");
        luna_events_status(b);
    }
    luna_answer_order(b, &task->peer, task->re, err, task->limit);
}

static luna_err set_pause(luna_broker *b, const luna_peer *peer,
                          const luna_msg_order *order, bool pause, size_t changed)
{
    luna_task *task;
    LUNA_TRY(new_task(b, LUNA_STORE_PAUSE, peer, order, paused, &task));
    task->op.in.pause = (luna_store_pause){.paused = pause};
    task->limit = changed;
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  Those of this name, or all, hear of it now and not with their next ping.
static void tell_drained(luna_broker *b, const char *name, bool drain)
{
    const luna_fleet *fleet = luna_scheduler_fleet(b->scheduler);
    for (size_t i = 0; i < fleet->count; i++) {
        const luna_decoder *each = fleet->at[i];
        if (name[0] && strcmp(each->name, name) != 0) continue;
        const luna_slot *slot = luna_work_slot(b, each->session);
        if (slot) luna_control_pong(b, &slot->peer);
        luna_events_decoder(b, drain ? "draining" : "ready", each);
    }
    luna_log(LUNA_LOG_INFO, drain ? "draining" : "drain_ended", "decoder=%s",
             name[0] ? name : "all");
}

static luna_err set_drain(luna_broker *b, const luna_msg_order *order, bool drain,
                          size_t *changed)
{
    char name[LUNA_DECODER_BYTES];
    luna_text_copy(order->decoder, name, sizeof name);
    *changed = luna_scheduler_drain(b->scheduler, name[0] ? name : NULL, drain);
    if (*changed == 0 && name[0])
        return luna_error(LUNA_NOT_FOUND, "there is no decoder '%s'", name);
    tell_drained(b, name, drain);
    return LUNA_OK;
}

static luna_err drain(luna_broker *b, const luna_peer *peer, const luna_msg_order *order)
{
    size_t changed;
    LUNA_TRY(set_drain(b, order, true, &changed));
    luna_answer_order(b, peer, order->re, LUNA_OK, changed);
    return LUNA_OK;
}

//  Of one decoder: its drain ends. Of all: every drain and the pause.
static luna_err resume(luna_broker *b, const luna_peer *peer, const luna_msg_order *order)
{
    size_t changed;
    LUNA_TRY(set_drain(b, order, false, &changed));
    if (order->decoder.len == 0) return set_pause(b, peer, order, false, changed);
    luna_answer_order(b, peer, order->re, LUNA_OK, changed);
    return LUNA_OK;
}

//  ---- by type -------------------------------------------------------------------

static luna_err carry_out(luna_broker *b, luna_msg_type type, const luna_peer *peer,
                          const luna_msg_order *order)
{
    switch (type) {
        case LUNA_MSG_CANCEL:
            return cancel(b, peer, order);
        case LUNA_MSG_RETRY:
            return order->failed ? retry_failed(b, peer, order)
                                 : retry_one(b, peer, order);
        case LUNA_MSG_PRIORITISE:
            return prioritise(b, peer, order);
        case LUNA_MSG_PAUSE:
            return set_pause(b, peer, order, true, 0);
        case LUNA_MSG_RESUME:
            return resume(b, peer, order);
        case LUNA_MSG_DRAIN:
            return drain(b, peer, order);
        default:
            return luna_error(LUNA_PROTOCOL, "the broker takes no order of this type");
    }
}

void luna_order_take(luna_broker *b, luna_message *message)
{
    luna_msg_order order = {0};
    const luna_peer peer = message->peer;
    luna_err err = luna_packet_read(message->packet, &order);
    if (err == LUNA_OK)
        err = carry_out(b, luna_packet_type(message->packet), &peer, &order);
    if (err != LUNA_OK) luna_answer_order(b, &peer, order.re, err, 0);
}
