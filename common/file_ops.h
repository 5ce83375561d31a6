//  file_ops.h - the operations that make a file durable, behind a table
//
//  Tests replace single entries to make the N-th call fail, or die in it. All behave as
//  the system calls of their name: -1 and errno on failure. Thread-safe.

#ifndef LUNA_COMMON_FILE_OPS_H
#define LUNA_COMMON_FILE_OPS_H

#include <stddef.h>
#include <sys/types.h>

typedef struct luna_file_ops {
    int (*allocate)(int fd, off_t bytes);  //  blocks for them, so no write lacks room
    ssize_t (*write)(int fd, const void *data, size_t len);
    ssize_t (*read)(int fd, void *data, size_t len, off_t at);
    int (*sync_data)(int fd);  //  fdatasync
    int (*sync_dir)(int fd);   //  fsync of a folder
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
} luna_file_ops;

extern const luna_file_ops luna_file_ops_system;

//  Writes all bytes, across short writes and EINTR. 0, or -1 and errno.
int luna_file_ops_write(const luna_file_ops *ops, int fd, const void *data, size_t len);

//  As luna_file_ops_write, and starts the write-back of each MiB while the next one is
//  copied, so that the sync that follows finds little left to do. `at` is the file's
//  position.
int luna_file_ops_write_early(const luna_file_ops *ops, int fd, const void *data,
                              size_t len, off_t at);

//  Reads exactly `len` bytes from `at`. 0, or -1 and errno; EIO when the file is shorter.
int luna_file_ops_read(const luna_file_ops *ops, int fd, void *data, size_t len,
                       off_t at);

#endif
