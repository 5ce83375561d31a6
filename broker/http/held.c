#include "broker/http/held.h"

#include <stdatomic.h>
#include <stdlib.h>

struct luna_held {
    atomic_size_t references;
    atomic_size_t used;
    size_t max_bytes;
};

luna_held *luna_held_new(size_t max_bytes)
{
    luna_held *held = malloc(sizeof *held);
    if (!held) return NULL;
    atomic_init(&held->references, 1);
    atomic_init(&held->used, 0);
    held->max_bytes = max_bytes;
    return held;
}

luna_held *luna_held_share(luna_held *held)
{
    atomic_fetch_add(&held->references, 1);
    return held;
}

void luna_held_drop(luna_held *held)
{
    if (atomic_fetch_sub(&held->references, 1) == 1) free(held);
}

bool luna_held_take(luna_held *held, size_t bytes)
{
    size_t used = atomic_load(&held->used);
    do {
        if (bytes > held->max_bytes - used) return false;
    } while (!atomic_compare_exchange_weak(&held->used, &used, used + bytes));
    return true;
}

void luna_held_give(luna_held *held, size_t bytes)
{
    atomic_fetch_sub(&held->used, bytes);
}
