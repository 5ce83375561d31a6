#define _GNU_SOURCE  //  sync_file_range

#include "common/file_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)1 << 20)

static int allocate(int fd, off_t bytes)
{
    int code;
    do code = posix_fallocate(fd, 0, bytes);
    while (code == EINTR);
    errno = code;
    return code == 0 ? 0 : -1;
}

const luna_file_ops luna_file_ops_system = {
    .allocate = allocate,
    .write = write,
    .read = pread,
    .sync_data = fdatasync,
    .sync_dir = fsync,
    .rename = rename,
    .unlink = unlink,
};

int luna_file_ops_write(const luna_file_ops *ops, int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        const ssize_t n = ops->write(fd, at, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

//  Pieces end at whole MiB of the file, so that a page whose write-back has been started
//  is not written to again.
int luna_file_ops_write_early(const luna_file_ops *ops, int fd, const void *data,
                              size_t len, off_t at)
{
    const char *from = data;
    while (len > 0) {
        const size_t to_edge = PIECE_BYTES - (size_t)at % PIECE_BYTES;
        const size_t n = len < to_edge ? len : to_edge;
        if (luna_file_ops_write(ops, fd, from, n) != 0) return -1;
        (void)sync_file_range(fd, at, (off_t)n, SYNC_FILE_RANGE_WRITE);
        from += n;
        at += (off_t)n;
        len -= n;
    }
    return 0;
}

int luna_file_ops_read(const luna_file_ops *ops, int fd, void *data, size_t len, off_t at)
{
    char *to = data;
    while (len > 0) {
        const ssize_t n = ops->read(fd, to, len, at);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = EIO;
        if (n <= 0) return -1;
        to += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
