//  scheduler_state.h - what the parts of the scheduler share
//
//      scheduler.c         jobs in and out, places, what is asked
//      fairness.c          the order: fair times and ranks
//      choice.c            which job goes to which decoder now
//      affinity.c          what a VAE's load costs and what it may make wait
//      attempts.c          how attempts end
//      sessions.c          decoders that come, live and go; time
//      scheduler_orders.c  what people order

#ifndef LUNA_BROKER_SCHEDULER_STATE_H
#define LUNA_BROKER_SCHEDULER_STATE_H

#include "broker/clients.h"
#include "broker/pace.h"
#include "broker/queues.h"
#include "broker/scheduler.h"

//  Decoders that were ordered otherwise than the others.
typedef struct luna_drains {
    bool all;
    struct {
        char name[LUNA_DECODER_BYTES];
        bool drain;
    } named[LUNA_DECODERS_MAX];
    size_t count;
} luna_drains;

struct luna_scheduler {
    luna_rules rules;
    luna_calls calls;
    luna_id_table jobs;
    luna_id_table clients;
    luna_job_heap timers;     //  DEFERRED and ORPHAN jobs by wake_ms
    luna_job_heap deadlines;  //  jobs a deadline can fail now, by expires_ms
    luna_queues queues;
    luna_fleet fleet;
    luna_drains drains;
    luna_pace pace;
    bool paused;
    uint64_t order;                              //  of the job added last
    uint64_t random;                             //  state of the jitter
    uint64_t storing;                            //  jobs in STORING
    uint64_t bytes;                              //  payloads of the active jobs
    uint64_t backlog[LUNA_PRIORITY_MAX + 1];     //  pending jobs by priority
    int64_t accepted_ms[LUNA_PRIORITY_MAX + 1];  //  of the latest job by priority
};

//  ---- scheduler.c ---------------------------------------------------------------

//  The rules as they are used: strict priorities are a very long ageing.
luna_rules luna_scheduler_rules(const luna_rules *rules);

//  Takes the job out of the heaps and counts of its place, and puts it into those of
//  another. Between the two its rank and priority may change.
void luna_scheduler_leave(luna_scheduler *scheduler, luna_job *job);
void luna_scheduler_enter(luna_scheduler *scheduler, luna_job *job, luna_job_place place);
void luna_scheduler_move(luna_scheduler *scheduler, luna_job *job, luna_job_place place);

//  ---- fairness.c ----------------------------------------------------------------

//  Gives the job its fair time and rank at the end of its client's jobs. It must not
//  count as pending and not be chained.
void luna_fairness_place(luna_scheduler *scheduler, luna_job *job);

//  Its rank by the rules as they are now.
void luna_fairness_rank(const luna_scheduler *scheduler, luna_job *job);

//  An attempt starts: its turn has come.
void luna_fairness_started(luna_job *job);

//  ---- choice.c ------------------------------------------------------------------

typedef struct luna_choice {
    luna_job *job;
    luna_decoder *decoder;
} luna_choice;

//  The job that starts next and its decoder; false when none can start now.
bool luna_choice_next(luna_scheduler *scheduler, int64_t now_ms, luna_choice *choice);

//  ---- affinity.c ----------------------------------------------------------------

//  What loading the queue's VAE takes.
int64_t luna_affinity_load_ms(const luna_scheduler *scheduler, const luna_queue *queue);

//  Whether the decoder at `place`, which would have to load the job's VAE, has waiting
//  work for the VAE it has, as urgent as the job.
bool luna_affinity_has_own_work(const luna_scheduler *scheduler, const luna_job *job,
                                size_t place);

//  What a swap for this first job of its lane waits for: the time since when, in the
//  lane; NULL when it need not wait (any longer).
int64_t *luna_affinity_waits(const luna_scheduler *scheduler, const luna_job *job,
                             size_t place, int64_t now_ms);

//  The decoder was given the job. Returns whether it has to load the VAE.
bool luna_affinity_given(luna_decoder *decoder, const luna_job *job);

//  The attempt has got beyond loading.
void luna_affinity_loaded(luna_decoder *decoder, luna_hold *hold, const luna_job *job,
                          int64_t now_ms);

//  ---- attempts.c ----------------------------------------------------------------

//  The attempt did not come to an end: the job waits again, from the second loss in a
//  row on after a while, or fails when that was one loss too many.
void luna_attempt_lose(luna_scheduler *scheduler, luna_job *job, const char *detail,
                       int64_t now_ms);

//  The job waits again, with what its counters say now.
void luna_attempt_give_back(luna_scheduler *scheduler, luna_job *job,
                            const luna_verdict *verdict);

//  Ends the job, waiting or running; its decoder is told to stop.
void luna_attempt_abort(luna_scheduler *scheduler, luna_job *job,
                        const luna_verdict *verdict);

//  Takes the attempt from the decoder that holds the job; nothing if nobody does.
void luna_attempt_release(luna_scheduler *scheduler, const luna_job *job);

//  The job behind a wanted hold.
luna_job *luna_attempt_job(const luna_scheduler *scheduler, const luna_hold *hold);

//  ---- scheduler_orders.c ----------------------------------------------------------

//  Whether a decoder of this name gets no work by order.
bool luna_drains_hold(const luna_drains *drains, const char *name);

#endif
