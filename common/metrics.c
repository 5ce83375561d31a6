#include "common/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  Seconds: the upper bound of each bucket.
static const double bounds[LUNA_HISTOGRAM_BUCKETS] = {
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,  0.1,   0.2,
    0.5,    1,      2,      5,     10,    20,    50,   100,  200.0, 500.0, 1000};

void luna_histogram_add_ms(luna_histogram *h, double ms)
{
    const double s = ms > 0 ? ms / 1000 : 0;
    size_t i = 0;
    while (i < LUNA_HISTOGRAM_BUCKETS && s > bounds[i]) i++;
    if (i < LUNA_HISTOGRAM_BUCKETS) h->bucket[i]++;
    h->count++;
    h->sum_s += s;
}

//  ---- pages -----------------------------------------------------------------------

static bool make_room(luna_page *page, size_t more)
{
    if (page->len + more < page->room) return true;
    const size_t room = 2 * (page->len + more) + 4096;
    char *data = realloc(page->data, room);
    if (!data) {
        page->failed = true;
        return false;
    }
    page->data = data;
    page->room = room;
    return true;
}

static void add(luna_page *page, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add(luna_page *page, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0 && make_room(page, (size_t)n + 1))
        page->len +=
            (size_t)vsnprintf(page->data + page->len, (size_t)n + 1, format, again);
    va_end(again);
}

void luna_page_family(luna_page *page, const char *name, const char *type,
                      const char *help)
{
    page->family = name;
    add(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(luna_page *page, const char *suffix, const char *labels, double value)
{
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    add(page, "%s%s%s%s%s ", page->family, suffix, open, labels, close);
    //  Whole numbers stay whole; no counter gets beyond 2^53.
    if (value >= 0 && value < 9007199254740992.0 && value == (double)(uint64_t)value)
        add(page, "%llu\n", (unsigned long long)value);
    else
        add(page, "%.9g\n", value);
}

void luna_page_value(luna_page *page, const char *labels, double value)
{
    sample(page, "", labels, value);
}

void luna_page_histogram(luna_page *page, const char *labels, const luna_histogram *h)
{
    const char *comma = labels[0] ? "," : "";
    uint64_t below = 0;
    for (size_t i = 0; i < LUNA_HISTOGRAM_BUCKETS; i++) {
        below += h->bucket[i];
        add(page, "%s_bucket{%s%sle=\"%g\"} %llu\n", page->family, labels, comma,
            bounds[i], (unsigned long long)below);
    }
    add(page, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", page->family, labels, comma,
        (unsigned long long)h->count);
    sample(page, "_sum", labels, h->sum_s);
    sample(page, "_count", labels, (double)h->count);
}

static size_t escape(char *out, char c)
{
    if (c != '\\' && c != '"' && c != '\n') {
        out[0] = c;
        return 1;
    }
    out[0] = '\\';
    out[1] = c == '\n' ? 'n' : c;
    return 2;
}

void luna_page_label(char *out, size_t room, const char *key, const char *value)
{
    const int start = snprintf(out, room, "%s=\"", key);
    if (start < 0 || (size_t)start + 4 > room) return;
    size_t at = (size_t)start;
    for (; *value && at + 4 <= room; value++) at += escape(out + at, *value);
    out[at++] = '"';
    out[at] = '\0';
}

void luna_page_free(luna_page *page)
{
    free(page->data);
    *page = (luna_page){0};
}
