//  The routes that ask the broker for something, or order it.

#include "broker/http/reply.h"
#include "broker/http/route.h"
#include "broker/http/value.h"
#include "broker/http/view.h"

#include <stdio.h>
#include <string.h>

#define JOBS_DEFAULT 100
#define JOBS_MAX     1000

static luna_err ask(luna_exchange *x, luna_msg_query query)
{
    query.re = luna_bridge_re(x->core->bridge);
    return luna_exchange_ask(x, LUNA_MSG_QUERY, &query, query.re, &query.id);
}

static luna_err ask_what(luna_exchange *x, const char *what)
{
    return ask(x, (luna_msg_query){.what = luna_text_of(what)});
}

static luna_err take_status(luna_exchange *x, luna_msg_status *out)
{
    luna_msg_answer answer;
    LUNA_TRY(luna_exchange_answer(x, &answer));
    if (!answer.status)
        return luna_error(LUNA_INTERNAL, "the broker's answer holds no status");
    *out = *answer.status;
    return LUNA_OK;
}

//  ---- /queue_status: the status, then the decoders --------------------------------

static luna_err reply_queue(luna_exchange *x)
{
    luna_msg_answer answer;
    LUNA_TRY(luna_exchange_answer(x, &answer));
    json_t *list = json_array();
    for (size_t i = 0; i < answer.decoders.count; i++)
        json_array_append_new(list, luna_view_decoder(&answer.decoders.items[i]));
    json_object_set_new(x->kept, "decoders", list);
    luna_reply_json(x, MHD_HTTP_OK, json_incref(x->kept), NULL);
    return LUNA_OK;
}

luna_err luna_route_queue_status(luna_exchange *x)
{
    luna_msg_status status;
    if (x->step == 0) return ask_what(x, "status");
    if (x->step == 2) return reply_queue(x);
    LUNA_TRY(take_status(x, &status));
    x->kept = luna_view_status(&status);
    if (!x->kept) return luna_error(LUNA_NO_MEMORY, "no memory for the answer");
    return ask_what(x, "decoders");
}

//  ---- /metrics --------------------------------------------------------------------

luna_err luna_route_metrics(luna_exchange *x)
{
    luna_msg_answer answer;
    if (x->step == 0) return ask_what(x, "metrics");
    LUNA_TRY(luna_exchange_answer(x, &answer));
    luna_reply_text(x, "text/plain; version=0.0.4; charset=utf-8", answer.text);
    return LUNA_OK;
}

//  ---- /readyz ---------------------------------------------------------------------

luna_err luna_route_ready(luna_exchange *x)
{
    luna_msg_status status;
    if (x->step == 0) return ask_what(x, "status");
    LUNA_TRY(take_status(x, &status));
    if (status.accepting.data && !luna_text_is(status.accepting, "yes"))
        return luna_error(LUNA_UNAVAILABLE, "no jobs are accepted: %.*s",
                          (int)(status.accepting.len < 900 ? status.accepting.len : 900),
                          status.accepting.data);
    if (status.decoders == 0)
        return luna_error(LUNA_UNAVAILABLE, "no decoder is ready; start luna-decoder");
    luna_reply_json(x, MHD_HTTP_OK,
                    json_pack("{s:s, s:I}", "status", "ready", "decoders_ready",
                              (json_int_t)status.decoders),
                    NULL);
    return LUNA_OK;
}

//  ---- jobs ------------------------------------------------------------------------

static const char *argument(const luna_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

static luna_err read_filter(const luna_exchange *x, luna_msg_query *query)
{
    static const char *const states[] = {"pending", "in_progress", "completed", "failed",
                                         "cancelled"};
    const char *state = argument(x, "state"), *limit = argument(x, "limit");
    query->limit = JOBS_DEFAULT;
    if (limit) LUNA_TRY(luna_http_uint("limit", luna_text_of(limit), &query->limit));
    if (query->limit == 0 || query->limit > JOBS_MAX)
        return luna_error(LUNA_BAD_REQUEST, "limit must be 1 to %d", JOBS_MAX);
    query->state = luna_text_of(state);
    if (!state) return LUNA_OK;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(state, states[i]) == 0) return LUNA_OK;
    return luna_error(
        LUNA_BAD_REQUEST,
        "state must be pending, in_progress, completed, failed or cancelled");
}

luna_err luna_route_jobs(luna_exchange *x)
{
    luna_msg_answer answer;
    luna_msg_query query = {.what = luna_text_of("jobs")};
    if (x->step == 0) {
        LUNA_TRY(read_filter(x, &query));
        return ask(x, query);
    }
    LUNA_TRY(luna_exchange_answer(x, &answer));
    json_t *list = json_array();
    for (size_t i = 0; i < answer.jobs.count; i++)
        json_array_append_new(list, luna_view_job(&answer.jobs.items[i]));
    luna_reply_json(x, MHD_HTTP_OK, json_pack("{s:o}", "jobs", list), NULL);
    return LUNA_OK;
}

static luna_err no_such_job(const luna_exchange *x)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&x->id, id);
    return luna_error(LUNA_NOT_FOUND, "there is no job %s", id);
}

luna_err luna_route_job(luna_exchange *x)
{
    luna_msg_answer answer;
    if (x->step == 0)
        return ask(x, (luna_msg_query){.what = luna_text_of("job"), .id = x->id});
    x->problem.job = x->id;
    LUNA_TRY(luna_exchange_answer(x, &answer));
    if (answer.jobs.count == 0) return no_such_job(x);
    luna_reply_json(x, MHD_HTTP_OK, luna_view_job(&answer.jobs.items[0]), NULL);
    return LUNA_OK;
}

//  ---- orders ----------------------------------------------------------------------

static luna_err order(luna_exchange *x, luna_msg_type type)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_msg_answer answer;
    luna_msg_order msg = {.id = x->id};
    if (x->step == 0) {
        msg.re = luna_bridge_re(x->core->bridge);
        return luna_exchange_ask(x, type, &msg, msg.re, &msg.id);
    }
    x->problem.job = x->id;
    LUNA_TRY(luna_exchange_answer(x, &answer));
    luna_id_text(&x->id, id);
    json_t *body = answer.jobs.count > 0 ? luna_view_job(&answer.jobs.items[0])
                                         : json_pack("{s:s}", "job_id", id);
    luna_reply_json(x, MHD_HTTP_OK, body, NULL);
    return LUNA_OK;
}

luna_err luna_route_cancel(luna_exchange *x)
{
    return order(x, LUNA_MSG_CANCEL);
}

luna_err luna_route_retry(luna_exchange *x)
{
    return order(x, LUNA_MSG_RETRY);
}
