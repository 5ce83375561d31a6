//  queues.h - the jobs of one VAE, and what is known of that VAE
//
//  A queue without jobs is kept for what it has learned, while there are few.
//  Loop thread only.

#ifndef LUNA_BROKER_QUEUES_H
#define LUNA_BROKER_QUEUES_H

#include "broker/fleet.h"
#include "broker/job.h"

#define LUNA_QUEUES_MAX  1024  //  different VAEs of active jobs
#define LUNA_QUEUES_KEPT 64    //  with more than these an empty one is forgotten

typedef struct luna_queue {
    char *vae;
    luna_job_heap waiting;
    uint64_t waiting_bytes;
    size_t jobs;  //  active ones, in any place

    //  Fairness: by priority, the pending jobs and how far their fair times were served.
    uint32_t pending[LUNA_PRIORITY_MAX + 1];
    int64_t clock_ms[LUNA_PRIORITY_MAX + 1];

    //  Affinity: monotonic times, 0: not now.
    int64_t load_ms;        //  learned time of loading; -1: not yet
    int64_t denied_ms;      //  since when decoders had better work than this VAE
    int64_t idled_ms;       //  since when a decoder stood idle to spare a load
    int64_t *held_back_by;  //  in a round of dispatch: the one of the two, or NULL

    //  Who may take its jobs, as of this version of the fleet.
    luna_decoder_set allowed;
    uint64_t fleet_version;
} luna_queue;

typedef struct luna_queues {
    luna_queue *at[LUNA_QUEUES_MAX];
    size_t count;
} luna_queues;

//  The queue of a VAE, new when there is none; decoders that were given this VAE last
//  are linked to it. LUNA_BUSY with too many different VAEs; LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_queues_open(luna_queues *queues, luna_fleet *fleet,
                                        luna_text vae, luna_queue **out);

//  Forgets a queue without jobs when there are too many.
void luna_queues_close(luna_queues *queues, luna_fleet *fleet, luna_queue *queue);

void luna_queues_free(luna_queues *queues);

//  By place in the fleet: those that list the VAE; when none does, all.
const luna_decoder_set *luna_queue_allowed(luna_queue *queue, const luna_fleet *fleet);

#endif
