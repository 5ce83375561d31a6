//  reply.h - responses: JSON, and problems (RFC 9457)

#ifndef LUNA_BROKER_HTTP_REPLY_H
#define LUNA_BROKER_HTTP_REPLY_H

#include "broker/http/exchange.h"

//  Queues a JSON response. `body` is moved; NULL (out of memory) becomes a bare 500.
//  `location` may be NULL.
void luna_reply_json(luna_exchange *x, unsigned status, json_t *body,
                     const char *location);

//  Queues a text, which is copied, with status 200.
void luna_reply_text(luna_exchange *x, const char *type, luna_text text);

//  Queues the problem of the exchange.
void luna_reply_problem(luna_exchange *x);

//  Notes a problem for the exchange: status and Retry-After from `err`, the sentence
//  from luna_error_text(). The first one noted stays.
void luna_problem_note(luna_problem *problem, luna_err err);

//  The same with a status of its own.
void luna_problem_note_status(luna_problem *problem, unsigned status, luna_err err,
                              const char *detail);

#endif
