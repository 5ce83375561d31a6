//  answer.c - questions and orders
//
//  What only the store knows is asked there, and the answer leaves when the store's
//  is back; a bounded number of such questions can be under way.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>

enum { QUESTIONS_MAX = 4096, LIST_DEFAULT = 100, LIST_MAX = 10000 };

static void send_error(luna_broker *b, const luna_peer *peer, uint64_t re, luna_err err)
{
    luna_control_send(b, peer, LUNA_MSG_ANSWER,
                      &(luna_msg_answer){.re = re,
                                         .error = luna_text_of(luna_err_name(err)),
                                         .detail = luna_text_of(luna_error_text())});
}

//  ---- questions the store answers -----------------------------------------------

//  Rows of the store, brought up to the moment; NULL without memory.
static luna_msg_job_info *list_infos(const luna_broker *b, const luna_store_jobs *found)
{
    luna_msg_job_info *infos = calloc(found->count + 1, sizeof *infos);
    for (size_t i = 0; infos && i < found->count; i++) {
        infos[i] = found->items[i].info;
        luna_info_refresh(b, &infos[i]);
    }
    return infos;
}

static void rows_are_back(luna_broker *b, luna_task *task)
{
    if (task->op.err != LUNA_OK) {
        send_error(b, &task->peer, task->re,
                   luna_error(task->op.err, "%s", task->op.detail));
        return;
    }
    luna_msg_job_info *infos = list_infos(b, &task->op.found);
    if (!infos) {
        send_error(b, &task->peer, task->re, luna_error(LUNA_NO_MEMORY, "out of memory"));
        return;
    }
    if (task->op.kind == LUNA_STORE_GET) luna_info_position(b, &infos[0]);
    luna_msg_answer answer = {.re = task->re};
    answer.jobs.items = infos;
    answer.jobs.count = task->op.found.count;
    luna_control_send(b, &task->peer, LUNA_MSG_ANSWER, &answer);
    free(infos);
}

