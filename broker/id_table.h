//  id_table.h - things found by id: a hash table of pointers
//
//  What is in the table begins with its luna_id and belongs to the caller. Room is
//  reserved beforehand, so that adding cannot fail. A zeroed table is empty; its
//  owner frees `slots`. Loop thread only.

#ifndef LUNA_BROKER_ID_TABLE_H
#define LUNA_BROKER_ID_TABLE_H

#include "common/id.h"

#include <stddef.h>

typedef struct luna_id_table {
    void **slots;  //  power of two, at most half full
    size_t room;
    size_t count;
    uint64_t seed;  //  of the hash; set before the first is added, then constant
} luna_id_table;

//  Makes room for one more. LUNA_NO_MEMORY leaves the table as it was.
LUNA_MUST_USE luna_err luna_id_table_reserve(luna_id_table *table);

//  Adds what has an id that is not in the table; after a reserve.
void luna_id_table_add(luna_id_table *table, void *thing);

//  NULL when there is none of this id.
void *luna_id_table_find(const luna_id_table *table, const luna_id *id);

//  Nothing when there is none of this id.
void luna_id_table_remove(luna_id_table *table, const luna_id *id);

//  Walks all in no order: *at starts at 0; NULL at the end. The table must not
//  change meanwhile.
void *luna_id_table_next(const luna_id_table *table, size_t *at);

#endif
