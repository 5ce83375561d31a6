//  scheduler.h - which job goes to which decoder, and what becomes of every attempt
//
//  Pure: no sockets, no disk, no clock (`now_ms` is monotonic time given by the
//  caller). It knows the active jobs and the decoders, takes what happened, and
//  gives its decisions as calls, which the broker carries out.
//
//      stored -> WAITING --start--> STARTING --started--> RUNNING --done--> ENDING
//                 ^                                        |                 |
//                 +-------- give back (lost, refused) -----+     ended: removed
//
//  ---- order ---------------------------------------------------------------------
//
//  Jobs ordered `next` go first, the latest order before earlier ones; then the least
//  rank, then the one accepted first:
//
//      rank = fair time - priority * ageing_ms
//
//  so that each ageing_ms of waiting is worth one priority. A rank never changes but by
//  order, so a job given back returns to its old place. Jobs of one VAE form one queue,
//  with a lane for each set of formats: one that must wait for its decoder holds up
//  nobody else.
//
//  The fair time is when the job would have its turn if each client were served at the
//  same pace. In the order in which jobs come:
//
//      fair time  = the later of entry and the end of the client's turns
//      turns' end = the latest fair time + cost of its jobs of this or a higher priority
//                   that wait or have been started
//      cost       = bytes * pace (pace.h) / decoders at work, at least 1 ms
//      entry      = while jobs of this priority wait for the same VAE: the fair time of
//                   the furthest of them that was started, so right behind what has its
//                   turn now;
//                   else the job's acceptance, or how far the other VAEs' waiting jobs
//                   of this priority were served, whichever is later;
//                   but never before the latest acceptance of this priority less a
//                   window of half of ageing_ms, 10 minutes at most
//
//  It follows that
//  -  with one client alone jobs of a priority go first come, first served;
//  -  a burst of 1000 jobs of one client reaches as far into the future as the fleet
//     needs for it, so a single job of another one passes all of it but what has its
//     turn; two bursts take turns, by predicted time and not by number; and what was
//     cancelled takes no turn;
//  -  only ratios of costs matter: with a wrong pace all turns are wrong alike, and who
//     had what nobody else wanted owes nothing for it;
//  -  nothing starves: what is accepted from now on has a fair time of at least its
//     acceptance less the window, so every rank becomes the least one in time;
//  -  re-adding the jobs in the order of acceptance after a restart gives the same
//     order while fleet and pace are the same. What was served before is forgotten, as
//     it is for a client without active jobs.
//
//  ---- choice --------------------------------------------------------------------
//
//  A decoder must be ready, not draining, and have credit for the job, in number and
//  bytes. If decoders that are connected or were a while ago list the job's VAE, only
//  they are asked, and of these, if some write all formats of the job, only those. The
//  one that refused the job last goes last. Among the others the
//  one goes first where the job would begin first: predicted service of what it holds,
//  and the load of the VAE if another one was given to it last (it is "cold"). Of equal
//  ones those are better that have no waiting work for the VAE they have, then those
//  that have none to lose, then those that hold fewer jobs.
//
//  A swap must be worth its load. The first job of a lane that finds only cold
//  decoders is held back
//  -  by a decoder's own work: while the best one has waiting jobs for its VAE that are
//     as urgent; until this VAE has been denied a decoder for the time of its load;
//  -  by a warm decoder without room: while one has shown that it has the VAE loaded,
//     and all that waits for the VAE is expected to begin there sooner than a load
//     takes; until a decoder has stood idle for that time.
//  So waiting never costs more than the load that was to be spared, which is at most
//  twice what the best choice would have cost (ski rental), and a VAE that keeps losing
//  gets its turn after one load. Between swaps each of two competing VAEs works for at
//  least the other's load. A job ordered next, or more urgent than the decoder's own
//  work, is not held back, and nothing is while no decoder has anything to lose.
//  The load is learned for each VAE from the stages "loading" and "decoding", a quarter
//  for the latest one; before that it is the rule load_ms.
//
//  ---- attempts ------------------------------------------------------------------
//
//  (job, attempt, session) is the fence. What comes from an attempt that is no longer
//  held changes no state; the pictures it saved are real, so they are recorded all the
//  same, and complete a waiting job when they were the last.
//  A lost attempt (decoder died, hung or forgot it) and a refused one (it said failed)
//  are counted apart; at its limit the job is failed. An error that cannot go away by
//  itself fails the job at once. A refused job waits before it is sent again, and so
//  does one that was lost for the second time in a row, which may be what kills its
//  decoders: twice as long each time, with jitter.
//  A job whose deadline comes is failed with "timeout", waiting or running.
//
//  Loop thread only. The calls may read the scheduler, never change it.

