//  job.h - an active job in memory, and heaps of them
//
//  A job is in at most one heap of each kind. Room is reserved when it is added, so
//  that giving it back never needs memory. Loop thread only.

#ifndef LUNA_BROKER_JOB_H
#define LUNA_BROKER_JOB_H

#include "proto/message.h"

//  Where an active job is. The wire knows WAITING and DEFERRED as "pending", those
//  after them as "in_progress", and a job that is being stored not at all.
typedef enum luna_job_place {
    LUNA_PLACE_STORING,   //  its acceptance is being made durable
    LUNA_PLACE_WAITING,   //  in its lane of its VAE's queue
    LUNA_PLACE_DEFERRED,  //  waits for wake_ms before it is queued again
    LUNA_PLACE_STARTING,  //  its next attempt is being made durable
    LUNA_PLACE_RUNNING,   //  a decoder holds it
    LUNA_PLACE_ORPHAN,    //  ran before a restart; a decoder may claim it until wake_ms
    LUNA_PLACE_ENDING     //  its final state is being made durable
} luna_job_place;

//  WAITING and DEFERRED.
bool luna_place_is_pending(luna_job_place place);

//  Heaps a job can be in at the same time.
typedef enum luna_heap_kind {
    LUNA_HEAP_PLACE,     //  its lane, or the timers
    LUNA_HEAP_DEADLINE,  //  the deadlines
    LUNA_HEAP_KINDS
} luna_heap_kind;

typedef struct luna_job {
    luna_id id;  //  first: the key of luna_id_table
    luna_job_place place;
    uint32_t priority;                  //  0 to 9, 9 most urgent
    uint32_t attempts;                  //  number of the latest, 0 before the first
    uint32_t lost;                      //  attempts whose decoder died or hung
    uint32_t lost_in_row;               //  of them, since one was answered
    uint32_t refused;                   //  attempts that were answered with failed
    int64_t next_ms;                    //  wall clock of "run next"; 0: not ordered
    int64_t rank_ms;                    //  less goes first: fair time less head start
    int64_t fair_ms;                    //  when it would have its turn; fairness.h
    int64_t cost_ms;                    //  service predicted when it got fair_ms
    uint64_t order;                     //  of acceptance; breaks ties of rank
    int64_t created_ms;                 //  wall clocks: of the producer's submission,
    int64_t accepted_ms;                //  of acceptance,
    int64_t started_ms;                 //  of the latest attempt, 0 before the first
    int64_t wake_ms;                    //  DEFERRED, ORPHAN: monotonic, the next step
    int64_t expires_ms;                 //  monotonic time of the deadline; 0: none
    int64_t regroup_ms;                 //  monotonic: until then decoders of before the
                                        //  broker's start may come back; 0: it is new
    uint64_t bytes;                     //  of the payload
    uint32_t session;                   //  STARTING, RUNNING: the decoder's, else 0
    luna_id avoid;                      //  the instance that refused it last, or nil
    size_t heap_at[LUNA_HEAP_KINDS];    //  its place in the heap of each kind
    struct luna_queue *queue;           //  the jobs of the same VAE
    struct luna_lane *lane;             //  of them, those of the same formats
    struct luna_client *client;         //  who sent it
    bool chained;                       //  waits for its first attempt
    struct luna_job *chain_before;      //  then: the client's job of this priority
    struct luna_job *chain_after;       //  before it, and after it
    uint32_t batches[LUNA_MAX_INPUTS];  //  images of each input; all 0: not known
    uint32_t images;                    //  pictures of all inputs
    uint32_t images_done;               //  bits set in `saved`
    uint8_t *saved;                     //  a bit an image; NULL before the first
} luna_job;

//  ---- images --------------------------------------------------------------------

//  Whether the job has such an image. With batches not known an input may have any
//  image below `images`.
bool luna_job_has_image(const luna_job *job, uint64_t input, uint64_t index);

//  Whether an image is recorded.
bool luna_job_image_saved(const luna_job *job, uint64_t input, uint64_t index);

//  Marks saved images and returns how many were new; one that the job does not have
//  is passed over. Without memory for the marks none is: the images are then made
//  once more.
uint32_t luna_job_mark_saved(luna_job *job, const luna_msg_image *images, size_t count);

//  ---- heaps ---------------------------------------------------------------------

typedef bool luna_job_before(const luna_job *a, const luna_job *b);

typedef struct luna_job_heap {
    luna_job **at;  //  at[0] goes first; the heap's owner frees it
    size_t count;
    size_t room;
    luna_job_before *before;
    luna_heap_kind kind;
} luna_job_heap;

//  Jobs ordered next before all others, the latest order first; then by rank, then
//  order of acceptance.
bool luna_job_ranks_before(const luna_job *a, const luna_job *b);
bool luna_job_wakes_before(const luna_job *a, const luna_job *b);
bool luna_job_expires_before(const luna_job *a, const luna_job *b);

//  Makes room for `count` jobs. LUNA_NO_MEMORY leaves the heap as it was.
LUNA_MUST_USE luna_err luna_job_heap_reserve(luna_job_heap *heap, size_t count);

//  Push after a reserve that covers it.
void luna_job_heap_push(luna_job_heap *heap, luna_job *job);
void luna_job_heap_remove(luna_job_heap *heap, luna_job *job);
luna_job *luna_job_heap_first(const luna_job_heap *heap);  //  NULL when empty

//  After what the order depends on has changed in any of its jobs.
void luna_job_heap_rebuild(luna_job_heap *heap);

#endif
