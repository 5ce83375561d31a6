#include "broker/http/value.h"

#include "common/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static luna_err wrong(const char *name, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "%s must be %s", name, what);
}

luna_err luna_http_uint(const char *name, luna_text value, uint64_t *out)
{
    uint64_t number = 0;
    if (value.len == 0) return wrong(name, "a non-negative integer");
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.data[i];
        if (c < '0' || c > '9') return wrong(name, "a non-negative integer");
        if (__builtin_mul_overflow(number, (uint64_t)10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(c - '0'), &number))
            return wrong(name, "below 2^64");
    }
    *out = number;
    return LUNA_OK;
}

luna_err luna_http_float(const char *name, luna_text value, double *out)
{
    char text[64];
    char *end;
    if (value.len == 0 || value.len >= sizeof text) return wrong(name, "a number");
    luna_text_copy(value, text, sizeof text);
    const double number = strtod(text, &end);
    if (*end || end != text + value.len || !isfinite(number))
        return wrong(name, "a number");
    *out = number;
    return LUNA_OK;
}

luna_err luna_http_bool(const char *name, luna_text value, bool *out)
{
    static const char *const words[] = {"false", "true", "0",   "1",
                                        "no",    "yes",  "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!luna_text_is(value, words[i])) continue;
        *out = i % 2;
        return LUNA_OK;
    }
    return wrong(name, "true or false");
}

luna_err luna_http_id(const char *name, luna_text value, luna_id *out)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id id;
    if (value.len >= 2 && value.data[0] == '"' && value.data[value.len - 1] == '"')
        value = (luna_text){.data = value.data + 1, .len = value.len - 2};
    if (value.len != LUNA_ID_TEXT_BYTES - 1) return wrong(name, "a UUID");
    luna_text_copy(value, text, sizeof text);
    if (luna_id_parse(text, &id) != LUNA_OK || luna_id_is_nil(&id))
        return wrong(name, "a UUID");
    *out = id;
    return LUNA_OK;
}

luna_err luna_http_dtype(const char *name, luna_text value, luna_text *out)
{
    static const char *const words[][2] = {
        {"float32", "float32"}, {"F32", "float32"},     {"fp32", "float32"},
        {"float", "float32"},   {"float16", "float16"}, {"F16", "float16"},
        {"fp16", "float16"},    {"half", "float16"},    {"bfloat16", "bfloat16"},
        {"BF16", "bfloat16"},   {"bf16", "bfloat16"}};
    if (value.len > 6 && memcmp(value.data, "torch.", 6) == 0)
        value = (luna_text){.data = value.data + 6, .len = value.len - 6};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!luna_text_is(value, words[i][0])) continue;
        *out = luna_text_of(words[i][1]);
        return LUNA_OK;
    }
    return wrong(name, "float32, float16 or bfloat16");
}

//  ---- time ------------------------------------------------------------------------

//  timegm takes the 32nd of a month for a day of the next one; who sent it did not mean
//  that.
static bool is_in_the_calendar(const struct tm *when)
{
    struct tm same = *when;
    (void)timegm(&same);
    return same.tm_year == when->tm_year && same.tm_mon == when->tm_mon &&
           same.tm_mday == when->tm_mday && same.tm_hour == when->tm_hour &&
           same.tm_min == when->tm_min && same.tm_sec == when->tm_sec;
}

//  "Z", "+hh:mm", "+hhmm" or nothing (*local).
static bool read_zone(const char *text, int64_t *offset_min, bool *local)
{
    char sign;
    int hours, minutes, end = 0;
    *local = text[0] == '\0';
    *offset_min = 0;
    if (*local || strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) return true;
    if (sscanf(text, "%c%2d:%2d%n", &sign, &hours, &minutes, &end) != 3 &&
        sscanf(text, "%c%2d%2d%n", &sign, &hours, &minutes, &end) != 3)
        return false;
    if ((sign != '+' && sign != '-') || text[end] || hours < 0 || hours > 23 ||
        minutes < 0 || minutes > 59)
        return false;
    *offset_min = (sign == '-' ? -1 : 1) * (hours * 60 + minutes);
    return true;
}

//  Milliseconds of ".250", and what comes after it.
static int64_t read_fraction(const char **at)
{
    int64_t ms = 0, scale = 100;
    if (**at != '.' && **at != ',') return 0;
    for (++*at; **at >= '0' && **at <= '9'; ++*at, scale /= 10)
        ms += (**at - '0') * scale;
    return ms;
}

static bool read_iso(const char *text, int64_t *ms, int64_t *offset_min)
{
    struct tm when = {.tm_isdst = -1};
    char separator;
    int end = 0;
    bool local;
    if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &when.tm_year, &when.tm_mon,
               &when.tm_mday, &separator, &when.tm_hour, &when.tm_min, &when.tm_sec,
               &end) != 7 ||
        (separator != 'T' && separator != 't' && separator != ' ') || when.tm_year < 1970)
        return false;
    when.tm_year -= 1900;
    when.tm_mon -= 1;
    const char *rest = text + end;
    const int64_t fraction = read_fraction(&rest);
    if (!is_in_the_calendar(&when) || !read_zone(rest, offset_min, &local)) return false;
    const int64_t seconds =
        local ? (int64_t)mktime(&when) : (int64_t)timegm(&when) - *offset_min * 60;
    if (seconds < 0) return false;
    *ms = seconds * 1000 + fraction;
    if (local) *offset_min = luna_utc_offset_min(*ms);
    return true;
}

luna_err luna_http_time(const char *name, luna_text value, uint64_t *ms,
                        int64_t *utc_offset_min)
{
    char text[64];
    int64_t wall_ms, offset_min;
    if (value.len < sizeof text) {
        luna_text_copy(value, text, sizeof text);
        if (strspn(text, "0123456789") == value.len && value.len > 0 && value.len < 16) {
            *ms = strtoull(text, NULL, 10);
            *utc_offset_min = luna_utc_offset_min((int64_t)*ms);
            return LUNA_OK;
        }
        if (strlen(text) == value.len && read_iso(text, &wall_ms, &offset_min)) {
            *ms = (uint64_t)wall_ms;
            *utc_offset_min = offset_min;
            return LUNA_OK;
        }
    }
    return wrong(name, "milliseconds since 1970 or ISO 8601, 2026-01-05T17:03:11+01:00");
}

size_t luna_http_blanks(luna_text text)
{
    size_t i = 0;
    while (i < text.len && strchr(" \t\r\n", text.data[i]) && text.data[i]) i++;
    return i;
}
