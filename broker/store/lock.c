#include "broker/store/lock.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static luna_err refuse(int fd, const char *dir)
{
    char text[32] = "";
    const ssize_t n = pread(fd, text, sizeof text - 1, 0);
    const long pid = n > 0 ? strtol(text, NULL, 10) : 0;
    if (pid <= 0)
        return luna_error(LUNA_BUSY, "%s is in use by another luna-broker", dir);
    return luna_error(LUNA_BUSY, "%s is in use by the luna-broker with process id %ld",
                      dir, pid);
}

static luna_err write_pid(int fd, const char *path)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0) return luna_error_errno(LUNA_IO, "cannot write %s", path);
    return luna_write_all(fd, text, (size_t)n, path);
}

luna_err luna_lock_take(const char *dir, const char *name, int *out)
{
    char path[4096];
    LUNA_TRY(luna_path_join(path, sizeof path, dir, name));
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    luna_err err;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        err = write_pid(fd, path);
    else if (errno == EWOULDBLOCK)
        err = refuse(fd, dir);
    else
        err = luna_error_errno(LUNA_IO, "cannot lock %s", path);
    if (err == LUNA_OK)
        *out = fd;
    else
        close(fd);
    return err;
}
