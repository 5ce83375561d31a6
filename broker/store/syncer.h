//  syncer.h - makes several files and their folder durable at once
//
//  A sync waits for the journal of the file system and for a flush of the disk; several
//  that wait together share both. So the data of all files is first waited for, and
//  then every file and the folder are synced side by side by a few threads: a batch
//  costs about what one file costs. In which order they come to an end does not matter,
//  because none of them is believed in before all have succeeded (store.h).

#ifndef LUNA_BROKER_STORE_SYNCER_H
#define LUNA_BROKER_STORE_SYNCER_H

#include "broker/store/files.h"
#include "common/err.h"

#include <pthread.h>

#define LUNA_SYNCER_THREADS 3  //  beside the caller's

typedef struct luna_sync {
    int fd;
    bool folder;
    int code;  //  errno of the failure; 0: durable
} luna_sync;

typedef struct luna_syncer {
    const luna_files *files;
    pthread_t threads[LUNA_SYNCER_THREADS];
    size_t thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
    luna_sync *items;  //  of the run in hand
    size_t count;
    size_t next;  //  first that nobody has taken
    size_t left;  //  not done
    bool stopping;
} luna_syncer;

//  `threads` of 0 to LUNA_SYNCER_THREADS help; with 0 the items are synced one after
//  the other in their order. LUNA_NO_MEMORY. The struct must not move afterwards.
LUNA_MUST_USE luna_err luna_syncer_start(luna_syncer *syncer, const luna_files *files,
                                         size_t threads);
void luna_syncer_stop(luna_syncer *syncer);

//  Syncs all items and sets their codes; blocks until all are done. One thread at a time.
void luna_syncer_run(luna_syncer *syncer, luna_sync *items, size_t count);

#endif
