//  scheduler_state.h - what scheduler.c, attempts.c and sessions.c share

#ifndef LUNA_BROKER_SCHEDULER_STATE_H
#define LUNA_BROKER_SCHEDULER_STATE_H

#include "broker/scheduler.h"

#define LUNA_QUEUES_MAX 1024  //  different VAEs of active jobs

//  The jobs of one VAE. It lives while there are any.
typedef struct luna_queue {
    char *vae;
    luna_job_heap waiting;
    size_t jobs;  //  active ones, in any place
} luna_queue;

struct luna_scheduler {
    luna_rules rules;
    luna_calls calls;
    luna_job_table jobs;
    luna_job_heap timers;  //  DEFERRED and ORPHAN jobs by wake_ms
    luna_queue *queues[LUNA_QUEUES_MAX];
    size_t queue_count;
    luna_fleet fleet;
    uint64_t order;                           //  of the job added last
    uint64_t random;                          //  state of the jitter
    uint64_t storing;                         //  jobs in STORING
    uint64_t bytes;                           //  payloads of the active jobs
    uint64_t backlog[LUNA_PRIORITY_MAX + 1];  //  pending jobs by priority
};

//  Takes the job out of the heap of its place and puts it into that of the new one.
void luna_scheduler_move(luna_scheduler *scheduler, luna_job *job, luna_job_place place);

//  The attempt did not come to an end: the job waits again, or fails when that was
//  one loss too many.
void luna_attempt_lose(luna_scheduler *scheduler, luna_job *job, const char *detail);

//  The job waits again in `place`, with what its counters say now.
void luna_attempt_give_back(luna_scheduler *scheduler, luna_job *job,
                            luna_job_place place, const luna_verdict *verdict);

//  Takes the attempt from the decoder that holds the job; nothing if nobody does.
void luna_attempt_release(luna_scheduler *scheduler, const luna_job *job);

//  The job behind a wanted hold.
luna_job *luna_attempt_job(const luna_scheduler *scheduler, const luna_hold *hold);

//  Marks saved images and returns how many were new. Without memory for the marks
//  none is: the images are then made once more.
uint32_t luna_job_mark_saved(luna_job *job, const luna_msg_image *images, size_t count);

#endif
