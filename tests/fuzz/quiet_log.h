//  quiet_log.h - instead of common/log.c: lines are made, so that every format is tried,
//  and dropped
//
//  To be included by one file of a program.

#ifndef LUNA_TESTS_FUZZ_QUIET_LOG_H
#define LUNA_TESTS_FUZZ_QUIET_LOG_H

#include "common/log.h"
#include "fuzz/fuzz.h"

#include <stdarg.h>

void luna_log_start(const char *program, luna_log_level least)
{
    (void)program;
    (void)least;
}

void luna_log_set_level(luna_log_level least)
{
    (void)least;
}

luna_err luna_log_level_parse(const char *word, luna_log_level *out)
{
    (void)word;
    *out = LUNA_LOG_ERROR;
    return LUNA_OK;
}

void luna_log(luna_log_level level, const char *event, const char *format, ...)
{
    char line[4096];
    va_list args;
    CHECK(level <= LUNA_LOG_DEBUG && event[0]);
    va_start(args, format);
    CHECK(vsnprintf(line, sizeof line, format, args) >= 0);
    va_end(args);
}

#endif
