//  files.c - stands in for the C library's file calls, in a program that is being tested
//
//  LD_PRELOADed with FAULTFS_ROOT=FOLDER and FAULTFS_STATE=FOLDER (both on one file
//  system) each call below that changes a file under the root, or opens one, is a step of
//  plan.h and is entered in disk.h. A step holds the lock, so steps happen one after the
//  other. Without FAULTFS_ROOT, and for everything else, the calls do what they always
//  do.

#define _GNU_SOURCE

#include "tests/fault/preload/disk.h"
#include "tests/fault/preload/plan.h"
#include "tests/fault/preload/real.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define STANDS_IN __attribute__((visibility("default")))

static __attribute__((constructor)) void start(void)
{
    const char *root = getenv("FAULTFS_ROOT"), *state = getenv("FAULTFS_STATE");
    const char *journal = getenv("FAULTFS_JOURNAL");
    if (!root || !state) return;
    plan_start();
    if (!disk_open(state, root, journal && *journal == '1')) _exit(99);
}

//  ---- one step ------------------------------------------------------------------------

typedef struct step {
    verdict verdict;
    int code;
} step;

//  Takes the lock, which step_end gives back.
static step step_begin(call what, const char *file)
{
    step s = {VERDICT_GO, 0};
    disk_lock();
    s.verdict = plan_take(what, file, &s.code);
    return s;
}

static long step_end(const step *s, long result)
{
    const int code = errno;
    if (s->verdict == VERDICT_LAST) plan_die();
    disk_unlock();
    errno = s->verdict == VERDICT_FAIL ? s->code : code;
    return s->verdict == VERDICT_FAIL ? -1 : result;
}

static bool fails(const step *s)
{
    return s->verdict == VERDICT_FAIL;
}

static step step_at(call what, const disk_place *at)
{
    char file[DISK_NAME_BYTES];
    disk_label(at->folder, at->name, file);
    return step_begin(what, file);
}

//  ---- open and close
//  --------------------------------------------------------------------

static bool exists(int dir, const char *path)
{
    struct stat seen;
    const int code = errno;
    const bool found = fstatat(dir, path, &seen, AT_SYMLINK_NOFOLLOW) == 0;
    errno = code;
    return found;
}

static int open_any(int dir, const char *path, int flags, mode_t mode)
{
    const disk_place at = disk_place_of(dir, path);
    if (!at.folder) return real_open(dir, path, flags, mode);
    const bool makes = (flags & O_CREAT) && !exists(dir, path);
    const step s = step_at(makes ? CALL_CREATE : CALL_OPEN, &at);
    const int fd = fails(&s) ? -1 : real_open(dir, path, flags, mode);
    if (fd >= 0 && makes) disk_made(&at, dir, path);
    return (int)step_end(&s, fd);
}

static mode_t mode_of(int flags, va_list rest)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                       \
    STANDS_IN int name(const char *path, int flags, ...) \
    {                                                    \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        const mode_t mode = mode_of(flags, rest);        \
        va_end(rest);                                    \
        return open_any(AT_FDCWD, path, flags, mode);    \
    }

#define OPENAT(name)                                              \
    STANDS_IN int name(int dir, const char *path, int flags, ...) \
    {                                                             \
        va_list rest;                                             \
        va_start(rest, flags);                                    \
        const mode_t mode = mode_of(flags, rest);                 \
        va_end(rest);                                             \
        return open_any(dir, path, flags, mode);                  \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

STANDS_IN int creat(const char *path, mode_t mode)
{
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

STANDS_IN int creat64(const char *path, mode_t mode)
{
    return creat(path, mode);
}

static bool is_written(int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

//  A close that fails has closed all the same.
STANDS_IN int close(int fd)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node || !is_written(fd)) return real_close(fd);
    const step s = step_begin(CALL_CLOSE, disk_name(node));
    return (int)step_end(&s, real_close(fd));
}

//  ---- write -------------------------------------------------------------------------

static size_t part_of(const step *s, size_t len)
{
    const bool half = s->verdict == VERDICT_HALF || s->verdict == VERDICT_LAST;
    return half ? (len + 1) / 2 : len;
}

STANDS_IN ssize_t write(int fd, const void *data, size_t len)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node) return real_write(fd, data, len);
    const step s = step_begin(CALL_WRITE, disk_name(node));
    return step_end(&s, fails(&s) ? -1 : real_write(fd, data, part_of(&s, len)));
}

