#include "producer/luna/entry.h"

#include <stdlib.h>

luna_entry_link *luna_entry_by_state(luna_entry *entry)
{
    return &entry->by_state;
}

luna_entry_link *luna_entry_by_place(luna_entry *entry)
{
    return &entry->by_place;
}

//  Before `after`; at the end when that is NULL.
static void insert(luna_entry_list *list, luna_entry *entry, luna_entry *after,
                   luna_entry_side *side)
{
    luna_entry *before = after ? side(after)->prev : list->tail;
    *side(entry) = (luna_entry_link){.prev = before, .next = after};
    *(before ? &side(before)->next : &list->head) = entry;
    *(after ? &side(after)->prev : &list->tail) = entry;
    list->count++;
}

void luna_list_append(luna_entry_list *list, luna_entry *entry, luna_entry_side *side)
{
    insert(list, entry, NULL, side);
}

void luna_list_sort_in(luna_entry_list *list, luna_entry *entry, luna_entry_side *side)
{
    luna_entry *after = NULL;
    if (list->tail && list->tail->order > entry->order)
        for (after = list->head; after->order < entry->order;) after = side(after)->next;
    insert(list, entry, after, side);
}

void luna_list_remove(luna_entry_list *list, luna_entry *entry, luna_entry_side *side)
{
    luna_entry_link *link = side(entry);
    *(link->prev ? &side(link->prev)->next : &list->head) = link->next;
    *(link->next ? &side(link->next)->prev : &list->tail) = link->prev;
    *link = (luna_entry_link){0};
    list->count--;
}

void luna_entry_free(luna_entry *entry)
{
    if (!entry) return;
    luna_buffer_release(entry->body);
    free(entry->detail);
    free(entry);
}
