#include "broker/store/ballast.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define RETRY_MS 1000

static luna_err full(const luna_ballast *ballast)
{
    return luna_error(LUNA_NO_SPACE,
                      "the disk is full: %s was given up so that the jobs there are can "
                      "end; free some space, jobs are accepted again when its %llu bytes "
                      "fit",
                      ballast->path, (unsigned long long)ballast->bytes);
}

static void report(const luna_ballast *ballast)
{
    luna_log(LUNA_LOG_ERROR, "store.full", "err=%s detail=\"%s\"",
             luna_err_name(full(ballast)), luna_error_text());
}

static bool set_aside(const luna_ballast *ballast)
{
    return ballast->files->allocate(ballast->fd, (off_t)ballast->bytes) == 0;
}

//  One that was longer under another setting is cut first.
static void fit(const luna_ballast *ballast)
{
    const off_t end = lseek(ballast->fd, 0, SEEK_END);
    if (end > (off_t)ballast->bytes) (void)ballast->files->cut(ballast->fd);
}

static luna_err open_file(luna_ballast *ballast)
{
    ballast->fd = open(ballast->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ballast->fd < 0)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", ballast->path);
    return LUNA_OK;
}

luna_err luna_ballast_open(luna_ballast *ballast, const char *dir, uint64_t bytes,
                           const luna_files *files)
{
    *ballast = (luna_ballast){.files = files, .bytes = bytes, .fd = -1};
    LUNA_TRY(luna_path_join(ballast->path, sizeof ballast->path, dir, "reserve"));
    LUNA_TRY(open_file(ballast));
    fit(ballast);
    if (set_aside(ballast)) return LUNA_OK;
    atomic_store(&ballast->spent, true);
    ballast->due_ms = luna_now_ms() + RETRY_MS;
    report(ballast);
    return LUNA_OK;
}

void luna_ballast_close(luna_ballast *ballast)
{
    if (ballast->fd >= 0) close(ballast->fd);
    ballast->fd = -1;
}

//  The blocks can be used again when the file system has committed that they are free.
bool luna_ballast_spend(luna_ballast *ballast)
{
    if (ballast->fd < 0 || atomic_load(&ballast->spent)) return false;
    if (ballast->files->cut(ballast->fd) != 0) return false;
    (void)ballast->files->sync_data(ballast->fd);
    atomic_store(&ballast->spent, true);
    ballast->due_ms = luna_now_ms() + RETRY_MS;
    report(ballast);
    return true;
}

void luna_ballast_restore(luna_ballast *ballast, int64_t now_ms)
{
    if (!atomic_load(&ballast->spent) || now_ms < ballast->due_ms) return;
    ballast->due_ms = now_ms + RETRY_MS;
    if (!set_aside(ballast)) return;
    atomic_store(&ballast->spent, false);
    luna_log(LUNA_LOG_INFO, "store.room", "path=%s bytes=%llu next=\"jobs are accepted\"",
             ballast->path, (unsigned long long)ballast->bytes);
}

luna_err luna_ballast_check(const luna_ballast *ballast)
{
    return atomic_load(&ballast->spent) ? full(ballast) : LUNA_OK;
}
