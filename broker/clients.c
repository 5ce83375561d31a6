#include "broker/clients.h"

#include <stdlib.h>

luna_err luna_clients_open(luna_id_table *clients, const luna_id *id, luna_client **out)
{
    luna_client *client = luna_id_table_find(clients, id);
    if (!client) {
        LUNA_TRY(luna_id_table_reserve(clients));
        client = calloc(1, sizeof *client);
        if (!client) return luna_error(LUNA_NO_MEMORY, "no memory for one more client");
        client->id = *id;
        luna_id_table_add(clients, client);
    }
    *out = client;
    return LUNA_OK;
}

void luna_clients_close(luna_id_table *clients, luna_client *client)
{
    if (client->jobs > 0) return;
    luna_id_table_remove(clients, &client->id);
    free(client);
}

void luna_chain_append(luna_job *job)
{
    luna_chain *chain = &job->client->chains[job->priority];
    job->chained = true;
    job->chain_before = chain->last;
    job->chain_after = NULL;
    if (chain->last) chain->last->chain_after = job;
    chain->last = job;
}

void luna_chain_remove(luna_job *job)
{
    luna_chain *chain = &job->client->chains[job->priority];
    if (!job->chained) return;
    job->chained = false;
    if (job->chain_before) job->chain_before->chain_after = job->chain_after;
    if (job->chain_after)
        job->chain_after->chain_before = job->chain_before;
    else
        chain->last = job->chain_before;
}
