//  state.h - the states of a job, by the names ComfyUI uses
//
//      put          attempt              finish
//      ----> pending -----> in_progress -------> completed
//               ^  ^ requeue     |  |----------> cancelled
//               |  '-------------'  '----------> failed
//               '--------------- retry ------------'
//
//  A pending job can be finished too (cancelled, or failed when its limit is hit).
//  pending and in_progress are the active states: their payload is in the spool. A
//  failed job keeps its payload for a retry; completed and cancelled ones do not.

#ifndef LUNA_BROKER_STORE_STATE_H
#define LUNA_BROKER_STORE_STATE_H

#include "proto/message.h"

//  X(symbol, name in rows, on the wire and in HTTP)
#define LUNA_JOB_STATE_TABLE(X)   \
    X(PENDING, "pending")         \
    X(IN_PROGRESS, "in_progress") \
    X(COMPLETED, "completed")     \
    X(FAILED, "failed")           \
    X(CANCELLED, "cancelled")

typedef enum luna_job_state {
#define X(symbol, name) LUNA_JOB_##symbol,
    LUNA_JOB_STATE_TABLE(X)
#undef X
        LUNA_JOB_STATES,            //  how many there are
    LUNA_JOB_ANY = LUNA_JOB_STATES  //  in a filter: no filter
} luna_job_state;

//  The state's name; "unknown" for a value outside the table. Static.
const char *luna_job_state_name(luna_job_state state);

//  The state of a name; LUNA_JOB_ANY for "" and an absent text. LUNA_BAD_REQUEST
//  with a sentence that lists the names for any other word.
LUNA_MUST_USE luna_err luna_job_state_parse(luna_text name, luna_job_state *out);

//  pending or in_progress.
bool luna_job_state_is_active(luna_job_state state);

#endif
