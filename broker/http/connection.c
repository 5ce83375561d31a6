#include "broker/http/connection.h"

#include "broker/http/guard.h"
#include "broker/http/reply.h"
#include "broker/http/route.h"
#include "broker/http/value.h"
#include "common/clock.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

//  Of a refused body so much is read and dropped, because most clients look for the
//  answer only after sending all; who sends more is cut off.
#define DROP_MAX_BYTES (64U << 20)

const char *luna_exchange_header(const luna_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

//  ---- the broker ------------------------------------------------------------------

//  In the bridge's thread: from here on the exchange is the HTTP thread's again.
static void wake_up(luna_ask *ask)
{
    luna_exchange *x = ask->context;
    MHD_resume_connection(x->connection);
}

luna_err luna_exchange_ask(luna_exchange *x, luna_msg_type type, const void *msg,
                           uint64_t re, const luna_id *id)
{
    luna_parcel *parcel = NULL;
    LUNA_TRY(luna_parcel_pack(x->core->held, type, msg, &parcel));
    luna_ask_clear(&x->ask);
    x->ask = (luna_ask){.type = type,
                        .id = *id,
                        .re = re,
                        .message = parcel,
                        .done = wake_up,
                        .context = x};
    x->waiting = true;
    MHD_suspend_connection(x->connection);
    luna_bridge_ask(x->core->bridge, &x->ask);
    return LUNA_OK;
}

luna_err luna_exchange_answer(luna_exchange *x, luna_msg_answer *out)
{
    char name[40];
    luna_msg_answer answer;
    LUNA_TRY(luna_packet_read(x->ask.answer, &answer));
    if (answer.error.data) {
        luna_text_copy(answer.error, name, sizeof name);
        const luna_err err = luna_err_from_name(name);
        return luna_error(err == LUNA_OK ? LUNA_INTERNAL : err, "%.*s",
                          (int)(answer.detail.len < 900 ? answer.detail.len : 900),
                          answer.detail.data ? answer.detail.data : "");
    }
    *out = answer;
    return LUNA_OK;
}

//  ---- headers ---------------------------------------------------------------------

//  0 when it is not given (chunked, or no body).
static luna_err announced_bytes(const luna_exchange *x, uint64_t *out)
{
    const char *text = luna_exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    *out = 0;
    return text ? luna_http_uint("Content-Length", luna_text_of(text), out) : LUNA_OK;
}

static luna_err check_coding(const luna_exchange *x)
{
    const char *coding = luna_exchange_header(x, MHD_HTTP_HEADER_CONTENT_ENCODING);
    if (!coding || strcasecmp(coding, "identity") == 0) return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED,
                      "the body is compressed (%.40s); send it as it is", coding);
}

static luna_err start_body(luna_exchange *x, uint64_t bytes)
{
    LUNA_TRY(check_coding(x));
    return luna_body_start(&x->body, x->core->held, x->core->max_body_bytes, bytes);
}

//  Whether the answer can wait until the client has sent its body.
static bool reads_on(const luna_exchange *x, uint64_t bytes)
{
    return bytes <= DROP_MAX_BYTES && !luna_exchange_header(x, MHD_HTTP_HEADER_EXPECT);
}

static enum MHD_Result begin(luna_exchange *x, const char *url, const char *method)
{
    uint64_t bytes;
    luna_guard(x, url);
    luna_err err = announced_bytes(x, &bytes);
    if (err == LUNA_OK && !x->problem.status) luna_route_find(x, url, method);
    if (err == LUNA_OK && x->route && x->route->takes_body) err = start_body(x, bytes);
    if (err != LUNA_OK) luna_problem_note(&x->problem, err);
    x->upload_deadline_ms = luna_now_ms() + x->core->upload_ms;
    if (!x->problem.status || reads_on(x, bytes)) return MHD_YES;
    luna_reply_problem(x);
    return x->queued;
}

//  ---- body, answer ----------------------------------------------------------------

static enum MHD_Result take_piece(luna_exchange *x, const char *data, size_t len)
{
    if (luna_now_ms() > x->upload_deadline_ms) return MHD_NO;
    if (!x->problem.status && x->route->takes_body) {
        const luna_err err = luna_body_add(&x->body, data, len);
        if (err == LUNA_OK) return MHD_YES;
        luna_problem_note(&x->problem, err);
        luna_body_free(&x->body);
    }
    x->dropped_bytes += len;
    return x->dropped_bytes <= DROP_MAX_BYTES ? MHD_YES : MHD_NO;
}

static luna_err run_route(luna_exchange *x)
{
    if (x->waiting && x->ask.err != LUNA_OK) {
        x->problem.job = x->ask.id;
        return luna_error(x->ask.err, "%s", x->ask.detail);
    }
    x->waiting = false;
    const luna_err err = x->route->run(x);
    x->step++;
    return err;
}

static enum MHD_Result proceed(luna_exchange *x)
{
    if (!x->problem.status) {
        const luna_err err = run_route(x);
        if (err == LUNA_OK) return x->waiting ? MHD_YES : x->queued;
        luna_problem_note(&x->problem, err);
    }
    luna_reply_problem(x);
    return x->queued;
}

enum MHD_Result luna_connection_take(void *core, struct MHD_Connection *connection,
                                     const char *url, const char *method,
                                     const char *version, const char *upload_data,
                                     size_t *upload_data_size, void **exchange)
{
    (void)version;
    luna_exchange *x = *exchange;
    if (!x) {
        x = calloc(1, sizeof *x);
        if (!x) return MHD_NO;
        x->core = core;
        x->connection = connection;
        *exchange = x;
        return begin(x, url, method);
    }
    if (*upload_data_size == 0) return proceed(x);
    const enum MHD_Result result = take_piece(x, upload_data, *upload_data_size);
    *upload_data_size = 0;
    return result;
}

void luna_connection_end(void *core, struct MHD_Connection *connection, void **exchange,
                         enum MHD_RequestTerminationCode why)
{
    (void)core;
    (void)connection;
    (void)why;
    luna_exchange *x = *exchange;
    if (!x) return;
    luna_body_free(&x->body);
    luna_ask_clear(&x->ask);
    json_decref(x->kept);
    free(x);
    *exchange = NULL;
}