static luna_err ask_store(luna_broker *b, const luna_peer *peer,
                          const luna_msg_query *query, luna_store_kind kind)
{
    luna_job_state state;
    LUNA_TRY(luna_job_state_parse(query->state, &state));
    if (b->task_count >= QUESTIONS_MAX)
        return luna_error(LUNA_BUSY, "too many questions are waiting for the store");
    luna_task *task = luna_task_new(kind, &query->id, rows_are_back);
    if (!task) return luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    const uint64_t limit = query->limit ? query->limit : LIST_DEFAULT;
    task->peer = *peer;
    task->re = query->re;
    if (kind == LUNA_STORE_LIST)
        task->op.in.list = (luna_store_list){
            .state = state, .limit = limit < LIST_MAX ? limit : LIST_MAX};
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  ---- questions answered from memory --------------------------------------------

static void answer_status(luna_broker *b, const luna_peer *peer, uint64_t re)
{
    const luna_msg_status status = luna_info_status(b);
    luna_control_send(b, peer, LUNA_MSG_ANSWER,
                      &(luna_msg_answer){.re = re, .status = &status});
}

static void answer_decoders(luna_broker *b, const luna_peer *peer, uint64_t re)
{
    luna_msg_decoder_info *infos;
    luna_msg_answer answer = {.re = re};
    answer.decoders.count = luna_info_decoders(b, &infos);
    answer.decoders.items = infos;
    luna_control_send(b, peer, LUNA_MSG_ANSWER, &answer);
    free(infos);
}

static luna_err answer_query(luna_broker *b, const luna_peer *peer,
                             const luna_msg_query *query)
{
    if (luna_text_is(query->what, "status"))
        answer_status(b, peer, query->re);
    else if (luna_text_is(query->what, "decoders"))
        answer_decoders(b, peer, query->re);
    else if (luna_text_is(query->what, "job"))
        return ask_store(b, peer, query, LUNA_STORE_GET);
    else if (luna_text_is(query->what, "jobs"))
        return ask_store(b, peer, query, LUNA_STORE_LIST);
    else
        return luna_error(LUNA_BAD_REQUEST,
                          "ask for status, jobs, job or decoders, not for '%.*s'",
                          (int)query->what.len, query->what.data);
    return LUNA_OK;
}

void luna_answer_query(luna_broker *b, luna_message *message)
{
    luna_msg_query query = {0};
    luna_err err = luna_packet_read(message->packet, &query);
    if (err == LUNA_OK) err = answer_query(b, &message->peer, &query);
    if (err != LUNA_OK) send_error(b, &message->peer, query.re, err);
}

//  ---- orders --------------------------------------------------------------------

void luna_answer_order(luna_broker *b, const luna_peer *peer, uint64_t re, luna_err err)
{
    if (re == 0) return;
    if (err != LUNA_OK)
        send_error(b, peer, re, err);
    else
        luna_control_send(b, peer, LUNA_MSG_ANSWER, &(luna_msg_answer){.re = re});
}

static void explain_ended(luna_broker *b, luna_task *task)
{
    luna_err err = LUNA_OK;
    if (task->op.err != LUNA_OK)
        err = luna_error(task->op.err, "%s", task->op.detail);
    else
        err = luna_error(LUNA_EXISTS, "the job is %s already; it cannot be cancelled",
                         luna_job_state_name(task->op.state));
    luna_answer_order(b, &task->peer, task->re, err);
}

//  Not active: the store tells whether it ever was.
static luna_err look_up_ended(luna_broker *b, const luna_peer *peer,
                              const luna_msg_order *order)
{
    if (b->task_count >= QUESTIONS_MAX)
        return luna_error(LUNA_BUSY, "too many questions are waiting for the store");
    luna_task *task = luna_task_new(LUNA_STORE_GET, &order->id, explain_ended);
    if (!task) return luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    task->peer = *peer;
    task->re = order->re;
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  The scheduler's finish call takes the order with it, and answers when the end is
//  durable.
void luna_answer_cancel(luna_broker *b, luna_message *message)
{
    luna_msg_order order = {0};
    luna_err err = luna_packet_read(message->packet, &order);
    if (err == LUNA_OK) {
        b->current.order = true;
        b->current.re = order.re;
        err = luna_scheduler_cancel(b->scheduler, &order.id);
        if (err == LUNA_OK && b->current.order)
            err = luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
        b->current.order = false;
        if (err == LUNA_NOT_FOUND) err = look_up_ended(b, &message->peer, &order);
    }
    if (err != LUNA_OK) luna_answer_order(b, &message->peer, order.re, err);
}

static void failed_again(luna_broker *b, luna_task *task)
{
    if (task->op.err == LUNA_OK) b->ended[LUNA_JOB_FAILED]++;
}

static luna_err enter_again(luna_broker *b, const luna_store_job *stored)
{
    const luna_msg_job_info *info = &stored->info;
    const luna_entry entry = {.id = info->id,
                              .priority = info->priority,
                              .created_ms = (int64_t)info->created_ms,
                              .accepted_ms = (int64_t)info->accepted_ms,
                              .bytes = info->bytes,
                              .images = info->images,
                              .vae = info->vae,
                              .attempts = info->attempts,
                              .saved = info->files.items,
                              .saved_count = info->files.count,
                              .place = LUNA_PLACE_WAITING};
    return luna_scheduler_add(b->scheduler, &entry, luna_now_ms());
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

static void retried(luna_broker *b, luna_task *task)
{
    luna_err err = task->op.err;
    if (err == LUNA_OK) {
        b->ended[LUNA_JOB_FAILED]--;
        err = enter_again(b, &task->op.found.items[0]);
        if (err != LUNA_OK) undo_retry(b, &task->op.id, err);
    } else {
        err = luna_error(err, "%s", task->op.detail);
    }
    luna_answer_order(b, &task->peer, task->re, err);
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    if (err != LUNA_OK) {
        luna_log(LUNA_LOG_WARNING, "retry_refused", "job=%s err=%s detail=\"%s\"", id,
                 luna_err_name(err), luna_error_text());
        return;
    }
    luna_log(LUNA_LOG_INFO, "retried", "job=%s", id);
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    const luna_msg_job_info info = luna_info_job(b, job);
    luna_events_job(b, "requeued", &info);
}

void luna_answer_retry(luna_broker *b, luna_message *message)
{
    luna_msg_order order = {0};
    luna_err err = luna_packet_read(message->packet, &order);
    luna_task *task = NULL;
    if (err == LUNA_OK && b->task_count >= QUESTIONS_MAX)
        err = luna_error(LUNA_BUSY, "too many questions are waiting for the store");
    if (err == LUNA_OK) task = luna_task_new(LUNA_STORE_RETRY, &order.id, retried);
    if (err == LUNA_OK && !task)
        err = luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    if (err != LUNA_OK) {
        luna_answer_order(b, &message->peer, order.re, err);
        return;
    }
    task->peer = message->peer;
    task->re = order.re;
    luna_task_submit(b, task);
}
