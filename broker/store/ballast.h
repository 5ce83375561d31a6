//  ballast.h - room that is set aside for the end of jobs
//
//  A file of allocated bytes in the state folder. When the disk is full and something
//  that must be recorded finds no room, the ballast is thrown off: what it took is free
//  then, and is more than the jobs that are there need to come to their end. No job is
//  accepted until as much could be set aside again.

#ifndef LUNA_BROKER_STORE_BALLAST_H
#define LUNA_BROKER_STORE_BALLAST_H

#include "broker/store/files.h"
#include "common/err.h"

#include <stdatomic.h>

typedef struct luna_ballast {
    const luna_files *files;
    uint64_t bytes;
    int fd;             //  -1: closed
    atomic_bool spent;  //  read by any thread
    int64_t due_ms;     //  monotonic: of the next try to set it aside again
    char path[4096];
} luna_ballast;

//  Opens or makes DIR/reserve, `bytes` long. When there is no room for it, it counts as
//  spent: that is no error. LUNA_CANT_CREATE, LUNA_IO.
LUNA_MUST_USE luna_err luna_ballast_open(luna_ballast *ballast, const char *dir,
                                         uint64_t bytes, const luna_files *files);
void luna_ballast_close(luna_ballast *ballast);

//  Frees its bytes; one line in the log. False when that has been done before, or has
//  failed.
bool luna_ballast_spend(luna_ballast *ballast);

//  Sets it aside again if it was spent and that was not tried within the last second.
void luna_ballast_restore(luna_ballast *ballast, int64_t now_ms);

//  LUNA_NO_SPACE with the sentence for people while it is spent. Any thread.
LUNA_MUST_USE luna_err luna_ballast_check(const luna_ballast *ballast);

#endif
