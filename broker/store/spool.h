//  spool.h - the payload files
//
//  A payload is written under tmp/, renamed into ready/ and synced there, together with
//  the folder: one commit of the file system's journal takes its blocks and its name.
//  A file in ready/ may so be one whose bytes were lost; its header says what they were.
//  The space is allocated before the first byte, so that a full disk is found out early
//  and for one job only.

#ifndef LUNA_BROKER_STORE_SPOOL_H
#define LUNA_BROKER_STORE_SPOOL_H

#include "broker/store/files.h"
#include "common/file.h"
#include "proto/payload.h"

#define LUNA_SPOOL_PATH_BYTES 4096

typedef struct luna_spool {
    const luna_files *files;
    uint64_t reserve_bytes;
    int lock;   //  file descriptors; -1 when closed
    int ready;  //  the folder
    char dir[LUNA_SPOOL_PATH_BYTES];
} luna_spool;

//  Whether `need` bytes fit beside the reserve. LUNA_NO_SPACE with the numbers, LUNA_IO.
//  Any thread.
LUNA_MUST_USE luna_err luna_spool_room(const luna_spool *spool, uint64_t need);

//  Makes the folders, takes SPOOL/LOCK and empties tmp/. LUNA_BUSY,
//  LUNA_CANT_CREATE, LUNA_IO; nothing is held then.
LUNA_MUST_USE luna_err luna_spool_open(luna_spool *spool, const char *dir,
                                       uint64_t reserve_bytes, const luna_files *files);
void luna_spool_close(luna_spool *spool);

//  Writes header and body under tmp/ and starts the write-back; *fd is the caller's to
//  sync and close, payload->hash is set. On failure the file is gone again:
//  LUNA_NO_SPACE with the bytes needed and free, LUNA_CANT_CREATE, LUNA_IO.
LUNA_MUST_USE luna_err luna_spool_write(const luna_spool *spool, luna_payload *payload,
                                        int *fd);

//  Gives a written file its name in ready/; not durable yet. LUNA_IO: it is gone.
LUNA_MUST_USE luna_err luna_spool_publish(const luna_spool *spool, const luna_id *id);

//  Makes the bytes of ready/<id> durable, whoever has written them. LUNA_IO.
LUNA_MUST_USE luna_err luna_spool_sync_file(const luna_spool *spool, const luna_id *id);

//  Makes all names in ready/ durable, new and removed ones. LUNA_IO.
LUNA_MUST_USE luna_err luna_spool_sync(const luna_spool *spool);

//  Removes a payload; none being there is fine. LUNA_IO.
LUNA_MUST_USE luna_err luna_spool_remove(const luna_spool *spool, const luna_id *id);

//  ready/<id>.
LUNA_MUST_USE luna_err luna_spool_path(const luna_spool *spool, const luna_id *id,
                                       char *out, size_t room);

//  Reads the header of ready/<id> and checks it, the file's length and the id; the
//  body is not read. LUNA_NOT_FOUND ("missing"), LUNA_IO ("damaged"), LUNA_UNAVAILABLE
//  when the disk does not give it now.
LUNA_MUST_USE luna_err luna_spool_check(const luna_spool *spool, const luna_id *id);

//  Reads ready/<id> whole and checks all of it. *out borrows *file, which the caller
//  frees. Not mapped: a disk that fails under a mapping would end the process. A header
//  that does not say when the job was accepted gets the time the file was written.
//  Errors as luna_spool_check, and LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_spool_read(const luna_spool *spool, const luna_id *id,
                                       char **file, luna_payload *out);

//  Moves ready/<name> into quarantine/. LUNA_IO; none being there is fine.
LUNA_MUST_USE luna_err luna_spool_quarantine(const luna_spool *spool, const char *name);

#endif