#ifndef LUNA_BROKER_SCHEDULER_H
#define LUNA_BROKER_SCHEDULER_H

#include "broker/fleet.h"
#include "broker/job.h"
#include "broker/store/state.h"

typedef struct luna_scheduler luna_scheduler;

typedef struct luna_rules {
    int64_t lease_ms;        //  without progress an attempt is lost
    int64_t adopt_ms;        //  after a restart: time to come back and claim attempts
    int64_t grace_ms;        //  from a disconnect to giving the jobs back
    int64_t remember_ms;     //  how long a lost decoder that can do a job is waited for
    int64_t ageing_ms;       //  waiting worth one priority; 0: strict priorities
    int64_t load_ms;         //  of a VAE whose load was not seen yet; 0: swaps are free
    int64_t backoff_ms;      //  after the first refusal, and the second loss in a row
    int64_t backoff_max_ms;  //  at most, before jitter
    uint32_t lost_limit;     //  so many lost attempts fail the job
    uint32_t refused_limit;  //  so many refused attempts fail the job
    uint64_t seed;           //  of the jitter
} luna_rules;

//  A job as it enters.
typedef struct luna_entry {
    luna_id id;
    luna_id client;  //  nil: not known; then one of all these
    uint64_t priority;
    int64_t created_ms;   //  wall clock
    int64_t accepted_ms;  //  wall clock
    int64_t started_ms;   //  wall clock, 0: never
    int64_t expires_ms;   //  monotonic time of the deadline; 0: none
    int64_t next_ms;      //  wall clock of the order to run next; 0: none
    uint64_t bytes;
    uint64_t images;                    //  the sum of the batches
    uint32_t batches[LUNA_MAX_INPUTS];  //  images of each input; all 0: not known
    luna_text vae;
    luna_formats formats;  //  of its inputs; 0: not known
    uint64_t attempts;
    uint64_t lost;
    uint64_t refused;
    const luna_msg_image *saved;  //  images recorded already
    size_t saved_count;
    luna_job_place place;  //  STORING: new; WAITING; ORPHAN: its latest attempt may still
                           //  be in a decoder's hands
    bool former;           //  from before the broker's start: for adopt_ms a decoder that
                           //  can do it may still come back
} luna_entry;

//  How a job ends or why it comes back. Texts live as long as the call.
typedef struct luna_verdict {
    luna_job_state state;  //  COMPLETED, FAILED, CANCELLED; PENDING: given back
    const char *error;     //  error name; "" when completed
    const char *detail;    //  one sentence, or ""
} luna_verdict;

typedef luna_msg_job_key luna_job_key;

typedef struct luna_calls {
    void *context;
    //  Make attempt number job->attempts durable, then call luna_scheduler_started
    //  or luna_scheduler_not_started.
    void (*start)(void *context, const luna_job *job, const luna_decoder *decoder);
    //  Make the end durable, then call luna_scheduler_ended.
    void (*finish)(void *context, const luna_job *job, const luna_verdict *verdict);
    //  Note the counters of a job that waits again.
    void (*give_back)(void *context, const luna_job *job, const luna_verdict *verdict);
    //  Tell the decoder to drop an attempt.
    void (*stop)(void *context, const luna_decoder *decoder, const luna_job_key *key);
    //  The decoder is gone for good: close its slot. Its jobs were given back.
    void (*gone)(void *context, const luna_decoder *decoder, const char *why);
} luna_calls;

