//  pool.h - encode threads behind a queue of bounded length and bytes
//
//  Room is reserved before the pixels are made, so that what waits and what is worked
//  on never takes more memory than allowed: the decode thread waits instead.

#ifndef LUNA_WORKER_POOL_H
#define LUNA_WORKER_POOL_H

#include "common/err.h"

#include <stddef.h>

//  The head of every task's own struct.
typedef struct luna_task {
    struct luna_task *next;               //  the pool's
    void (*run)(struct luna_task *task);  //  runs and frees the task
    size_t bytes;                         //  as reserved
} luna_task;

typedef struct luna_pool_options {
    size_t threads;            //  at least 1
    size_t tasks_max;          //  reserved at a time, at least 1
    size_t bytes_max;          //  reserved at a time; one larger task is let in alone
    void (*thread_end)(void);  //  called by each thread at its end; may be NULL
} luna_pool_options;

typedef struct luna_pool luna_pool;

//  Starts the threads. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_pool_start(const luna_pool_options *options, luna_pool **out);

//  Waits until there is room for `bytes` and takes it.
void luna_pool_reserve(luna_pool *pool, size_t bytes);

//  Gives a reservation back that no task was made for.
void luna_pool_unreserve(luna_pool *pool, size_t bytes);

//  Hands a task over; its bytes were reserved. They are given back when it has run.
void luna_pool_submit(luna_pool *pool, luna_task *task);

//  Runs what is queued, ends the threads, nulls the pointer; NULL is fine.
void luna_pool_stop(luna_pool **pool);

#endif
