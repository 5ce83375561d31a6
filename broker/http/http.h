//  http.h - the HTTP shim: one more producer, for those who speak HTTP
//
//  Turns requests into the wire's messages and the broker's receipts and answers
//  into responses. It owns no job state: what it knows it asks the broker, through
//  the same sockets as any producer (a DEALER to control, a PUSH to intake), over
//  inproc in czmq's shared context.
//
//      POST /decode_and_save          a job: 202 and its place in the queue
//      GET  /queue_status             counts, oldest age, decoders
//      GET  /v1/jobs[?state=&limit=]  jobs, newest first
//      GET  /v1/jobs/<id>             one job with its files
//      POST /v1/jobs/<id>/cancel, /v1/jobs/<id>/retry
//      GET  /healthz                  this thread lives; asks nobody
//      GET  /readyz                   the broker accepts jobs and a decoder is ready
//      GET  /version
//
//  broker/http/README.md has bodies and fields. Every error is an
//  application/problem+json with `type`, `title`, `status`, `detail` and `error`,
//  the last being luna_err_name().
//
//  Two threads. The HTTP thread (libmicrohttpd's) reads requests, builds messages
//  and writes responses; the bridge thread owns the sockets. A request that waits
//  for the broker is suspended and costs no thread. All signals are blocked in both.
//
//  Safety. Without a token only a loopback address is listened on, and a request's
//  Host and Origin must name loopback (DNS rebinding, cross-site requests). With a
//  token every request but /healthz must carry `Authorization: Bearer TOKEN`.
//  Memory is bounded by max_held_bytes (bodies and messages the broker has not read
//  yet) plus a fixed sum for each connection; what would go beyond is 503 `busy`.

#ifndef LUNA_BROKER_HTTP_H
#define LUNA_BROKER_HTTP_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct luna_http luna_http;

typedef struct luna_http_options {
    const char *listen;     //  "127.0.0.1:19284"; "[::1]:0": any free port
    const char *control;    //  "inproc://luna-control"
    const char *intake;     //  "inproc://luna-intake"
    const char *version;    //  of the broker, for /version
    const char *token;      //  NULL or "": none, loopback only
    size_t max_body_bytes;  //  of one request; 256 MiB
    size_t max_held_bytes;  //  of all together; 0: four times max_body_bytes
    uint32_t connections;   //  at a time; 256
    uint32_t answer_ms;     //  wait for the broker before 504; 15 000
    uint32_t idle_s;        //  a connection without traffic is closed; 30
    uint32_t upload_ms;     //  from headers to the body's end, else cut off; 300 000
} luna_http_options;

luna_http_options luna_http_options_default(void);

//  Binds the address and starts both threads. Returns when the address accepts
//  connections; the broker's sockets may be bound before or after. All strings are
//  copied. Errors, with nothing left running:
//  LUNA_CONFIG       the address does not parse, or is not loopback without a token
//  LUNA_UNAVAILABLE  the address is in use or not this machine's; no socket, no thread
//  LUNA_NO_MEMORY
LUNA_MUST_USE luna_err luna_http_start(const luna_http_options *options, luna_http **out);

//  The real address, "127.0.0.1:19284", valid until stop.
const char *luna_http_address(const luna_http *http);

//  Stops listening, answers what waits for the broker with 503, gives responses up to
//  a second to leave, ends both threads, frees all and nulls the pointer. NULL is
//  fine. Messages the broker still holds stay valid. Must not be called while the
//  czmq context is being destroyed.
void luna_http_stop(luna_http **http);

#endif