LUNA_MUST_USE luna_err luna_scheduler_new(const luna_rules *rules,
                                          const luna_calls *calls, luna_scheduler **out);
void luna_scheduler_free(luna_scheduler **scheduler);

//  ---- jobs ----------------------------------------------------------------------

//  LUNA_EXISTS; LUNA_BAD_REQUEST: a priority above 9, or images that are not the sum of
//  the batches; LUNA_BUSY with too many different VAEs waiting; LUNA_NO_MEMORY.
//  Nothing has changed then.
LUNA_MUST_USE luna_err luna_scheduler_add(luna_scheduler *scheduler,
                                          const luna_entry *entry, int64_t now_ms);

//  A STORING job is durable and waits from now on, or could not be stored and is
//  forgotten.
void luna_scheduler_stored(luna_scheduler *scheduler, const luna_id *id, bool durable);

//  Active jobs: NULL when there is none of this id. Valid until the next change.
const luna_job *luna_scheduler_find(const luna_scheduler *scheduler, const luna_id *id);
const char *luna_job_vae(const luna_job *job);

//  Ends an active job as cancelled, waiting or running. LUNA_NOT_FOUND when it is not
//  active; LUNA_EXISTS when its end was already decided.
LUNA_MUST_USE luna_err luna_scheduler_cancel(luna_scheduler *scheduler,
                                             const luna_id *id);

//  A new priority for an active job, and its place among the jobs of that priority as
//  if it came in now; the same priority leaves the place. next_ms other than 0: the
//  wall clock of an order to run it next, before all others; 0 takes such an order
//  back. A running job has the new rank when it is given back.
//  LUNA_BAD_REQUEST: a priority above 9. LUNA_NOT_FOUND; LUNA_EXISTS as above.
LUNA_MUST_USE luna_err luna_scheduler_prioritise(luna_scheduler *scheduler,
                                                 const luna_id *id, uint64_t priority,
                                                 int64_t next_ms);

//  The attempt is durable. Gives the session it must be sent to now, or 0 when
//  nobody wants it any more.
uint32_t luna_scheduler_started(luna_scheduler *scheduler, const luna_job_key *key,
                                int64_t started_ms, int64_t now_ms);
//  It could not be made durable or will not be sent: the job is given back for a
//  moment, and nothing is counted.
void luna_scheduler_not_started(luna_scheduler *scheduler, const luna_job_key *key,
                                int64_t now_ms);
//  The payload cannot be read: the job fails with this reason.
void luna_scheduler_unreadable(luna_scheduler *scheduler, const luna_id *id,
                               const luna_verdict *verdict);
//  The end is durable; the job is forgotten.
void luna_scheduler_ended(luna_scheduler *scheduler, const luna_id *id);

//  ---- decoders ------------------------------------------------------------------

//  A new session; an earlier one of the same instance ends. Attempts in `running`
//  that are its own or were anybody's after a restart are adopted: the decoder then
//  holds them. The caller tells it to stop the others.
//  Errors of luna_fleet_add, with nothing changed.
LUNA_MUST_USE luna_err luna_scheduler_hello(luna_scheduler *scheduler,
                                            const luna_msg_hello *hello, int64_t now_ms,
                                            uint32_t *session);
void luna_scheduler_credit(luna_scheduler *scheduler, uint32_t session,
                           const luna_msg_ready *credit);
//  Any message is life; ping is NULL for other messages.
void luna_scheduler_seen(luna_scheduler *scheduler, uint32_t session,
                         const luna_msg_ping *ping, int64_t now_ms);
void luna_scheduler_disconnected(luna_scheduler *scheduler, uint32_t session,
                                 int64_t now_ms);
//  It leaves of its own will: its jobs are given back and nothing is counted.
void luna_scheduler_bye(luna_scheduler *scheduler, uint32_t session, int64_t now_ms);

//  A draining decoder keeps what it holds and gets no more; luna_decoder.draining shows
//  it. By name, so that it survives a reconnection. NULL: all, those that come later
//  too, and what was ordered for single ones is forgotten. Gives to how many decoders
//  it applied, remembered ones counted in; an unknown name changes nothing.
size_t luna_scheduler_drain(luna_scheduler *scheduler, const char *decoder, bool drain);

