//  ballast.h - disk kept in hand, so that what was accepted can be finished
//
//      STATE/ballast   a file of a fixed size with nothing in it
//
//  Ending a job needs some room for its row. When the disk has none left, the ballast
//  is given up, which makes room at once, and no job is accepted until it could be taken
//  again. Used by the store's thread; luna_ballast_spent by any.

#ifndef LUNA_BROKER_STORE_BALLAST_H
#define LUNA_BROKER_STORE_BALLAST_H

#include "broker/store/files.h"
#include "common/err.h"

#include <stdatomic.h>

typedef struct luna_ballast {
    const luna_files *files;
    char dir[4096];
    int fd;  //  -1: not open
    uint64_t bytes;
    int64_t tried_ms;  //  when it was tried to take it again
    atomic_bool spent;
} luna_ballast;

//  Takes `bytes` in the folder. A disk that has not got them is no error: the ballast
//  counts as spent. LUNA_CANT_CREATE, LUNA_TOO_LARGE (the path).
LUNA_MUST_USE luna_err luna_ballast_open(luna_ballast *ballast, const char *dir,
                                         uint64_t bytes, const luna_files *files);
void luna_ballast_close(luna_ballast *ballast);

//  Gives it up. False when that has been done before: there is nothing more to give.
bool luna_ballast_spend(luna_ballast *ballast);

//  Tries to take it again, once a second at most. LUNA_OK when it is there, else
//  LUNA_NO_SPACE with a sentence.
LUNA_MUST_USE luna_err luna_ballast_restore(luna_ballast *ballast);

bool luna_ballast_spent(const luna_ballast *ballast);

#endif
