//  jobs.h - the jobs of one client: waiting, under way, settled
//
//  queue   to be sent, in the order of submission
//  flight  sent, no receipt yet; back in its old place in the queue when it is overdue
//  settled accepted or refused; the latest LUNA_SETTLED_MAX are remembered
//
//  Pure data, no sockets and no lock: the client's lock guards it. Invariant: bytes
//  counts the bodies of queue and flight and the reservations, and never exceeds its
//  bound.

#ifndef LUNA_PRODUCER_JOBS_H
#define LUNA_PRODUCER_JOBS_H

#include "common/id.h"
#include "producer/luna/buffer.h"

#define LUNA_SETTLED_MAX 4096
#define LUNA_BUCKETS     1024

typedef enum luna_entry_state {
    LUNA_ENTRY_QUEUED,
    LUNA_ENTRY_FLIGHT,
    LUNA_ENTRY_SETTLED
} luna_entry_state;

typedef struct luna_entry {
    luna_id id;
    luna_entry_state state;
    luna_buffer *body;    //  the job message; NULL once settled
    size_t bytes;         //  of the message
    uint64_t sendings;    //  how often it went to the intake
    uint64_t order;       //  of its submission; the queue is sorted by it
    int64_t timeout_ms;   //  the current wait for a receipt
    int64_t deadline_ms;  //  flight: when it is overdue
    luna_err error;       //  settled: LUNA_OK is accepted
    char *detail;         //  settled with an error: one sentence
    uint64_t position;    //  accepted
    uint64_t images;
    bool duplicate;
    struct luna_entry *prev, *next;  //  in its list
    struct luna_entry *chain;        //  in its bucket
} luna_entry;

typedef struct luna_entry_list {
    luna_entry *head, *tail;
    size_t count;
} luna_entry_list;

typedef struct luna_jobs {
    luna_entry_list list[3];  //  by luna_entry_state
    luna_entry *bucket[LUNA_BUCKETS];
    uint64_t bytes;
    uint64_t max_bytes;
    uint64_t submitted;  //  jobs ever queued
} luna_jobs;

void luna_jobs_init(luna_jobs *jobs, uint64_t max_bytes);

//  Releases every body and entry.
void luna_jobs_clear(luna_jobs *jobs);

//  Books room for a job before its memory is taken. LUNA_TOO_LARGE when it never
//  fits, LUNA_BUSY when it does not fit now. unreserve takes a booking back.
LUNA_MUST_USE luna_err luna_jobs_reserve(luna_jobs *jobs, uint64_t bytes);
void luna_jobs_unreserve(luna_jobs *jobs, uint64_t bytes);

//  Queues a job whose bytes are reserved; the body's reference and the entry become
//  the table's. A settled, refused entry of the same id is replaced. LUNA_EXISTS when
//  the id is in use: nothing changed.
LUNA_MUST_USE luna_err luna_jobs_add(luna_jobs *jobs, luna_entry *entry);

luna_entry *luna_jobs_find(const luna_jobs *jobs, const luna_id *id);

//  The next job to send, or NULL.
luna_entry *luna_jobs_next(const luna_jobs *jobs);

size_t luna_jobs_flying(const luna_jobs *jobs);
size_t luna_jobs_unsettled(const luna_jobs *jobs);

//  Notes that a queued job went to the intake at now_ms.
void luna_jobs_sent(luna_jobs *jobs, luna_entry *entry, int64_t now_ms);

//  Puts a job under way back in its old place in the queue. Others are left alone.
void luna_jobs_again(luna_jobs *jobs, luna_entry *entry);

//  Puts every job under way back.
void luna_jobs_again_all(luna_jobs *jobs);

//  Puts overdue jobs back with doubled waits, at most max_wait_ms. Returns how many.
size_t luna_jobs_overdue(luna_jobs *jobs, int64_t now_ms, int64_t max_wait_ms);

//  The earliest deadline of the jobs under way; INT64_MAX for none.
int64_t luna_jobs_deadline(const luna_jobs *jobs);

//  Ends a job that is not settled. Returns its body's reference, to be released by
//  the caller outside of the lock. `detail` is copied, and left out when memory ends.
luna_buffer *luna_jobs_settle(luna_jobs *jobs, luna_entry *entry, luna_err error,
                              const char *detail);

#endif
