#include "broker/store/rescue.h"

#include "broker/store/rows.h"
#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool luna_rescue_is_sound(const char *path, size_t log_bytes)
{
    luna_db db;
    if (access(path, F_OK) != 0) return true;
    if (luna_rows_open(&db, path, log_bytes) != LUNA_OK) return false;
    const bool sound = luna_db_quick_check(&db) == LUNA_OK;
    luna_db_close(&db);
    return sound;
}

static luna_err move_one(const char *path, const char *end, const char *stamp)
{
    char from[4096], to[4096];
    const int a = snprintf(from, sizeof from, "%s%s", path, end);
    const int b = snprintf(to, sizeof to, "%s.damaged-%s%s", path, stamp, end);
    if (a < 0 || b < 0 || (size_t)a >= sizeof from || (size_t)b >= sizeof to)
        return luna_error(LUNA_TOO_LARGE, "the path %.60s... is too long", path);
    if (rename(from, to) == 0) {
        luna_log(LUNA_LOG_WARNING, "store.moved_aside", "from=%s to=%s", from, to);
        return LUNA_OK;
    }
    return errno == ENOENT
               ? LUNA_OK
               : luna_error_errno(LUNA_IO, "cannot rename %s to %s", from, to);
}

//  The log goes with its database: it would be taken for the new one's.
luna_err luna_rescue_move_aside(const char *dir, const char *path)
{
    char stamp[32];
    struct tm utc;
    const time_t now = time(NULL);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
    static const char *const ends[] = {"-wal", "-shm", ""};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        LUNA_TRY(move_one(path, ends[i], stamp));
    return luna_sync_dir(dir);
}