STANDS_IN ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node) return real_pwrite(fd, data, len, at);
    const step s = step_begin(CALL_WRITE, disk_name(node));
    return step_end(&s, fails(&s) ? -1 : real_pwrite(fd, data, part_of(&s, len), at));
}

STANDS_IN ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    return pwrite(fd, data, len, at);
}

//  A vector that is cut has its first piece cut, which a short write may do.
static step vector_begin(uint32_t node, const struct iovec *pieces, int count,
                         struct iovec *first)
{
    const step s = step_begin(CALL_WRITE, disk_name(node));
    if (count > 0)
        *first = (struct iovec){pieces->iov_base, part_of(&s, pieces->iov_len)};
    return s;
}

STANDS_IN ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    struct iovec first = {NULL, 0};
    const uint32_t node = disk_of_fd(fd);
    if (!node) return syscall(SYS_writev, fd, pieces, count);
    const step s = vector_begin(node, pieces, count, &first);
    const bool all = s.verdict == VERDICT_GO;
    if (fails(&s)) return step_end(&s, -1);
    return step_end(&s, syscall(SYS_writev, fd, all ? pieces : &first, all ? count : 1));
}

STANDS_IN ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at)
{
    struct iovec first = {NULL, 0};
    const uint32_t node = disk_of_fd(fd);
    if (!node) return syscall(SYS_pwritev, fd, pieces, count, at, 0);
    const step s = vector_begin(node, pieces, count, &first);
    const bool all = s.verdict == VERDICT_GO;
    if (fails(&s)) return step_end(&s, -1);
    return step_end(
        &s, syscall(SYS_pwritev, fd, all ? pieces : &first, all ? count : 1, at, 0));
}

STANDS_IN ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t at)
{
    return pwritev(fd, pieces, count, at);
}

//  ---- read ----------------------------------------------------------------------------

STANDS_IN ssize_t read(int fd, void *data, size_t len)
{
    const uint32_t node = plan_reads() ? disk_of_fd(fd) : 0;
    if (!node) return real_read(fd, data, len);
    const step s = step_begin(CALL_READ, disk_name(node));
    return step_end(&s, fails(&s) ? -1 : real_read(fd, data, len));
}

STANDS_IN ssize_t pread(int fd, void *data, size_t len, off_t at)
{
    const uint32_t node = plan_reads() ? disk_of_fd(fd) : 0;
    if (!node) return real_pread(fd, data, len, at);
    const step s = step_begin(CALL_READ, disk_name(node));
    return step_end(&s, fails(&s) ? -1 : real_pread(fd, data, len, at));
}

STANDS_IN ssize_t pread64(int fd, void *data, size_t len, off64_t at)
{
    return pread(fd, data, len, at);
}

static void *real_map(void *at, size_t len, int access, int flags, int fd, off_t from)
{
    return (void *)syscall(SYS_mmap, at, len, access, flags, fd, from);
}

//  Pages that cannot be read raise SIGBUS; so do those of a file that has none.
static void *map_nothing(size_t len, int access)
{
    const int fd = memfd_create("unreadable", MFD_CLOEXEC);
    void *data = real_map(NULL, len, access, MAP_PRIVATE, fd, 0);
    real_close(fd);
    return data;
}

STANDS_IN void *mmap(void *at, size_t len, int access, int flags, int fd, off_t from)
{
    const bool counts = plan_reads() && fd >= 0 && (flags & MAP_PRIVATE);
    const uint32_t node = counts ? disk_of_fd(fd) : 0;
    if (!node) return real_map(at, len, access, flags, fd, from);
    step s = step_begin(CALL_MAP, disk_name(node));
    void *data =
        fails(&s) ? map_nothing(len, access) : real_map(at, len, access, flags, fd, from);
    s.verdict = VERDICT_GO;
    (void)step_end(&s, 0);
    return data;
}

STANDS_IN void *mmap64(void *at, size_t len, int access, int flags, int fd, off64_t from)
{
    return mmap(at, len, access, flags, fd, from);
}

//  ---- room ----------------------------------------------------------------------------

STANDS_IN int fallocate(int fd, int mode, off_t at, off_t len)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node) return (int)syscall(SYS_fallocate, fd, mode, at, len);
    const step s = step_begin(CALL_ALLOCATE, disk_name(node));
    return (int)step_end(&s, fails(&s) ? -1 : syscall(SYS_fallocate, fd, mode, at, len));
}

STANDS_IN int fallocate64(int fd, int mode, off64_t at, off64_t len)
{
    return fallocate(fd, mode, at, len);
}

