#define _GNU_SOURCE  //  sync_file_range

#include "broker/store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int allocate(int fd, off_t bytes)
{
    int code;
    do code = posix_fallocate(fd, 0, bytes);
    while (code == EINTR);
    errno = code;
    return code == 0 ? 0 : -1;
}

static int cut(int fd)
{
    return ftruncate(fd, 0);
}

//  Where the call is not to be had, sync_data does it all.
static int settle(int fd)
{
    const unsigned how =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (sync_file_range(fd, 0, 0, how) == 0) return 0;
    return errno == EIO || errno == ENOSPC || errno == EDQUOT ? -1 : 0;
}

static int free_bytes(const char *path, uint64_t *out)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0) return -1;
    *out = (uint64_t)info.f_bavail * info.f_frsize;
    return 0;
}

const luna_files luna_files_system = {
    .allocate = allocate,
    .cut = cut,
    .write = write,
    .settle = settle,
    .sync_data = fdatasync,
    .sync_dir = fsync,
    .rename = rename,
    .unlink = unlink,
    .free_bytes = free_bytes,
};

void luna_files_write_early(int fd, off_t at, off_t len)
{
    (void)sync_file_range(fd, at, len, SYNC_FILE_RANGE_WRITE);
}
