#include "broker/http/reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const meanings[LUNA_ERR_COUNT] = {
#define X(symbol, name, http, sysexit, retry, meaning) meaning,
    LUNA_ERR_TABLE(X)
#undef X
};

static void add_headers(struct MHD_Response *response, const char *type)
{
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
}

static struct MHD_Response *response_of(json_t *body, const char *type)
{
    static char sorry[] = "{}";
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(body);
    struct MHD_Response *response =
        text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE)
             : MHD_create_response_from_buffer(2, sorry, MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(text);
        return NULL;
    }
    add_headers(response, type);
    return response;
}

static void queue(luna_exchange *x, unsigned status, struct MHD_Response *response)
{
    x->queued = response ? MHD_queue_response(x->connection, status, response) : MHD_NO;
    if (response) MHD_destroy_response(response);
}

void luna_reply_json(luna_exchange *x, unsigned status, json_t *body,
                     const char *location)
{
    const unsigned code = body ? status : MHD_HTTP_INTERNAL_SERVER_ERROR;
    struct MHD_Response *response = response_of(body, "application/json");
    if (response && location) MHD_add_response_header(response, "Location", location);
    queue(x, code, response);
}

void luna_reply_text(luna_exchange *x, const char *type, luna_text text)
{
    static char nothing[] = "";
    void *data = text.len > 0 ? (void *)(uintptr_t)text.data : nothing;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(text.len, data, MHD_RESPMEM_MUST_COPY);
    if (response) add_headers(response, type);
    queue(x, MHD_HTTP_OK, response);
}

static json_t *problem_body(const luna_problem *problem)
{
    char type[64], id[LUNA_ID_TEXT_BYTES];
    const unsigned row =
        (unsigned)problem->err < LUNA_ERR_COUNT ? problem->err : LUNA_INTERNAL;
    snprintf(type, sizeof type, "urn:luna:error:%s", luna_err_name(problem->err));
    json_t *detail = json_string(problem->detail);
    json_t *body = json_pack("{s:s, s:s, s:i, s:o, s:s}", "type", type, "title",
                             meanings[row], "status", (int)problem->status, "detail",
                             detail ? detail : json_string("(not UTF-8)"), "error",
                             luna_err_name(problem->err));
    if (!body || luna_id_is_nil(&problem->job)) return body;
    luna_id_text(&problem->job, id);
    json_object_set_new(body, "job_id", json_string(id));
    return body;
}

void luna_reply_problem(luna_exchange *x)
{
    const luna_problem *problem = &x->problem;
    char seconds[24];
    struct MHD_Response *response =
        response_of(problem_body(problem), "application/problem+json");
    snprintf(seconds, sizeof seconds, "%" PRIu64, problem->retry_s);
    if (response && problem->retry_s)
        MHD_add_response_header(response, "Retry-After", seconds);
    if (response && problem->allow[0])
        MHD_add_response_header(response, "Allow", problem->allow);
    if (response && problem->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"luna\"");
    queue(x, problem->status, response);
}

void luna_problem_note_status(luna_problem *problem, unsigned status, luna_err err,
                              const char *detail)
{
    if (problem->status) return;
    problem->status = status;
    problem->err = err;
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE && problem->retry_s == 0)
        problem->retry_s = 1;
    snprintf(problem->detail, sizeof problem->detail, "%s", detail);
}

void luna_problem_note(luna_problem *problem, luna_err err)
{
    luna_problem_note_status(problem, (unsigned)luna_err_http(err), err,
                             luna_error_text());
}
