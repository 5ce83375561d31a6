//  held.h - how many bytes of bodies and messages are in memory, and the limit
//
//  Shared by reference: a message that the broker still holds when the shim has
//  stopped gives its bytes back all the same. All functions are thread-safe.

#ifndef LUNA_BROKER_HTTP_HELD_H
#define LUNA_BROKER_HTTP_HELD_H

#include <stdbool.h>
#include <stddef.h>

typedef struct luna_held luna_held;

//  NULL when memory runs out. The caller's reference is given up with luna_held_drop.
luna_held *luna_held_new(size_t max_bytes);

//  One more reference.
luna_held *luna_held_share(luna_held *held);
void luna_held_drop(luna_held *held);

//  Counts `bytes` in, or returns false and counts nothing when the limit is reached.
bool luna_held_take(luna_held *held, size_t bytes);
void luna_held_give(luna_held *held, size_t bytes);

#endif
