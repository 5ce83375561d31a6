//  outbox.h - the folder that keeps a client's jobs on its own host
//
//  DIR/LOCK            held with flock by the process that owns the folder
//  DIR/tmp/NAME        being written; emptied by the next owner
//  DIR/jobs/NAME       kept: one payload file a job (proto/payload.h)
//  DIR/refused/NAME    what the broker refused, the reason in NAME.reason beside it
//  DIR/damaged/NAME    what is not, or no longer, the job its name says
//
//  NAME is ORDER-JOB-CLIENT: 20 decimal digits that grow with each submission, the job's
//  id, and the routing id that stands in the message. Receipts go to that routing id, so
//  whoever sends these files must use it as its own; the bytes then never change.
//
//  A file is complete and synced before it gets its name in jobs/, and luna_outbox_put
//  succeeds only once that name is durable too. The opposite way is lazy: a removal is
//  durable after luna_outbox_sync. A file that comes back is a job that is sent again,
//  which the broker recognises by its id.
//
//  No thread is made here and nothing is locked: one thread at a time.

#ifndef LUNA_PRODUCER_OUTBOX_H
#define LUNA_PRODUCER_OUTBOX_H

#include "common/err.h"
#include "common/file_ops.h"
#include "common/id.h"
#include "proto/message.h"

#define LUNA_OUTBOX_DIR_BYTES  3968  //  longest DIR, and the NUL
#define LUNA_OUTBOX_PATH_BYTES 4096  //  of any file in it

typedef struct luna_outbox_name {
    uint64_t order;
    luna_id job;
    luna_id client;
} luna_outbox_name;

typedef struct luna_outbox_file {
    luna_outbox_name name;
    uint64_t bytes;  //  of the message; 0 for a file that is too short to hold one
} luna_outbox_file;

typedef struct luna_outbox {
    const luna_file_ops *ops;
    uint64_t max_bytes;    //  of all files, in whole blocks
    uint64_t jobs_bytes;   //  in jobs/
    uint64_t aside_bytes;  //  in refused/ and damaged/
    bool unsynced;         //  names were removed or moved since the last sync
    int lock;              //  file descriptors; -1 when closed
    int jobs, refused, damaged;
    char dir[LUNA_OUTBOX_DIR_BYTES];
} luna_outbox;

//  The table that luna_client_new opens outboxes with; tests put their own here.
extern const luna_file_ops *luna_outbox_ops;

//  Makes the folders, takes the lock and empties tmp/. The caller frees with
//  luna_outbox_close. LUNA_BUSY naming the owner's process id; LUNA_CANT_CREATE,
//  LUNA_IO, LUNA_NO_MEMORY, LUNA_TOO_LARGE for a path that is too long.
LUNA_MUST_USE luna_err luna_outbox_open(const char *dir, uint64_t max_bytes,
                                        luna_outbox **out);

//  Gives up the folder and nulls the pointer. NULL is fine.
void luna_outbox_close(luna_outbox **self);

//  The files of jobs/ in the order of their submission; the caller frees *out. Names of
//  any other form are left alone. LUNA_IO, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_outbox_list(luna_outbox *outbox, luna_outbox_file **out,
                                        size_t *count);

//  Stores a message durably. LUNA_NO_SPACE when the bound or the disk has no room,
//  LUNA_TOO_LARGE when the bound never has; LUNA_CANT_CREATE, LUNA_IO. Nothing is kept
//  then.
LUNA_MUST_USE luna_err luna_outbox_put(luna_outbox *outbox, const luna_outbox_name *name,
                                       luna_blob message);

//  Reads a message of `bytes` into `to` and checks all of it; *priority is the job's.
//  LUNA_BAD_REQUEST for a file that is damaged or cannot be read: it will never be sent.
//  LUNA_NOT_FOUND when it is gone; LUNA_IO when it cannot be opened now.
LUNA_MUST_USE luna_err luna_outbox_get(luna_outbox *outbox, const luna_outbox_name *name,
                                       void *to, uint64_t bytes, uint64_t *priority);

//  Removes a file from jobs/; none being there is fine. LUNA_IO.
LUNA_MUST_USE luna_err luna_outbox_remove(luna_outbox *outbox,
                                          const luna_outbox_name *name, uint64_t bytes);

//  Moves a file from jobs/ to refused/, with one sentence beside it, or to damaged/.
//  `path` then has its new place. LUNA_IO, LUNA_NO_SPACE, LUNA_NOT_FOUND: it stays.
LUNA_MUST_USE luna_err luna_outbox_refuse(luna_outbox *outbox,
                                          const luna_outbox_name *name, uint64_t bytes,
                                          const char *reason,
                                          char path[LUNA_OUTBOX_PATH_BYTES]);
LUNA_MUST_USE luna_err luna_outbox_set_aside(luna_outbox *outbox,
                                             const luna_outbox_name *name, uint64_t bytes,
                                             char path[LUNA_OUTBOX_PATH_BYTES]);

//  Makes removals and moves durable. LUNA_IO.
LUNA_MUST_USE luna_err luna_outbox_sync(luna_outbox *outbox);

//  ---- for the files of this class only --------------------------------------------

#define LUNA_OUTBOX_NAME_BYTES 96  //  20 + 1 + 36 + 1 + 36 and the NUL

//  DIR/folder/NAME and the suffix, of at most 10 characters.
void luna_outbox_path(const luna_outbox *outbox, const char *folder,
                      const luna_outbox_name *name, const char *suffix,
                      char path[LUNA_OUTBOX_PATH_BYTES]);

//  Adds the sizes of the files in a folder, in whole blocks; 0 when it cannot be read.
uint64_t luna_outbox_measure(const luna_outbox *outbox, const char *folder);

//  A file of so many bytes as the bound counts it: in blocks of 4 KiB, so that small
//  jobs are bounded too.
uint64_t luna_outbox_blocks(uint64_t bytes);

#endif