const luna_fleet *luna_scheduler_fleet(const luna_scheduler *scheduler);
const luna_decoder *luna_scheduler_decoder(const luna_scheduler *scheduler,
                                           uint32_t session);

//  ---- attempts ------------------------------------------------------------------

//  Marks saved images; from any attempt there was. `session` may be 0. Gives how many
//  were new, or -1 when the job is not active or never had this attempt.
int64_t luna_scheduler_images(luna_scheduler *scheduler, uint32_t session,
                              const luna_job_key *key, const luna_msg_image *images,
                              size_t count);
//  Renews the lease. False when this session does not hold it: tell it to stop.
bool luna_scheduler_progress(luna_scheduler *scheduler, uint32_t session,
                             const luna_job_key *key, int64_t now_ms);
//  The `stage` of a progress message: what it teaches about loading. Any text will do.
void luna_scheduler_stage(luna_scheduler *scheduler, uint32_t session,
                          const luna_job_key *key, luna_text stage, int64_t now_ms);

//  After luna_scheduler_images of the final list. An attempt that says done while
//  images are missing broke the rules: it counts as refused.
void luna_scheduler_done(luna_scheduler *scheduler, uint32_t session,
                         const luna_job_key *key, int64_t now_ms);
void luna_scheduler_failed(luna_scheduler *scheduler, uint32_t session,
                           const luna_msg_failed *failed, int64_t now_ms);

//  ---- time ----------------------------------------------------------------------

//  Ends leases, wakes deferred jobs, fails those whose deadline has come, gives up
//  decoders. Call often (100 ms).
void luna_scheduler_tick(luna_scheduler *scheduler, int64_t now_ms);

//  The broker itself was stopped for so long (SIGSTOP, a paused machine): what the
//  others did meanwhile is unread, so it is nobody's silence. Moves leases and waits;
//  the deadlines of jobs are their users' and stay.
void luna_scheduler_slept(luna_scheduler *scheduler, int64_t asleep_ms);

//  Starts every job that can start. Call after each round of messages, and often: a
//  job that is held back may start by time alone. Without a decoder that has room it
//  returns at once; else each start costs the queues times the decoders.
void luna_scheduler_dispatch(luna_scheduler *scheduler, int64_t now_ms);

//  While paused nothing is started; what runs goes on, and so does time.
void luna_scheduler_pause(luna_scheduler *scheduler, bool paused);
bool luna_scheduler_paused(const luna_scheduler *scheduler);

//  Other rules from now on; those that order the waiting jobs apply to them at once.
//  The seed stays.
void luna_scheduler_set_rules(luna_scheduler *scheduler, const luna_rules *rules);

//  ---- questions -----------------------------------------------------------------

typedef struct luna_depth {
    uint64_t pending;
    uint64_t in_progress;
    uint64_t storing;
    uint64_t bytes;     //  payloads of all of them
    uint64_t decoders;  //  ready
    uint64_t sent;      //  attempts in decoders' hands
} luna_depth;

luna_depth luna_scheduler_depth(const luna_scheduler *scheduler);

//  The active jobs of a client, those being stored counted in. O(1).
typedef struct luna_usage {
    uint64_t jobs;
    uint64_t bytes;  //  of their payloads
} luna_usage;

luna_usage luna_scheduler_client(const luna_scheduler *scheduler, const luna_id *client);

//  Least accepted_ms of the pending jobs, 0 when there is none; and the pending jobs
//  that go before this one. Each costs a walk over the jobs.
int64_t luna_scheduler_oldest(const luna_scheduler *scheduler);
uint64_t luna_scheduler_ahead(const luna_scheduler *scheduler, const luna_job *job);

//  Pending jobs of this priority or a higher one: what a new job of it waits for.
uint64_t luna_scheduler_backlog(const luna_scheduler *scheduler, uint64_t priority);

//  Any active job in no order: *at starts at 0; NULL at the end. Nothing may change
//  meanwhile.
const luna_job *luna_scheduler_next(const luna_scheduler *scheduler, size_t *at);

#endif
