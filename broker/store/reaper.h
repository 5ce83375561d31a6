//  reaper.h - removes payload files in the background
//
//  Freeing the blocks of a large file takes up to 200 ms, and syncs wait for it. So it
//  is put off for a moment, in which the next operations can have the disk for
//  themselves; several files then go together.
//  A file that could not be removed stays until the next start of the broker.

#ifndef LUNA_BROKER_STORE_REAPER_H
#define LUNA_BROKER_STORE_REAPER_H

#include "broker/store/spool.h"

#include <pthread.h>

typedef struct luna_reaper {
    const luna_spool *spool;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    luna_id *ids;  //  waiting; grows
    size_t count;
    size_t room;
    bool busy;
    bool hurried;  //  somebody waits for it
    bool stopping;
} luna_reaper;

//  Starts the thread. LUNA_NO_MEMORY. The struct must not move afterwards.
LUNA_MUST_USE luna_err luna_reaper_start(luna_reaper *reaper, const luna_spool *spool);

//  Never waits for the disk, unless memory runs out.
void luna_reaper_add(luna_reaper *reaper, const luna_id *id);

//  Waits until everything added is dealt with.
void luna_reaper_drain(luna_reaper *reaper);

//  Drains, then ends the thread.
void luna_reaper_stop(luna_reaper *reaper);

#endif
