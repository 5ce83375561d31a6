//  files.h - the file operations of the spool, behind a table
//
//  Tests replace single entries to make the N-th call fail or die. All behave as the
//  system calls of their name: -1 and errno on failure. They are called from the
//  store's threads.

#ifndef LUNA_BROKER_STORE_FILES_H
#define LUNA_BROKER_STORE_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct luna_files {
    int (*allocate)(int fd, off_t bytes);  //  blocks for them, so no write lacks room
    int (*cut)(int fd);                    //  ftruncate to nothing
    ssize_t (*write)(int fd, const void *data, size_t len);
    int (*settle)(int fd);     //  waits until what was written has reached the disk; its
                               //  blocks and the disk's cache are left to sync_data
    int (*sync_data)(int fd);  //  fdatasync
    int (*sync_dir)(int fd);   //  fsync of a folder
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*free_bytes)(const char *path, uint64_t *out);  //  for ordinary users
} luna_files;

extern const luna_files luna_files_system;

//  Asks the kernel to start writing these bytes out, so that the sync that follows
//  finds little left to do. Advice only.
void luna_files_write_early(int fd, off_t at, off_t len);

#endif
