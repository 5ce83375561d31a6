//  entry.h - one job of a client, and lists of them
//
//  An entry is in two lists at a time: by its state and by the place of its message.

#ifndef LUNA_PRODUCER_ENTRY_H
#define LUNA_PRODUCER_ENTRY_H

#include "common/id.h"
#include "producer/luna/buffer.h"

typedef enum luna_entry_state {
    LUNA_ENTRY_QUEUED,
    LUNA_ENTRY_OFFERED,
    LUNA_ENTRY_FLIGHT,
    LUNA_ENTRY_SETTLED,
    LUNA_ENTRY_STATES
} luna_entry_state;

//  Where the message of a job is.
typedef enum luna_body_place {
    LUNA_BODY_MEMORY,   //  in memory only
    LUNA_BODY_STAYS,    //  the same, and the outbox cannot take it
    LUNA_BODY_WRITING,  //  in memory, on its way to the outbox
    LUNA_BODY_BOTH,     //  in memory and kept in the outbox
    LUNA_BODY_DISK,     //  kept in the outbox only
    LUNA_BODY_READING,  //  being read back; its memory is booked already
    LUNA_BODY_GONE,     //  settled
    LUNA_BODY_PLACES
} luna_body_place;

typedef struct luna_entry luna_entry;

typedef struct luna_entry_link {
    luna_entry *prev, *next;
} luna_entry_link;

struct luna_entry {
    luna_id id;
    luna_entry_state state;
    luna_body_place place;
    luna_buffer *body;    //  the job message; NULL when it is on disk only, or settled
    size_t bytes;         //  of the message
    uint64_t priority;    //  of the job; known while the body is there
    uint64_t sendings;    //  how often it went to the intake
    uint64_t order;       //  of its submission; the queue is sorted by it
    bool granted;         //  queued: the broker has said that it may come
    int64_t timeout_ms;   //  the current wait for a receipt
    int64_t deadline_ms;  //  offered, flight: when it is overdue
    int64_t keep_ms;      //  when it is written to the outbox if not accepted by then
    luna_err error;       //  settled: LUNA_OK is accepted
    char *detail;         //  settled with an error: one sentence
    uint64_t position;    //  accepted
    uint64_t images;
    bool duplicate;
    luna_entry_link by_state, by_place;  //  in its two lists
    luna_entry *chain;                   //  in its bucket
};

typedef struct luna_entry_list {
    luna_entry *head, *tail;
    size_t count;
} luna_entry_list;

//  Which of an entry's two links a list runs through.
typedef luna_entry_link *luna_entry_side(luna_entry *entry);

luna_entry_link *luna_entry_by_state(luna_entry *entry);
luna_entry_link *luna_entry_by_place(luna_entry *entry);

void luna_list_append(luna_entry_list *list, luna_entry *entry, luna_entry_side *side);

//  Into a list that is sorted by `order`. Quick near both ends, where jobs come and go.
void luna_list_sort_in(luna_entry_list *list, luna_entry *entry, luna_entry_side *side);

void luna_list_remove(luna_entry_list *list, luna_entry *entry, luna_entry_side *side);

//  Frees an entry that is in no list.
void luna_entry_free(luna_entry *entry);

#endif
