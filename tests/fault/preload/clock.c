//  clock.c - steps of the wall clock, in a program that is being tested
//
//  FAULTFS_CLOCK=FILE: a signed 64-bit number of seconds in the machine's own byte order,
//  which is added to the wall clock whenever it is asked; the test changes it at will.
//  The monotonic clock is never touched.

#define _GNU_SOURCE

#include "tests/fault/preload/real.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#define STANDS_IN __attribute__((visibility("default")))

static const volatile int64_t *step_s;

static __attribute__((constructor)) void start(void)
{
    const char *path = getenv("FAULTFS_CLOCK");
    if (!path) return;
    const int fd = real_open(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) _exit(99);
    void *data = mmap(NULL, sizeof *step_s, PROT_READ, MAP_SHARED, fd, 0);
    real_close(fd);
    if (data == MAP_FAILED) _exit(99);
    step_s = data;
}

STANDS_IN int clock_gettime(clockid_t clock, struct timespec *out)
{
    const int rc = (int)syscall(SYS_clock_gettime, clock, out);
    const bool wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (rc == 0 && wall && step_s) out->tv_sec += *step_s;
    return rc;
}

STANDS_IN int gettimeofday(struct timeval *out, void *zone)
{
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

STANDS_IN time_t time(time_t *out)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
