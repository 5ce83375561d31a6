//  The outbox at the start and at the end of a client.

#include "producer/luna/client.h"

#include <stdio.h>
#include <stdlib.h>

//  As of a job that was sent: nobody knows whether the former process did.
static luna_err restore(luna_client *client, const luna_outbox_file *file)
{
    luna_entry *entry = calloc(1, sizeof *entry);
    if (!entry) return luna_error(LUNA_NO_MEMORY, "no memory for the jobs of the outbox");
    entry->id = file->name.job;
    entry->order = file->name.order;
    entry->bytes = file->bytes;
    entry->sendings = 1;
    entry->timeout_ms = client->options.receipt_timeout_ms;
    //  A second file of one id waits for the next start.
    if (luna_jobs_restore(&client->jobs, entry) != LUNA_OK) luna_entry_free(entry);
    return LUNA_OK;
}

//  The oldest job says who we are. Should there be others, of a folder that was merged by
//  hand, they wait until a start finds them the oldest.
static luna_err restore_all(luna_client *client, const luna_outbox_file *files,
                            size_t count)
{
    if (count == 0) return LUNA_OK;
    client->id = files[0].name.client;
    for (size_t i = 0; i < count; i++)
        if (luna_id_compare(&files[i].name.client, &client->id) == 0)
            LUNA_TRY(restore(client, &files[i]));
    const uint64_t latest = files[count - 1].name.order;
    if (client->jobs.next_order <= latest) client->jobs.next_order = latest + 1;
    return LUNA_OK;
}

static luna_err open_folder(luna_client *client, const char *dir)
{
    luna_outbox_file *files;
    size_t count;
    luna_keeper *keeper = &client->keeper;
    LUNA_TRY(luna_outbox_open(dir, client->options.outbox_bytes, &keeper->outbox));
    luna_err err = luna_outbox_list(keeper->outbox, &files, &count);
    if (err == LUNA_OK) {
        err = restore_all(client, files, count);
        free(files);
    }
    if (err == LUNA_OK) return LUNA_OK;
    luna_outbox_close(&keeper->outbox);
    luna_jobs_clear(&client->jobs);
    luna_jobs_init(&client->jobs, client->options.queue_bytes);
    return err;
}

luna_err luna_keeper_open(luna_client *client)
{
    const char *dir = client->options.outbox_dir;
    const char *named = dir ? dir : getenv("LUNA_OUTBOX");
    client->options.outbox_dir = NULL;
    if (!named || !named[0]) return LUNA_OK;
    const luna_err err = open_folder(client, named);
    if (err == LUNA_OK || dir) return err;
    luna_notice_begin(&client->notices, LUNA_TROUBLE_FAILED, err, luna_error_text(), 0);
    return LUNA_OK;
}

luna_err luna_keeper_start(luna_client *client)
{
    if (!client->keeper.outbox) return LUNA_OK;
    return luna_client_thread(&client->keeper.thread, luna_keeper_run, client);
}

void luna_keeper_stop(luna_client *client)
{
    luna_keeper *keeper = &client->keeper;
    if (!keeper->outbox) return;
    pthread_mutex_lock(&client->lock);
    keeper->ending = true;
    pthread_cond_signal(&keeper->work);
    pthread_mutex_unlock(&client->lock);
    pthread_join(keeper->thread, NULL);
}

void luna_keeper_close(luna_client *client)
{
    luna_outbox_close(&client->keeper.outbox);
}

const char *luna_keeper_dir(const luna_client *client)
{
    return client->keeper.outbox ? client->keeper.outbox->dir : "";
}
