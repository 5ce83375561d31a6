//  jobs.h - the jobs of one client: waiting, under way, settled; in memory and on disk
//
//  queue   to be sent, in the order of submission
//  offered the broker was asked whether it may be sent
//  flight  sent, no receipt yet
//  settled accepted or refused; the latest LUNA_SETTLED_MAX are remembered
//
//  What is offered or under way goes back in its old place in the queue when it is
//  overdue. Beside its state a job has a place: where its message is. A client without an
//  outbox has all of them in memory.
//
//  Pure data, no sockets, no files and no lock: the client's lock guards it. Invariants:
//  `bytes` counts the messages of all jobs that are not settled, and the reservations;
//  `memory_bytes` counts those in memory. Only what is read back from the disk may take
//  it over its bound, see luna_jobs_wanted.

#ifndef LUNA_PRODUCER_JOBS_H
#define LUNA_PRODUCER_JOBS_H

#include "producer/luna/entry.h"

#define LUNA_SETTLED_MAX 4096
#define LUNA_BUCKETS     1024

typedef struct luna_jobs {
    luna_entry_list state[LUNA_ENTRY_STATES];
    luna_entry_list place[LUNA_BODY_PLACES];
    luna_entry *bucket[LUNA_BUCKETS];
    uint64_t bytes;
    uint64_t memory_bytes;
    uint64_t max_bytes;   //  in memory
    uint64_t kept_bytes;  //  of the jobs whose messages are in the outbox
    uint64_t next_order;
} luna_jobs;

void luna_jobs_init(luna_jobs *jobs, uint64_t max_bytes);

//  Releases every body and entry.
void luna_jobs_clear(luna_jobs *jobs);

//  Books room for a job before its memory is taken. LUNA_TOO_LARGE when it never
//  fits, LUNA_BUSY when it does not fit now. unreserve takes a booking back.
LUNA_MUST_USE luna_err luna_jobs_reserve(luna_jobs *jobs, uint64_t bytes);
void luna_jobs_unreserve(luna_jobs *jobs, uint64_t bytes);

//  Queues a job whose bytes are reserved; the body's reference and the entry become the
//  table's, which gives it its order. A settled, refused entry of the same id is
//  replaced. LUNA_EXISTS when the id is in use: nothing changed.
LUNA_MUST_USE luna_err luna_jobs_add(luna_jobs *jobs, luna_entry *entry);

//  Queues a job that the outbox holds, in its old order. Such jobs come first and sorted.
//  LUNA_EXISTS as above.
LUNA_MUST_USE luna_err luna_jobs_restore(luna_jobs *jobs, luna_entry *entry);

luna_entry *luna_jobs_find(const luna_jobs *jobs, const luna_id *id);

//  The next job to send, or NULL.
luna_entry *luna_jobs_next(const luna_jobs *jobs);

size_t luna_jobs_count(const luna_jobs *jobs, luna_entry_state state);
size_t luna_jobs_unsettled(const luna_jobs *jobs);

//  Notes that a queued job went to the intake, or that it was offered, at now_ms.
void luna_jobs_sent(luna_jobs *jobs, luna_entry *entry, int64_t now_ms);
void luna_jobs_offered(luna_jobs *jobs, luna_entry *entry, int64_t now_ms);

//  Notes that a job may be sent. One that is under way or settled is left alone.
void luna_jobs_grant(luna_jobs *jobs, luna_entry *entry);

//  Puts a job that is offered or under way back in its old place in the queue, without
//  its grant. A settled one is left alone.
void luna_jobs_again(luna_jobs *jobs, luna_entry *entry);

//  Puts every job that is offered or under way back, and takes all grants away.
void luna_jobs_again_all(luna_jobs *jobs);

//  Puts overdue jobs back with doubled waits, at most max_wait_ms. Returns how many.
size_t luna_jobs_overdue(luna_jobs *jobs, int64_t now_ms, int64_t max_wait_ms);

//  The earliest deadline of the jobs offered and under way; INT64_MAX for none.
int64_t luna_jobs_deadline(const luna_jobs *jobs);

//  Ends a job that is not settled. Returns its body's reference, or NULL, to be released
//  by the caller outside of the lock. `detail` is copied, and left out when memory ends.
luna_buffer *luna_jobs_settle(luna_jobs *jobs, luna_entry *entry, luna_err error,
                              const char *detail);

//  ---- places: jobs_place.c --------------------------------------------------------

//  Whether the outbox holds the message, whatever the memory does.
bool luna_jobs_kept(const luna_entry *entry);
size_t luna_jobs_kept_count(const luna_jobs *jobs);

//  The oldest job that the outbox does not hold and has not failed to take, or NULL.
luna_entry *luna_jobs_unkept(const luna_jobs *jobs);

//  The outbox begins to write a job, and has written it or not. With `again` a failed one
//  is tried again in its turn.
void luna_jobs_writing(luna_jobs *jobs, luna_entry *entry);
void luna_jobs_written(luna_jobs *jobs, luna_entry *entry, bool good, bool again);

//  Takes kept messages out of the memory until `bytes` more fit, or none is left: the
//  latest of the queue first. Returns the buffers, linked by `next`, each to be released
//  by the caller outside of the lock.
luna_buffer *luna_jobs_evict(luna_jobs *jobs, uint64_t bytes);

//  The first of the next `ahead` jobs whose message must be read back and fits into the
//  memory; the very next job may always, so that a memory full of later ones does not
//  stop it. NULL when there is none.
luna_entry *luna_jobs_wanted(const luna_jobs *jobs, size_t ahead);

//  Reading back begins: the memory is booked. It ends with the body, whose reference
//  becomes the table's, or with NULL: the job is then on the disk only, as before.
void luna_jobs_reading(luna_jobs *jobs, luna_entry *entry);
void luna_jobs_read(luna_jobs *jobs, luna_entry *entry, luna_buffer *body);

//  Moves an entry to its place's list; for jobs.c.
void luna_jobs_place(luna_jobs *jobs, luna_entry *entry, luna_body_place place);

#endif
