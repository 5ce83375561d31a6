//  id_table.c - open addressing with backward-shift deletion

#include "broker/id_table.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

//  Ids are chosen by peers: every bit counts, and the seed is not theirs to know.
static size_t home_of(const luna_id_table *table, const luna_id *id)
{
    uint64_t high, low;
    memcpy(&high, id->byte, 8);
    memcpy(&low, id->byte + 8, 8);
    return (size_t)mix(mix(low ^ table->seed) ^ high) & (table->room - 1);
}

static const luna_id *id_of(const void *thing)
{
    return thing;
}

static void place(luna_id_table *table, void *thing)
{
    size_t i = home_of(table, id_of(thing));
    while (table->slots[i]) i = (i + 1) & (table->room - 1);
    table->slots[i] = thing;
}

luna_err luna_id_table_reserve(luna_id_table *table)
{
    if ((table->count + 1) * 2 <= table->room) return LUNA_OK;
    const size_t room = table->room ? table->room * 2 : 64;
    void **slots = calloc(room, sizeof *slots);
    if (!slots) return luna_error(LUNA_NO_MEMORY, "no memory for %zu ids", room / 2);
    luna_id_table grown = *table;
    grown.slots = slots;
    grown.room = room;
    for (size_t i = 0; i < table->room; i++)
        if (table->slots[i]) place(&grown, table->slots[i]);
    free(table->slots);
    *table = grown;
    return LUNA_OK;
}

void luna_id_table_add(luna_id_table *table, void *thing)
{
    place(table, thing);
    table->count++;
}

static size_t slot_of(const luna_id_table *table, const luna_id *id)
{
    size_t i = home_of(table, id);
    while (table->slots[i] && luna_id_compare(id_of(table->slots[i]), id) != 0)
        i = (i + 1) & (table->room - 1);
    return i;
}

void *luna_id_table_find(const luna_id_table *table, const luna_id *id)
{
    return table->room ? table->slots[slot_of(table, id)] : NULL;
}

//  Moves later members of the probe run back, so that no marker of deletion is
//  needed and a long-lived table stays fast.
void luna_id_table_remove(luna_id_table *table, const luna_id *id)
{
    if (!luna_id_table_find(table, id)) return;
    const size_t mask = table->room - 1;
    size_t hole = slot_of(table, id);
    for (size_t i = (hole + 1) & mask; table->slots[i]; i = (i + 1) & mask) {
        const size_t home = home_of(table, id_of(table->slots[i]));
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        table->slots[hole] = table->slots[i];
        hole = i;
    }
    table->slots[hole] = NULL;
    table->count--;
}

void *luna_id_table_next(const luna_id_table *table, size_t *at)
{
    while (*at < table->room)
        if (table->slots[(*at)++]) return table->slots[*at - 1];
    return NULL;
}
