#include "common/err.h"

#include "common/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct err_row {
    const char *name;
    int http;
    int sysexit;
    bool retry;
} err_row;

static const err_row rows[LUNA_ERR_COUNT] = {
#define X(symbol, name, http, sysexit, retry, meaning) {name, http, sysexit, retry},
    LUNA_ERR_TABLE(X)
#undef X
};

static _Thread_local char last_text[1024];

static const err_row *row_of(luna_err err)
{
    return &rows[(unsigned)err < LUNA_ERR_COUNT ? err : LUNA_INTERNAL];
}

const char *luna_err_name(luna_err err)
{
    return row_of(err)->name;
}

luna_err luna_err_from_name(const char *name)
{
    for (unsigned i = 0; i < LUNA_ERR_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0) return (luna_err)i;
    return LUNA_INTERNAL;
}

int luna_err_http(luna_err err)
{
    return row_of(err)->http;
}

int luna_err_exit(luna_err err)
{
    return row_of(err)->sysexit;
}

bool luna_err_retry(luna_err err)
{
    return row_of(err)->retry;
}

//  A sentence quotes what a peer sent and may be cut inside a character; on the wire it
//  must be UTF-8.
static void mend(char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        const size_t step = luna_utf8_length(text, len);
        if (step == 0) *text = '?';
        text += step ? step : 1;
        len -= step ? step : 1;
    }
}

//  Formats into a second buffer first: an argument may be last_text itself.
static void note(const char *format, va_list args, const char *suffix)
{
    char text[sizeof last_text];
    const int n = vsnprintf(text, sizeof text, format, args);
    const size_t used = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    snprintf(text + used, sizeof text - used, "%s", suffix);
    mend(text);
    memcpy(last_text, text, sizeof text);
}

luna_err luna_error(luna_err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(format, args, "");
    va_end(args);
    return err;
}

luna_err luna_error_errno(luna_err err, const char *format, ...)
{
    const int code = errno;
    char reason[128], suffix[144];
    //  The XSI strerror_r, not GNU's: _GNU_SOURCE is off for this file.
    if (strerror_r(code, reason, sizeof reason) != 0)
        snprintf(reason, sizeof reason, "error %d", code);
    snprintf(suffix, sizeof suffix, ": %s", reason);
    va_list args;
    va_start(args, format);
    note(format, args, suffix);
    va_end(args);
    if (code == ENOSPC || code == EDQUOT) return LUNA_NO_SPACE;
    return code == ENOMEM ? LUNA_NO_MEMORY : err;
}

const char *luna_error_text(void)
{
    return last_text;
}
