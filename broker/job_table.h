//  job_table.h - the active jobs in memory, found by id, ordered by rank
//
//  Three plain structures that own no jobs: the job itself, a hash table by id and
//  an indexed binary heap. Room is reserved when a job is added, so that giving a
//  job back never needs memory. Loop thread only.

#ifndef LUNA_BROKER_JOB_TABLE_H
#define LUNA_BROKER_JOB_TABLE_H

#include "proto/message.h"

//  Where an active job is. The wire knows WAITING and DEFERRED as "pending", those
//  after them as "in_progress", and a job that is being stored not at all.
typedef enum luna_job_place {
    LUNA_PLACE_STORING,   //  its acceptance is being made durable
    LUNA_PLACE_WAITING,   //  in its VAE's queue
    LUNA_PLACE_DEFERRED,  //  waits for wake_ms before it is queued again
    LUNA_PLACE_STARTING,  //  its next attempt is being made durable
    LUNA_PLACE_RUNNING,   //  a decoder holds it
    LUNA_PLACE_ORPHAN,    //  ran before a restart; a decoder may claim it until wake_ms
    LUNA_PLACE_ENDING     //  its final state is being made durable
} luna_job_place;

//  WAITING and DEFERRED.
bool luna_place_is_pending(luna_job_place place);

typedef struct luna_job {
    luna_id id;
    luna_job_place place;
    uint32_t priority;         //  0 to 9, 9 most urgent
    uint32_t attempts;         //  number of the latest attempt, 0 before the first
    uint32_t lost;             //  attempts whose decoder died or hung
    uint32_t refused;          //  attempts that a decoder answered with failed
    int64_t rank_ms;           //  less goes first: time of acceptance less head start
    uint64_t order;            //  order of acceptance; breaks ties of rank
    int64_t created_ms;        //  wall clocks: of the producer's submission,
    int64_t accepted_ms;       //  of acceptance,
    int64_t started_ms;        //  of the latest attempt, 0 before the first
    int64_t wake_ms;           //  DEFERRED, ORPHAN: monotonic time of the next step
    uint64_t bytes;            //  of the payload
    uint32_t session;          //  STARTING, RUNNING: the decoder's, else 0
    luna_id avoid;             //  the decoder instance that refused it last, or nil
    size_t heap_at;            //  place in the one heap that holds it
    struct luna_queue *queue;  //  the jobs of the same VAE
    uint32_t images;           //  pictures of all inputs
    uint32_t images_done;      //  bits set in `saved`
    uint8_t *saved;            //  bit input * images + index; NULL before the first
} luna_job;

//  ---- by id ---------------------------------------------------------------------

typedef struct luna_job_table {
    luna_job **slots;  //  power of two, at most half full
    size_t room;
    size_t count;
} luna_job_table;

//  Makes room for one more. LUNA_NO_MEMORY leaves the table as it was.
LUNA_MUST_USE luna_err luna_job_table_reserve(luna_job_table *table);

//  Adds a job whose id is not in the table; after a reserve.
void luna_job_table_add(luna_job_table *table, luna_job *job);

luna_job *luna_job_table_find(const luna_job_table *table, const luna_id *id);
void luna_job_table_remove(luna_job_table *table, const luna_job *job);

//  Walks all jobs in no order: *at starts at 0; NULL at the end. The table must
//  not change meanwhile.
luna_job *luna_job_table_next(const luna_job_table *table, size_t *at);

//  ---- by order ------------------------------------------------------------------

typedef bool luna_job_before(const luna_job *a, const luna_job *b);

typedef struct luna_job_heap {
    luna_job **at;  //  at[0] goes first
    size_t count;
    size_t room;
    luna_job_before *before;
} luna_job_heap;

//  By rank, then order; and by wake_ms.
bool luna_job_ranks_before(const luna_job *a, const luna_job *b);
bool luna_job_wakes_before(const luna_job *a, const luna_job *b);

//  Makes room for `count` jobs. LUNA_NO_MEMORY leaves the heap as it was.
LUNA_MUST_USE luna_err luna_job_heap_reserve(luna_job_heap *heap, size_t count);

//  A job is in one heap at most. Push after a reserve that covers it.
void luna_job_heap_push(luna_job_heap *heap, luna_job *job);
void luna_job_heap_remove(luna_job_heap *heap, luna_job *job);
luna_job *luna_job_heap_first(const luna_job_heap *heap);  //  NULL when empty

#endif
