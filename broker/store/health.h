//  health.h - whether the disk can still be trusted with new jobs
//
//  Set once, by the store's thread, read by any. After a failed sync the kernel may
//  have dropped the data and marked it clean: a second sync that succeeds proves
//  nothing, so the first failure stands until the broker is started again.

#ifndef LUNA_BROKER_STORE_HEALTH_H
#define LUNA_BROKER_STORE_HEALTH_H

#include "common/err.h"

#include <pthread.h>
#include <stddef.h>

typedef struct luna_health {
    pthread_mutex_t mutex;
    bool bad;
    char why[512];
} luna_health;

void luna_health_start(luna_health *health);
void luna_health_stop(luna_health *health);

//  Judges the result of a sync or commit and returns it: LUNA_IO makes the store
//  read-only, with the calling thread's sentence as the reason; logs it once.
luna_err luna_health_judge(luna_health *health, luna_err err);

//  Makes the store read-only for the calling thread's sentence; the first one stands.
void luna_health_spoil(luna_health *health);

//  False with the reason in `why` (NULL: not wanted) once the store is read-only.
bool luna_health_good(luna_health *health, char *why, size_t room);

#endif
