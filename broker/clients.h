//  clients.h - who has active jobs, how much, and how far its turns reach
//
//  A client is the id its jobs carry; jobs without one share the nil id. Its entry
//  lives while it has active jobs. Loop thread only.

#ifndef LUNA_BROKER_CLIENTS_H
#define LUNA_BROKER_CLIENTS_H

#include "broker/id_table.h"
#include "broker/job.h"

//  The jobs of one client and priority that wait for their first attempt, in order.
typedef struct luna_chain {
    luna_job *last;     //  NULL: none
    int64_t served_ms;  //  end of the turn of the furthest job that was started
} luna_chain;

typedef struct luna_client {
    luna_id id;      //  first: the key of luna_id_table
    uint64_t jobs;   //  active ones
    uint64_t bytes;  //  of their payloads
    luna_chain chains[LUNA_PRIORITY_MAX + 1];
} luna_client;

//  The entry of the id, new when there is none. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_clients_open(luna_id_table *clients, const luna_id *id,
                                         luna_client **out);

//  Frees an entry that has no jobs.
void luna_clients_close(luna_id_table *clients, luna_client *client);

//  Appends a job to the chain of its priority, and takes it out again; nothing when it
//  is not in one.
void luna_chain_append(luna_job *job);
void luna_chain_remove(luna_job *job);

#endif
