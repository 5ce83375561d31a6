#include "broker/store/aside.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES 4096

//  Never one that exists.
static luna_err new_name(const char *dir, char out[PATH_BYTES])
{
    char name[64], stamp[32];
    struct tm parts;
    const time_t now = (time_t)(luna_wall_ms() / 1000);
    gmtime_r(&now, &parts);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &parts);
    for (int i = 1; i < 1000; i++) {
        const char *format = i == 1 ? "luna.db.damaged-%s" : "luna.db.damaged-%s.%d";
        snprintf(name, sizeof name, format, stamp, i);
        LUNA_TRY(luna_path_join(out, PATH_BYTES, dir, name));
        if (access(out, F_OK) != 0) return LUNA_OK;
    }
    return luna_error(LUNA_IO, "%s: a thousand damaged databases of one second", dir);
}

static luna_err move_one(const char *dir, const char *to, const char *suffix,
                         const luna_files *files)
{
    char from[PATH_BYTES], target[PATH_BYTES + 16];
    LUNA_TRY(luna_path_join(from, sizeof from - 16, dir, "luna.db"));
    snprintf(from + strlen(from), 16, "%s", suffix);
    snprintf(target, sizeof target, "%s%s", to, suffix);
    if (files->rename(from, target) == 0 || errno == ENOENT) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot rename %s to %s", from, target);
}

//  The database goes first: a log without one is thrown away by SQLite, but a database
//  without its log would be taken for a sound one of yesterday.
luna_err luna_aside_move(const char *dir, const luna_files *files)
{
    char to[PATH_BYTES];
    LUNA_TRY(new_name(dir, to));
    LUNA_TRY(move_one(dir, to, "", files));
    LUNA_TRY(move_one(dir, to, "-wal", files));
    LUNA_TRY(move_one(dir, to, "-journal", files));
    LUNA_TRY(move_one(dir, to, "-shm", files));
    LUNA_TRY(luna_sync_dir(dir));
    luna_log(LUNA_LOG_WARNING, "store.rebuilt",
             "aside=%s next=\"the jobs are made of their payloads\"", to);
    return LUNA_OK;
}
