//  exchange.h - one request, from its headers to its response
//
//  A route's `run` is called when the body is complete, and again each time the
//  broker has answered (`step` counts the calls, from 0). It replies, or asks the
//  broker, or returns an error, which becomes a problem with luna_error_text().
//  All in the HTTP thread.

#ifndef LUNA_BROKER_HTTP_EXCHANGE_H
#define LUNA_BROKER_HTTP_EXCHANGE_H

#include "broker/http/body.h"
#include "broker/http/bridge.h"

#include <jansson.h>
#include <microhttpd.h>

typedef struct luna_exchange luna_exchange;

typedef struct luna_route {
    const char *method;  //  "GET" (HEAD too) or "POST"
    const char *path;    //  '*' stands for a job id
    bool takes_body;     //  else a body is read and dropped
    luna_err (*run)(luna_exchange *x);
} luna_route;

//  An error response. `status` 0: none.
typedef struct luna_problem {
    unsigned status;
    luna_err err;
    char detail[1024];
    luna_id job;       //  nil: not about a job
    uint64_t retry_s;  //  0: no Retry-After
    char allow[32];    //  "": no Allow
} luna_problem;

//  What exchanges share; see http.c.
typedef struct luna_http_core {
    luna_bridge *bridge;
    luna_held *held;
    char *version;
    char *token;      //  NULL: none
    bool check_host;  //  loopback without a token
    size_t max_body_bytes;
    uint32_t upload_ms;
} luna_http_core;

struct luna_exchange {
    luna_http_core *core;
    struct MHD_Connection *connection;
    const luna_route *route;  //  NULL: a problem
    luna_id id;               //  the '*' of the path
    luna_body body;
    uint64_t dropped_bytes;  //  of a body nobody wants
    int64_t upload_deadline_ms;
    luna_problem problem;
    luna_ask ask;
    bool waiting;  //  suspended until `ask` is done
    int step;
    json_t *kept;            //  a route's own, between its steps
    enum MHD_Result queued;  //  of the response
};

//  The value of a request header, or NULL.
const char *luna_exchange_header(const luna_exchange *x, const char *name);

//  Sends a message (QUERY, CANCEL, RETRY or JOB; `re` or `id` as in the message) to
//  the broker and suspends the request. LUNA_BUSY, LUNA_NO_MEMORY, LUNA_BAD_REQUEST.
LUNA_MUST_USE luna_err luna_exchange_ask(luna_exchange *x, luna_msg_type type,
                                         const void *msg, uint64_t re, const luna_id *id);

//  The answer to the latest ask. An error in it comes back as that error, with its
//  sentence noted. Parts live until the next ask or the end.
LUNA_MUST_USE luna_err luna_exchange_answer(luna_exchange *x, luna_msg_answer *out);

#endif
