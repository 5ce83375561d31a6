//  attempts_own.h - what attempts.c and attempt.c share, under one lock

#ifndef LUNA_WORKER_ATTEMPTS_OWN_H
#define LUNA_WORKER_ATTEMPTS_OWN_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/arena.h"
#include "decoder/worker/attempts.h"

typedef enum luna_attempt_state {
    ATTEMPT_WAITING,
    ATTEMPT_RUNNING,
    ATTEMPT_STOPPED,  //  half-way; its saved images are to be told, bye gives it back
    ATTEMPT_ENDED,    //  its done or failed is to be told
    ATTEMPT_TOLD      //  told; not known to be read
} luna_attempt_state;

struct luna_attempt {
    luna_attempts *table;
    luna_attempt *next;  //  by arrival
    luna_work *work;
    luna_id id;
    uint64_t number;  //  of the attempt
    luna_attempt_state state;
    size_t holders;
    luna_parking *parking;  //  NULL: it is not parked
    bool cancelled;
    bool decoded;
    uint64_t told_ping;  //  pings sent when it was told

    const char *stage;  //  to be told; NULL when told
    char *vae;
    char *vae_path;
    char vae_sha256[LUNA_SINK_SHA256_BYTES];  //  "": not known
    luna_err err;
    char detail[1024];

    luna_msg_image *images;  //  saved, in the order of saving
    size_t room;             //  expected
    size_t saved;
    size_t told;        //  of `saved`, in a progress
    luna_arena memory;  //  their texts
};

typedef struct luna_cancel_note {
    luna_msg_job_key key;  //  attempt 0: any
    int64_t until_ms;
} luna_cancel_note;

struct luna_attempts {
    pthread_mutex_t lock;
    pthread_cond_t news;  //  for the decode thread
    luna_attempt *first;
    bool stopped;
    int fd;
    uint64_t pings;    //  sent, of this link
    uint64_t answers;  //  of these, answered
    luna_cancel_note cancels[LUNA_CANCELS_MAX];
    size_t cancel_at;  //  the oldest note
    atomic_uint_fast64_t ticks;
};

//  Takes the attempt out of the list; the caller frees it outside the lock. Locked.
void luna_attempts_unlink(luna_attempt *attempt);
void luna_attempt_free(luna_attempt *attempt);

#endif
