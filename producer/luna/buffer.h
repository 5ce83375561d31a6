//  buffer.h - message memory that is used again
//
//  Faulting fresh pages costs more than copying into them (1.7 ms against 0.1 ms for
//  4 MiB), so buffers of finished jobs are kept for the next ones. A buffer is counted:
//  the job holds one reference until its receipt, each message inside libzmq another.
//  All functions are thread-safe.

#ifndef LUNA_PRODUCER_BUFFER_H
#define LUNA_PRODUCER_BUFFER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct luna_pool luna_pool;

typedef struct luna_buffer {
    atomic_size_t refs;
    uint8_t *data;
    size_t capacity;  //  bytes at data
    luna_pool *pool;
    struct luna_buffer *next;  //  in the pool's list, or in a chain of its owner's
} luna_buffer;

//  A pool that keeps at most `keep_bytes` of unused memory; NULL when memory runs out.
luna_pool *luna_pool_new(size_t keep_bytes);

//  Every buffer must have been released before. NULL is fine.
void luna_pool_free(luna_pool *pool);

//  A buffer of at least `bytes` with one reference; NULL when memory runs out.
luna_buffer *luna_pool_take(luna_pool *pool, size_t bytes);

//  Puts one buffer of `bytes` in the pool whose pages are all there already. Nothing
//  happens when memory runs out.
void luna_pool_warm(luna_pool *pool, size_t bytes);

luna_buffer *luna_buffer_hold(luna_buffer *buffer);

//  Gives one reference back; the last one returns the buffer to its pool.
void luna_buffer_release(luna_buffer *buffer);

//  The same for each of a chain that is linked by `next`.
void luna_buffer_release_chain(luna_buffer *chain);

#endif
