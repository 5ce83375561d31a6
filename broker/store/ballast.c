#include "broker/store/ballast.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { TRY_MS = 1000 };

static bool take(luna_ballast *ballast)
{
    ballast->tried_ms = luna_now_ms();
    const bool taken = ballast->files->allocate(ballast->fd, (off_t)ballast->bytes) == 0;
    //  What was allocated in part must not take the room of those who need it.
    if (!taken && ftruncate(ballast->fd, 0) != 0) return false;
    atomic_store(&ballast->spent, !taken);
    return taken;
}

luna_err luna_ballast_open(luna_ballast *ballast, const char *dir, uint64_t bytes,
                           const luna_files *files)
{
    char path[4096];
    ballast->files = files;
    ballast->bytes = bytes;
    snprintf(ballast->dir, sizeof ballast->dir, "%s", dir);
    LUNA_TRY(luna_path_join(path, sizeof path, dir, "ballast"));
    ballast->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ballast->fd < 0)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    if (!take(ballast))
        luna_log(LUNA_LOG_ERROR, "store.no_ballast",
                 "path=%s bytes=%llu next=\"no job is accepted until there is room\"",
                 path, (unsigned long long)bytes);
    return LUNA_OK;
}

void luna_ballast_close(luna_ballast *ballast)
{
    if (ballast->fd >= 0) close(ballast->fd);
    ballast->fd = -1;
}

bool luna_ballast_spend(luna_ballast *ballast)
{
    if (atomic_load(&ballast->spent)) return false;
    if (ftruncate(ballast->fd, 0) != 0) return false;
    atomic_store(&ballast->spent, true);
    ballast->tried_ms = luna_now_ms();
    luna_log(LUNA_LOG_ERROR, "store.ballast_spent",
             "folder=%s bytes=%llu next=\"accepted jobs go on, no job is accepted until "
             "there is room\"",
             ballast->dir, (unsigned long long)ballast->bytes);
    return true;
}

luna_err luna_ballast_restore(luna_ballast *ballast)
{
    if (!atomic_load(&ballast->spent)) return LUNA_OK;
    if (luna_now_ms() - ballast->tried_ms >= TRY_MS && take(ballast)) {
        luna_log(LUNA_LOG_INFO, "store.ballast_taken", "folder=%s bytes=%llu",
                 ballast->dir, (unsigned long long)ballast->bytes);
        return LUNA_OK;
    }
    return luna_error(LUNA_NO_SPACE,
                      "the disk of %s is full; make room for %llu MiB at least",
                      ballast->dir, (unsigned long long)(ballast->bytes >> 20) + 1);
}

bool luna_ballast_spent(const luna_ballast *ballast)
{
    return atomic_load(&ballast->spent);
}
