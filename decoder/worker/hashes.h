//  hashes.h - which file a VAE is: its SHA-256, computed aside and remembered
//
//  The hash is that of the whole file, the number by which Hugging Face (its LFS object
//  id), Civitai (AutoV2: its first 10 digits) and sha256sum know it, so that a record of
//  a picture leads to the file that made it. A file is read for it once: a thread of low
//  priority does, from the time the file is first decoded with; what it found is kept,
//  also on the disk, for files of the same path, size, time and inode. Nothing is decoded
//  or saved later for it. An attempt that ends before the hash is known is held until it
//  is, but not for longer than a limit: a checkpoint on a slow disk takes a minute, and
//  pictures that are saved should not miss a deadline for it. Then, and when it cannot be
//  computed, the hash is left out; the attempts after it have it.
//
//  The file of the cache has a line a file: SHA256 BYTES CHANGED_NS INODE PATH. Several
//  decoders append to it; of two lines for one path the latter counts; what is no such
//  line is passed over. It may be deleted at any time.
//
//  Thread-safe.

#ifndef LUNA_WORKER_HASHES_H
#define LUNA_WORKER_HASHES_H

#include "decoder/worker/attempts.h"
#include "decoder/worker/file_key.h"

typedef struct luna_hashes luna_hashes;

typedef struct luna_hashes_options {
    const char *cache;        //  path of the cache's file, its folder is made; NULL: none
    uint64_t kept_bytes_min;  //  smaller files are quicker read anew than kept
    int64_t wait_ms;          //  an attempt is held so long at most
    //  Called between pieces of a file that is read; or NULL.
    void (*step)(void *context);
    void *context;
} luna_hashes_options;

//  Reads the cache and starts the thread. A cache that cannot be read or written is
//  logged and done without. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_hashes_start(const luna_hashes_options *options,
                                         luna_hashes **out);

//  Has the hash of this version of a file computed, unless it is known.
void luna_hashes_begin(luna_hashes *hashes, const luna_file_key *file);

//  Notes the hash with the attempt, which is held until it is known or wait_ms are over.
void luna_hashes_tell(luna_hashes *hashes, const luna_file_key *file,
                      luna_attempt *attempt);

//  Gives up what is being computed, lets the attempts go that wait, ends the thread,
//  nulls the pointer; NULL is fine.
void luna_hashes_stop(luna_hashes **hashes);

#endif
