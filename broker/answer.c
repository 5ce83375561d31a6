//  answer.c - questions
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

static luna_err not_read(void)
{
    return luna_error(LUNA_BUSY, "earlier answers to you are not read yet");
}

//  A peer that does not read what it asked for gets no more of it.
static void send_answer(luna_broker *b, const luna_peer *peer,
                        const luna_msg_answer *answer)
{
    if (luna_unsent_full(peer))
        send_error(b, peer, answer->re, not_read());
    else
        luna_control_send(b, peer, LUNA_MSG_ANSWER, answer);
}

luna_err luna_answer_room(const luna_broker *b)
{
    if (b->task_count < QUESTIONS_MAX) return LUNA_OK;
    return luna_error(LUNA_BUSY, "too many questions are waiting for the store");
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
    send_answer(b, &task->peer, &answer);
    free(infos);
}

static luna_err ask_store(luna_broker *b, const luna_peer *peer,
                          const luna_msg_query *query, luna_store_kind kind)
{
    luna_job_state state;
    LUNA_TRY(luna_job_state_parse(query->state, &state));
    LUNA_TRY(luna_answer_room(b));
    if (luna_unsent_full(peer)) return not_read();
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
    send_answer(b, peer, &answer);
    free(infos);
}

static luna_err answer_metrics(luna_broker *b, const luna_peer *peer, uint64_t re)
{
    luna_page page = {0};
    luna_metrics_page(b, &page);
    const luna_msg_answer answer = {.re = re, .text = {page.data, page.len}};
    if (!page.failed) send_answer(b, peer, &answer);
    const bool failed = page.failed;
    luna_page_free(&page);
    return failed ? luna_error(LUNA_NO_MEMORY, "the broker is out of memory") : LUNA_OK;
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
    else if (luna_text_is(query->what, "metrics"))
        return answer_metrics(b, peer, query->re);
    else
        return luna_error(
            LUNA_BAD_REQUEST,
            "ask for status, jobs, job, decoders or metrics, not for '%.*s'",
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

void luna_answer_order(luna_broker *b, const luna_peer *peer, uint64_t re, luna_err err,
                       uint64_t changed)
{
    if (re == 0) return;
    if (err != LUNA_OK)
        send_error(b, peer, re, err);
    else
        luna_control_send(b, peer, LUNA_MSG_ANSWER,
                          &(luna_msg_answer){.re = re, .changed = changed});
}
