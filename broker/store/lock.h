//  lock.h - one process owns a folder
//
//  A lock file that is held with flock and contains the owner's process id. The
//  kernel drops the lock when the owner dies, however that happens.

#ifndef LUNA_BROKER_STORE_LOCK_H
#define LUNA_BROKER_STORE_LOCK_H

#include "common/err.h"

//  Takes the lock `name` in `dir`. *fd holds it until it is closed; the file stays.
//  LUNA_BUSY naming the folder and the owner's process id; LUNA_CANT_CREATE.
LUNA_MUST_USE luna_err luna_lock_take(const char *dir, const char *name, int *fd);

#endif
