//  file.h - the few file operations Luna needs, with whole-or-nothing results
//
//  Every error names the path and what to do where that is known. All functions
//  are thread-safe.

#ifndef LUNA_COMMON_FILE_H
#define LUNA_COMMON_FILE_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

//  A whole file, mapped read-only; pages are loaded when touched.
typedef struct luna_map {
    const uint8_t *data;  //  NULL for an empty file
    size_t len;           //  bytes
} luna_map;

//  Maps `path`. LUNA_NOT_FOUND when there is none, LUNA_IO else. A file cut short
//  by someone else while mapped raises SIGBUS on access: map only files that
//  their owner never truncates.
LUNA_MUST_USE luna_err luna_map_open(const char *path, luna_map *out);
void luna_map_close(luna_map *map);

//  Reads a whole file into memory with a NUL after it; the caller frees *out.
//  LUNA_TOO_LARGE above `max_bytes`; LUNA_NOT_FOUND, LUNA_IO, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_file_read(const char *path, size_t max_bytes, char **out,
                                      size_t *out_len);

//  Writes all bytes, across short writes and EINTR.
LUNA_MUST_USE luna_err luna_write_all(int fd, const void *data, size_t len,
                                      const char *path);

//  Makes a folder and its parents (mode as mkdir), and the names it made durable. An
//  existing folder is fine. LUNA_CANT_CREATE, LUNA_TOO_LARGE; LUNA_IO: not durable.
LUNA_MUST_USE luna_err luna_make_dirs(const char *path, mode_t mode);

//  Makes new and renamed names in the folder `path` durable.
LUNA_MUST_USE luna_err luna_sync_dir(const char *path);

//  Makes the name of the folder `path` durable, in the folder above it. One above that
//  may not be read is not ours to sync: LUNA_OK. LUNA_IO, LUNA_TOO_LARGE.
LUNA_MUST_USE luna_err luna_sync_above(const char *path);

//  Joins with one '/'; LUNA_TOO_LARGE when it does not fit in `room` bytes.
LUNA_MUST_USE luna_err luna_path_join(char *out, size_t room, const char *dir,
                                      const char *name);

//  The path made absolute against the working folder, symlinks kept.
LUNA_MUST_USE luna_err luna_path_absolute(const char *path, char *out, size_t room);

#endif