//  Returns the error instead of setting errno.
STANDS_IN int posix_fallocate(int fd, off_t at, off_t len)
{
    const int before = errno;
    const int code = fallocate(fd, 0, at, len) == 0 ? 0 : errno;
    errno = before;
    return code;
}

STANDS_IN int posix_fallocate64(int fd, off64_t at, off64_t len)
{
    return posix_fallocate(fd, at, len);
}

STANDS_IN int ftruncate(int fd, off_t len)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node) return real_truncate(fd, len);
    const step s = step_begin(CALL_TRUNCATE, disk_name(node));
    return (int)step_end(&s, fails(&s) ? -1 : real_truncate(fd, len));
}

STANDS_IN int ftruncate64(int fd, off64_t len)
{
    return ftruncate(fd, len);
}

STANDS_IN int truncate(const char *path, off_t len)
{
    const uint32_t node = disk_of_path(AT_FDCWD, path);
    if (!node) return (int)syscall(SYS_truncate, path, len);
    const step s = step_begin(CALL_TRUNCATE, disk_name(node));
    return (int)step_end(&s, fails(&s) ? -1 : syscall(SYS_truncate, path, len));
}

STANDS_IN int truncate64(const char *path, off64_t len)
{
    return truncate(path, len);
}

//  ---- sync ----------------------------------------------------------------------------

static int sync_any(int fd, uint32_t node)
{
    const step s = step_begin(CALL_SYNC, disk_name(node));
    if (!fails(&s)) disk_synced(fd, node);
    return (int)step_end(&s, 0);
}

STANDS_IN int fsync(int fd)
{
    const uint32_t node = disk_of_fd(fd);
    return node ? sync_any(fd, node) : (int)syscall(SYS_fsync, fd);
}

STANDS_IN int fdatasync(int fd)
{
    const uint32_t node = disk_of_fd(fd);
    return node ? sync_any(fd, node) : (int)syscall(SYS_fdatasync, fd);
}

STANDS_IN int sync_file_range(int fd, off64_t at, off64_t len, unsigned flags)
{
    const uint32_t node = disk_of_fd(fd);
    if (!node) return (int)syscall(SYS_sync_file_range, fd, at, len, flags);
    const step s = step_begin(CALL_START, disk_name(node));
    return (int)step_end(&s, 0);
}

//  ---- names ---------------------------------------------------------------------------

STANDS_IN int renameat2(int from_dir, const char *from, int to_dir, const char *to,
                        unsigned flags)
{
    const disk_place a = disk_place_of(from_dir, from), b = disk_place_of(to_dir, to);
    if (!a.folder && !b.folder) return real_rename(from_dir, from, to_dir, to, flags);
    const step s = step_at(CALL_RENAME, b.folder ? &b : &a);
    const int rc = fails(&s) ? -1 : real_rename(from_dir, from, to_dir, to, flags);
    if (rc == 0) disk_renamed(&a, &b, to_dir, to);
    return (int)step_end(&s, rc);
}

STANDS_IN int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return renameat2(from_dir, from, to_dir, to, 0);
}

STANDS_IN int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

STANDS_IN int linkat(int from_dir, const char *from, int to_dir, const char *to,
                     int flags)
{
    const disk_place at = disk_place_of(to_dir, to);
    if (!at.folder) return real_link(from_dir, from, to_dir, to, flags);
    const step s = step_at(CALL_LINK, &at);
    const int rc = fails(&s) ? -1 : real_link(from_dir, from, to_dir, to, flags);
    if (rc == 0) disk_made(&at, to_dir, to);
    return (int)step_end(&s, rc);
}

STANDS_IN int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

STANDS_IN int unlinkat(int dir, const char *path, int flags)
{
    const disk_place at = disk_place_of(dir, path);
    if (!at.folder) return real_unlink(dir, path, flags);
    const step s = step_at(CALL_UNLINK, &at);
    const int rc = fails(&s) ? -1 : real_unlink(dir, path, flags);
    if (rc == 0) disk_removed(&at);
    return (int)step_end(&s, rc);
}

STANDS_IN int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

STANDS_IN int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

STANDS_IN int mkdirat(int dir, const char *path, mode_t mode)
{
    const disk_place at = disk_place_of(dir, path);
    if (!at.folder || exists(dir, path)) return real_mkdir(dir, path, mode);
    const step s = step_at(CALL_MKDIR, &at);
    const int rc = fails(&s) ? -1 : real_mkdir(dir, path, mode);
    if (rc == 0) disk_made(&at, dir, path);
    return (int)step_end(&s, rc);
}

STANDS_IN int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
