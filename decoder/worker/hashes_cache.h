//  hashes_cache.h - the hashes that are known, in memory and on the disk

#ifndef LUNA_WORKER_HASHES_CACHE_H
#define LUNA_WORKER_HASHES_CACHE_H

#include "decoder/sink/sink.h"
#include "decoder/worker/file_key.h"

#include <stddef.h>

#define LUNA_HASHES_MAX      1024       //  in memory; the oldest is forgotten
#define LUNA_HASHES_FILE_MAX (1 << 20)  //  bytes; a longer file is begun anew

typedef struct luna_hash {
    luna_file_key file;
    char sha256[LUNA_SINK_SHA256_BYTES];
} luna_hash;

//  Starts zeroed.
typedef struct luna_hash_list {
    luna_hash items[LUNA_HASHES_MAX];  //  a NULL path: free
    size_t next;
} luna_hash_list;

void luna_hash_list_clear(luna_hash_list *list);

//  That of this version of a file; NULL when there is none.
const luna_hash *luna_hash_list_find(const luna_hash_list *list,
                                     const luna_file_key *file);

//  Copies it into the list, in the place of another version of the file. False without
//  memory.
bool luna_hash_list_put(luna_hash_list *list, const luna_hash *hash);

//  Adds what the file at `path` holds. No file is an empty one; one that cannot be read
//  is logged.
void luna_hash_list_read(const char *path, luna_hash_list *list);

//  Appends a line to the file at `path`, making it and its folder. A failure is logged.
void luna_hash_list_append(const char *path, const luna_hash *hash);

#endif
