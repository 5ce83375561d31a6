//  real.h - the kernel's own calls, past the ones that this library stands in for
//
//  Made with syscall(2), so that they work before the C library is ready and never
//  come back here. Each returns what the kernel does: -1 with errno on failure.

#ifndef LUNA_TESTS_FAULT_REAL_H
#define LUNA_TESTS_FAULT_REAL_H

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static inline int real_open(int dir, const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static inline int real_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

static inline ssize_t real_write(int fd, const void *data, size_t len)
{
    return syscall(SYS_write, fd, data, len);
}

static inline ssize_t real_pwrite(int fd, const void *data, size_t len, off_t at)
{
    return syscall(SYS_pwrite64, fd, data, len, at);
}

static inline ssize_t real_read(int fd, void *data, size_t len)
{
    return syscall(SYS_read, fd, data, len);
}

static inline ssize_t real_pread(int fd, void *data, size_t len, off_t at)
{
    return syscall(SYS_pread64, fd, data, len, at);
}

static inline int real_rename(int from_dir, const char *from, int to_dir, const char *to,
                              unsigned flags)
{
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

static inline int real_link(int from_dir, const char *from, int to_dir, const char *to,
                            int flags)
{
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

static inline int real_unlink(int dir, const char *path, int flags)
{
    return (int)syscall(SYS_unlinkat, dir, path, flags);
}

static inline int real_mkdir(int dir, const char *path, mode_t mode)
{
    return (int)syscall(SYS_mkdirat, dir, path, mode);
}

static inline int real_truncate(int fd, off_t len)
{
    return (int)syscall(SYS_ftruncate, fd, len);
}

#endif
