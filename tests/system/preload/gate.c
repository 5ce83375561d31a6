//  gate.c - holds a program where it opens a file, as a disk that is slow to answer does
//
//  LD_PRELOADed with GATE_FILE=NAME and GATE=PATH, opening a file of that name waits until
//  there is nothing at PATH any more. NAME.at-gate is made beside PATH when one waits.

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int open(const char *path, int flags, ...);

static int really_open(const char *path, int flags, unsigned mode)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void wait_at(const char *gate)
{
    char mark[4096];
    snprintf(mark, sizeof mark, "%s.at-gate", gate);
    const int fd = really_open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    while (access(gate, F_OK) == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    (void)unlink(mark);
}

__attribute__((visibility("default"))) int open(const char *path, int flags, ...)
{
    const char *name = getenv("GATE_FILE"), *gate = getenv("GATE");
    const char *slash = strrchr(path, '/');
    unsigned mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, unsigned);
        va_end(args);
    }
    if (name && gate && strcmp(slash ? slash + 1 : path, name) == 0) wait_at(gate);
    return really_open(path, flags, mode);
}
