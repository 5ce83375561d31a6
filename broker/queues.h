//  queues.h - the jobs of one VAE, and what is known of that VAE
//
//  Jobs whose pictures have other formats wait in other lanes of the queue, for other
//  decoders may take them.
//  A queue without jobs is kept for what it has learned, while there are few.
//  Loop thread only.

#ifndef LUNA_BROKER_QUEUES_H
#define LUNA_BROKER_QUEUES_H

#include "broker/fleet.h"
#include "broker/job.h"

#define LUNA_QUEUES_MAX  1024  //  different VAEs of active jobs
#define LUNA_QUEUES_KEPT 64    //  with more than these an empty one is forgotten

#define LUNA_LANES_MAX (1 << LUNA_FORMATS_COUNT)

//  The jobs of a VAE that need the same formats, and so the same decoders.
typedef struct luna_lane {
    struct luna_queue *queue;
    luna_formats formats;
    luna_job_heap waiting;
    size_t jobs;  //  active ones, in any place

    //  Affinity: monotonic times, 0: not now.
    int64_t denied_ms;      //  since when decoders had better work than this VAE
    int64_t idled_ms;       //  since when a decoder stood idle to spare a load
    int64_t *held_back_by;  //  in a round of dispatch: the one of the two, or NULL

    //  Who may take its jobs, as of this version of the fleet.
    luna_decoder_set allowed;
    uint64_t fleet_version;
} luna_lane;

typedef struct luna_queue {
    char *vae;
    luna_lane *lanes[LUNA_LANES_MAX];
    size_t lane_count;
    uint64_t waiting_bytes;
    size_t jobs;  //  active ones, in any place

    //  Fairness: by priority, the pending jobs and how far their fair times were served.
    uint32_t pending[LUNA_PRIORITY_MAX + 1];
    int64_t clock_ms[LUNA_PRIORITY_MAX + 1];

    int64_t load_ms;  //  learned time of loading; -1: not yet
} luna_queue;

typedef struct luna_queues {
    luna_queue *at[LUNA_QUEUES_MAX];
    size_t count;
} luna_queues;

//  The lane of a VAE's queue, each new when there is none; decoders that were given this
//  VAE last are linked to its queue. LUNA_BUSY with too many different VAEs;
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_queues_open(luna_queues *queues, luna_fleet *fleet,
                                        luna_text vae, luna_formats formats,
                                        luna_lane **out);

//  Forgets a queue without jobs when there are too many.
void luna_queues_close(luna_queues *queues, luna_fleet *fleet, luna_queue *queue);

void luna_queues_free(luna_queues *queues);

//  By place in the fleet: who may take the jobs of a lane (luna_fleet_for).
const luna_decoder_set *luna_lane_allowed(luna_lane *lane, const luna_fleet *fleet);

#endif
