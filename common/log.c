#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int journal_priority[] = {3, 4, 6, 7};

static const char *program_name = "luna";
static _Atomic luna_log_level least_level = LUNA_LOG_INFO;
static bool under_systemd;

void luna_log_start(const char *program, luna_log_level least)
{
    program_name = program;
    least_level = least;
    under_systemd = getenv("JOURNAL_STREAM") != NULL;
}

void luna_log_set_level(luna_log_level least)
{
    least_level = least;
}

luna_err luna_log_level_parse(const char *word, luna_log_level *out)
{
    for (int i = 0; i <= LUNA_LOG_DEBUG; i++) {
        if (strcmp(word, level_names[i]) != 0) continue;
        *out = (luna_log_level)i;
        return LUNA_OK;
    }
    return luna_error(LUNA_CONFIG,
                      "'%.40s' is no log level; use error, warning, info or debug", word);
}

static size_t write_prefix(char *line, size_t room, luna_log_level level)
{
    if (under_systemd)
        return (size_t)snprintf(line, room, "<%d>", journal_priority[level]);
    struct timespec now;
    struct tm local;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    strftime(stamp, sizeof stamp, "%H:%M:%S", &local);
    return (size_t)snprintf(line, room, "%s.%03ld %s %s: ", stamp, now.tv_nsec / 1000000,
                            program_name, level_names[level]);
}

static size_t clamp_used(int wrote, size_t used, size_t room)
{
    const size_t end = used + (wrote < 0 ? 0 : (size_t)wrote);
    return end < room ? end : room - 1;
}

void luna_log(luna_log_level level, const char *event, const char *format, ...)
{
    if (level > least_level) return;
    char line[2048];
    const size_t room = sizeof line - 1;
    const size_t start = write_prefix(line, room, level);
    size_t used =
        clamp_used(snprintf(line + start, room - start, "%s ", event), start, room);
    va_list args;
    va_start(args, format);
    used = clamp_used(vsnprintf(line + used, room - used, format, args), used, room);
    va_end(args);
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0) return;  //  nowhere left to say it
}
