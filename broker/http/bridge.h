//  bridge.h - the thread that owns the shim's sockets
//
//  The HTTP thread hands it asks (a job, a query, an order); it sends them, matches
//  what comes back (receipts by job id, answers by `re`) and calls `done`. Every ask
//  is done exactly once: answered, timed out, or given up because the bridge stops.

#ifndef LUNA_BROKER_HTTP_BRIDGE_H
#define LUNA_BROKER_HTTP_BRIDGE_H

#include "broker/http/http.h"
#include "broker/http/parcel.h"

typedef struct luna_bridge luna_bridge;

//  Lives in the asker's memory, which must stay until `done` was called.
typedef struct luna_ask {
    //  set by the asker
    luna_msg_type type;                  //  JOB, QUERY, CANCEL or RETRY
    luna_id id;                          //  JOB: of the job
    uint64_t re;                         //  else: as in the message; from luna_bridge_re
    luna_parcel *message;                //  moved to the bridge
    void (*done)(struct luna_ask *ask);  //  in the bridge's thread, or the asker's
    void *context;                       //  the asker's own

    //  valid when `done` is called
    luna_err err;         //  LUNA_OK: `answer` is set; else `detail` says why
    const char *detail;   //  static
    luna_packet *answer;  //  a RECEIPT or an ANSWER; luna_ask_clear frees it
    void *answer_bytes;   //  what `answer` borrows

    //  the bridge's
    int64_t deadline_ms;
    struct luna_ask *next;
} luna_ask;

//  Frees what an ask holds and zeroes it.
void luna_ask_clear(luna_ask *ask);

//  Connects the sockets and starts the thread. LUNA_UNAVAILABLE, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_bridge_start(const luna_http_options *options,
                                         luna_bridge **out);

//  The routing id that receipts go to: the `client` of every job sent.
luna_id luna_bridge_client(const luna_bridge *bridge);

//  A number for `re` that no other ask has. Thread-safe.
uint64_t luna_bridge_re(luna_bridge *bridge);

//  Thread-safe. After luna_bridge_stop the ask is done at once (LUNA_UNAVAILABLE).
void luna_bridge_ask(luna_bridge *bridge, luna_ask *ask);

//  Ends the thread; asks still open are done with LUNA_UNAVAILABLE. Idempotent.
void luna_bridge_stop(luna_bridge *bridge);

//  After stop, when nobody asks any more. NULL is fine.
void luna_bridge_free(luna_bridge *bridge);

#endif
