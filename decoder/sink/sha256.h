//  sha256.h - the hash that names a file's content in records, events and databases

#ifndef LUNA_SINK_SHA256_H
#define LUNA_SINK_SHA256_H

#include "decoder/sink/sink.h"

//  Lower-case hex of the SHA-256 of `len` bytes. LUNA_INTERNAL when libcrypto refuses.
LUNA_MUST_USE luna_err luna_sha256(const void *data, size_t len,
                                   char hex[LUNA_SINK_SHA256_BYTES]);

//  The same of all the bytes of an open file, from its beginning; `path` is for the
//  error. Also gives their count. LUNA_IO when reading fails.
LUNA_MUST_USE luna_err luna_sha256_file(int fd, const char *path,
                                        char hex[LUNA_SINK_SHA256_BYTES],
                                        uint64_t *bytes);

//  Called between pieces of a file; false gives it up (LUNA_CANCELLED).
typedef struct luna_sha256_watch {
    bool (*go_on)(void *context);
    void *context;
} luna_sha256_watch;

//  luna_sha256_file, watched.
LUNA_MUST_USE luna_err luna_sha256_file_watched(int fd, const char *path,
                                                const luna_sha256_watch *watch,
                                                char hex[LUNA_SINK_SHA256_BYTES],
                                                uint64_t *bytes);

#endif
