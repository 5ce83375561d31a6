//  log.h - one structured line an event, on stderr
//
//  A line is `event key=value ...`; values with spaces are quoted by the caller's
//  format. Under systemd (JOURNAL_STREAM) a line starts with its <priority>; else
//  with the time and the level. Lines are written with one write(2), so threads
//  never mix. Never pass data as `format`.

#ifndef LUNA_COMMON_LOG_H
#define LUNA_COMMON_LOG_H

#include "common/err.h"

typedef enum luna_log_level {
    LUNA_LOG_ERROR,
    LUNA_LOG_WARNING,
    LUNA_LOG_INFO,
    LUNA_LOG_DEBUG
} luna_log_level;

//  Names the program in each line and sets the least level written. Call once,
//  before any thread starts; without it: "luna" and LUNA_LOG_INFO.
void luna_log_start(const char *program, luna_log_level least);

//  Changes the least level written. Any thread, any time.
void luna_log_set_level(luna_log_level least);

//  "error", "warning", "info", "debug". LUNA_CONFIG for another word.
LUNA_MUST_USE luna_err luna_log_level_parse(const char *word, luna_log_level *out);

//  One line; cut at 2 KiB, control characters replaced by '?'. Thread-safe.
void luna_log(luna_log_level level, const char *event, const char *format, ...)
    LUNA_PRINTF(3, 4);

#endif
