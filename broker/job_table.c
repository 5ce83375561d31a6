//  job_table.c - open addressing with backward-shift deletion, and a binary heap

#include "broker/job_table.h"

#include <stdlib.h>
#include <string.h>

bool luna_place_is_pending(luna_job_place place)
{
    return place == LUNA_PLACE_WAITING || place == LUNA_PLACE_DEFERRED;
}

//  ---- by id ---------------------------------------------------------------------

//  Ids are chosen by producers; their random half decides and the multiplication
//  spreads what is left.
static size_t home_of(const luna_job_table *table, const luna_id *id)
{
    uint64_t high, low;
    memcpy(&high, id->byte, 8);
    memcpy(&low, id->byte + 8, 8);
    const uint64_t mixed = (low ^ (high * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;
    return (size_t)(mixed >> 32) & (table->room - 1);
}

static void place(luna_job_table *table, luna_job *job)
{
    size_t i = home_of(table, &job->id);
    while (table->slots[i]) i = (i + 1) & (table->room - 1);
    table->slots[i] = job;
}

luna_err luna_job_table_reserve(luna_job_table *table)
{
    if ((table->count + 1) * 2 <= table->room) return LUNA_OK;
    const size_t room = table->room ? table->room * 2 : 64;
    luna_job **slots = calloc(room, sizeof *slots);
    if (!slots) return luna_error(LUNA_NO_MEMORY, "no memory for %zu jobs", room / 2);
    luna_job_table grown = {.slots = slots, .room = room, .count = table->count};
    for (size_t i = 0; i < table->room; i++)
        if (table->slots[i]) place(&grown, table->slots[i]);
    free(table->slots);
    *table = grown;
    return LUNA_OK;
}

void luna_job_table_add(luna_job_table *table, luna_job *job)
{
    place(table, job);
    table->count++;
}

static size_t slot_of(const luna_job_table *table, const luna_id *id)
{
    size_t i = home_of(table, id);
    while (table->slots[i] && luna_id_compare(&table->slots[i]->id, id) != 0)
        i = (i + 1) & (table->room - 1);
    return i;
}

luna_job *luna_job_table_find(const luna_job_table *table, const luna_id *id)
{
    return table->room ? table->slots[slot_of(table, id)] : NULL;
}

//  Moves later members of the probe run back, so that no marker of deletion is
//  needed and a long-lived table stays fast.
void luna_job_table_remove(luna_job_table *table, const luna_job *job)
{
    const size_t mask = table->room - 1;
    size_t hole = slot_of(table, &job->id);
    if (!table->slots[hole]) return;
    for (size_t i = (hole + 1) & mask; table->slots[i]; i = (i + 1) & mask) {
        const size_t home = home_of(table, &table->slots[i]->id);
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        table->slots[hole] = table->slots[i];
        hole = i;
    }
    table->slots[hole] = NULL;
    table->count--;
}

luna_job *luna_job_table_next(const luna_job_table *table, size_t *at)
{
    while (*at < table->room)
        if (table->slots[(*at)++]) return table->slots[*at - 1];
    return NULL;
}

//  ---- by order ------------------------------------------------------------------

bool luna_job_ranks_before(const luna_job *a, const luna_job *b)
{
    return a->rank_ms != b->rank_ms ? a->rank_ms < b->rank_ms : a->order < b->order;
}

bool luna_job_wakes_before(const luna_job *a, const luna_job *b)
{
    return a->wake_ms < b->wake_ms;
}

luna_err luna_job_heap_reserve(luna_job_heap *heap, size_t count)
{
    if (count <= heap->room) return LUNA_OK;
    const size_t room = count < 32 ? 32 : count * 2;
    luna_job **at = realloc(heap->at, room * sizeof *at);
    if (!at) return luna_error(LUNA_NO_MEMORY, "no memory to queue %zu jobs", count);
    heap->at = at;
    heap->room = room;
    return LUNA_OK;
}

static void put(luna_job_heap *heap, size_t i, luna_job *job)
{
    heap->at[i] = job;
    job->heap_at = i;
}

static void sift_up(luna_job_heap *heap, size_t i, luna_job *job)
{
    for (; i > 0 && heap->before(job, heap->at[(i - 1) / 2]); i = (i - 1) / 2)
        put(heap, i, heap->at[(i - 1) / 2]);
    put(heap, i, job);
}

static void sift_down(luna_job_heap *heap, size_t i, luna_job *job)
{
    for (size_t child; (child = 2 * i + 1) < heap->count; i = child) {
        if (child + 1 < heap->count && heap->before(heap->at[child + 1], heap->at[child]))
            child++;
        if (!heap->before(heap->at[child], job)) break;
        put(heap, i, heap->at[child]);
    }
    put(heap, i, job);
}

void luna_job_heap_push(luna_job_heap *heap, luna_job *job)
{
    sift_up(heap, heap->count++, job);
}

void luna_job_heap_remove(luna_job_heap *heap, luna_job *job)
{
    const size_t i = job->heap_at;
    luna_job *last = heap->at[--heap->count];
    if (last == job) return;
    if (i > 0 && heap->before(last, heap->at[(i - 1) / 2]))
        sift_up(heap, i, last);
    else
        sift_down(heap, i, last);
}

luna_job *luna_job_heap_first(const luna_job_heap *heap)
{
    return heap->count ? heap->at[0] : NULL;
}
