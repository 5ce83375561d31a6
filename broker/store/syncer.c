#include "broker/store/syncer.h"

#include <errno.h>

static void sync_one(const luna_syncer *syncer, luna_sync *item)
{
    if (item->code != 0) return;  //  its data is lost already
    const int rc = item->folder ? syncer->files->sync_dir(item->fd)
                                : syncer->files->sync_data(item->fd);
    if (rc != 0) item->code = errno;
}

//  Takes items until there are none. The mutex is held on entry and on return.
static void work_off(luna_syncer *syncer)
{
    while (syncer->next < syncer->count) {
        luna_sync *item = &syncer->items[syncer->next++];
        pthread_mutex_unlock(&syncer->mutex);
        sync_one(syncer, item);
        pthread_mutex_lock(&syncer->mutex);
        if (--syncer->left == 0) pthread_cond_signal(&syncer->done);
    }
}

static void *help(void *argument)
{
    luna_syncer *syncer = argument;
    pthread_mutex_lock(&syncer->mutex);
    while (!syncer->stopping) {
        work_off(syncer);
        if (!syncer->stopping) pthread_cond_wait(&syncer->work, &syncer->mutex);
    }
    pthread_mutex_unlock(&syncer->mutex);
    return NULL;
}

luna_err luna_syncer_start(luna_syncer *syncer, const luna_files *files, size_t threads)
{
    *syncer = (luna_syncer){.files = files};
    pthread_mutex_init(&syncer->mutex, NULL);
    pthread_cond_init(&syncer->work, NULL);
    pthread_cond_init(&syncer->done, NULL);
    while (syncer->thread_count < threads) {
        if (pthread_create(&syncer->threads[syncer->thread_count], NULL, help, syncer) !=
            0) {
            luna_syncer_stop(syncer);
            return luna_error(LUNA_NO_MEMORY, "cannot start a thread of the store");
        }
        syncer->thread_count++;
    }
    return LUNA_OK;
}

void luna_syncer_stop(luna_syncer *syncer)
{
    pthread_mutex_lock(&syncer->mutex);
    syncer->stopping = true;
    pthread_cond_broadcast(&syncer->work);
    pthread_mutex_unlock(&syncer->mutex);
    for (size_t i = 0; i < syncer->thread_count; i++)
        pthread_join(syncer->threads[i], NULL);
    pthread_cond_destroy(&syncer->done);
    pthread_cond_destroy(&syncer->work);
    pthread_mutex_destroy(&syncer->mutex);
}

//  A write that failed is told once only: here, and then not by the sync that follows.
static void settle_all(const luna_syncer *syncer, luna_sync *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        items[i].code = 0;
        if (items[i].folder || syncer->files->settle(items[i].fd) == 0) continue;
        items[i].code = errno;
    }
}

void luna_syncer_run(luna_syncer *syncer, luna_sync *items, size_t count)
{
    settle_all(syncer, items, count);
    pthread_mutex_lock(&syncer->mutex);
    syncer->items = items;
    syncer->count = syncer->left = count;
    syncer->next = 0;
    if (count > 1) pthread_cond_broadcast(&syncer->work);
    work_off(syncer);
    while (syncer->left > 0) pthread_cond_wait(&syncer->done, &syncer->mutex);
    syncer->count = syncer->next = 0;
    pthread_mutex_unlock(&syncer->mutex);
}
