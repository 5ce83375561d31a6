#include "producer/lunactl/page.h"

#include "common/utf8.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FIELD_COLUMNS 14

static const char *const style_codes[] = {
    [LUNA_STYLE_PLAIN] = "",  [LUNA_STYLE_HEAD] = "1",    [LUNA_STYLE_DIM] = "2",
    [LUNA_STYLE_GOOD] = "32", [LUNA_STYLE_WARN] = "33;1", [LUNA_STYLE_BAD] = "31;1",
};

bool luna_page_size(int fd, size_t *rows, size_t *columns)
{
    struct winsize size;
    if (!isatty(fd)) return false;
    const bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col;
    *rows = known ? size.ws_row : 24;
    *columns = known ? size.ws_col : 80;
    return true;
}

static bool wants_colour(void)
{
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(none && *none) && term && *term && strcmp(term, "dumb") != 0;
}

luna_page luna_page_on(FILE *out)
{
    return (luna_page){.out = out, .colour = isatty(fileno(out)) && wants_colour()};
}

void luna_page_fit(luna_page *page)
{
    size_t rows;
    if (!luna_page_size(fileno(page->out), &rows, &page->width)) page->width = 0;
}

//  ---- characters ------------------------------------------------------------------

typedef struct range {
    uint32_t from, to;
} range;

static bool is_in(const range *ranges, size_t count, uint32_t code)
{
    for (size_t i = 0; i < count; i++)
        if (code >= ranges[i].from && code <= ranges[i].to) return true;
    return false;
}

#define IS_IN(ranges, code) is_in(ranges, sizeof(ranges) / sizeof((ranges)[0]), code)

//  Controls, and marks that change the direction of what follows.
static bool is_unsafe(uint32_t code)
{
    static const range unsafe[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},
                                   {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069},
                                   {0xfff9, 0xfffb}};
    return IS_IN(unsafe, code);
}

//  Unicode's East Asian wide characters by their blocks, and marks that take no column.
static size_t columns_of(uint32_t code)
{
    static const range wide[] = {
        {0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3}, {0xf900, 0xfaff},
        {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6}, {0x1f300, 0x1f64f},
        {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    static const range none[] = {{0x300, 0x36f},
                                 {0x200b, 0x200d},
                                 {0x2060, 0x2064},
                                 {0xfe00, 0xfe0f},
                                 {0xfeff, 0xfeff}};
    if (IS_IN(none, code)) return 0;
    return IS_IN(wide, code) ? 2 : 1;
}

//  One character as it is shown: its bytes and columns.
typedef struct glyph {
    const char *bytes;
    size_t len;
    size_t columns;
    size_t taken;  //  bytes of the text behind it
} glyph;

static glyph next_glyph(const char *text, size_t len)
{
    static const unsigned char lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const glyph unknown = {.bytes = "?", .len = 1, .columns = 1, .taken = 1};
    const size_t bytes = luna_utf8_length(text, len);
    if (bytes == 0) return unknown;
    uint32_t code = (unsigned char)text[0] & lead_mask[bytes];
    for (size_t i = 1; i < bytes; i++) code = code << 6 | ((unsigned char)text[i] & 0x3f);
    if (is_unsafe(code))
        return (glyph){.bytes = "?", .len = 1, .columns = 1, .taken = bytes};
    return (glyph){
        .bytes = text, .len = bytes, .columns = columns_of(code), .taken = bytes};
}

size_t luna_page_columns(const char *text)
{
    size_t columns = 0;
    for (size_t left = text ? strlen(text) : 0; left;) {
        const glyph g = next_glyph(text, left);
        columns += g.columns;
        text += g.taken;
        left -= g.taken;
    }
    return columns;
}

//  ---- lines -----------------------------------------------------------------------

static void put_glyphs(luna_page *page, const char *text)
{
    for (size_t left = text ? strlen(text) : 0; left;) {
        const glyph g = next_glyph(text, left);
        if (page->width && page->column + g.columns > page->width) return;
        fwrite(g.bytes, 1, g.len, page->out);
        page->column += g.columns;
        text += g.taken;
        left -= g.taken;
    }
}

void luna_page_put(luna_page *page, luna_style style, const char *text)
{
    const char *code = page->colour && text && *text ? style_codes[style] : "";
    if (*code) fprintf(page->out, "\033[%sm", code);
    put_glyphs(page, text);
    if (*code) fputs("\033[0m", page->out);
}

static void vprint(luna_page *page, luna_style style, const char *format, va_list args)
{
    char room[512], *text = room;
    va_list again;
    va_copy(again, args);
    const int len = vsnprintf(room, sizeof room, format, args);
    if (len >= (int)sizeof room && (text = malloc((size_t)len + 1)))
        vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    luna_page_put(page, style, text ? text : room);
    if (text != room) free(text);
}

void luna_page_print(luna_page *page, luna_style style, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint(page, style, format, args);
    va_end(args);
}

void luna_page_pad(luna_page *page, size_t column)
{
    while (page->column < column && (!page->width || page->column < page->width)) {
        fputc(' ', page->out);
        page->column++;
    }
}

void luna_page_end(luna_page *page)
{
    fputc('\n', page->out);
    page->column = 0;
    page->lines++;
}

//  Bytes of the text up to the last space that leaves them within the width; all of it,
//  if it fits.
static size_t line_length(const char *text, size_t width)
{
    size_t fits = 0, columns = 0, at = 0;
    const size_t len = strlen(text);
    while (at < len) {
        const glyph g = next_glyph(text + at, len - at);
        if (text[at] == ' ') fits = at;
        columns += g.columns;
        if (width && columns > width) return fits ? fits : at;
        at += g.taken;
    }
    return len;
}

void luna_page_wrap(luna_page *page, luna_style style, const char *text, size_t most)
{
    for (size_t line = 1; line <= most && *text; line++) {
        const size_t len = line < most ? line_length(text, page->width) : strlen(text);
        luna_page_print(page, style, "%.*s", (int)len, text);
        luna_page_end(page);
        text += len + (text[len] == ' ');
    }
}

void luna_page_field(luna_page *page, const char *name, luna_style style,
                     const char *format, ...)
{
    va_list args;
    luna_page_put(page, LUNA_STYLE_PLAIN, name);
    luna_page_pad(page, FIELD_COLUMNS);
    va_start(args, format);
    vprint(page, style, format, args);
    va_end(args);
    luna_page_end(page);
}

//  ---- amounts ---------------------------------------------------------------------

void luna_bytes_text(uint64_t bytes, char out[LUNA_AMOUNT_BYTES])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i < 6; i++) value /= 1024;
    snprintf(out, LUNA_AMOUNT_BYTES, "%.*f %s", i ? 1 : 0, value, unit[i]);
}

//  A duration in its largest unit and the next: 3 min, 5 s. Not under a minute.
typedef struct two_units {
    size_t unit;  //  of the first: 0 days, 1 hours, 2 minutes
    unsigned long long first;
    unsigned second;
} two_units;

static two_units split_duration(uint64_t ms)
{
    static const uint64_t unit_ms[] = {86400000, 3600000, 60000, 1000};
    size_t i = 0;
    while (i < 2 && ms < unit_ms[i]) i++;
    return (two_units){.unit = i,
                       .first = ms / unit_ms[i],
                       .second = (unsigned)(ms % unit_ms[i] / unit_ms[i + 1])};
}

void luna_duration_text(uint64_t ms, char out[LUNA_AMOUNT_BYTES])
{
    static const char *const name[] = {"d", "h", "min", "s"};
    const two_units parts = split_duration(ms);
    if (ms < 1000)
        snprintf(out, LUNA_AMOUNT_BYTES, "%u ms", (unsigned)ms);
    else if (ms < 60000)
        snprintf(out, LUNA_AMOUNT_BYTES, "%.1f s", (double)(ms / 100) / 10);
    else
        snprintf(out, LUNA_AMOUNT_BYTES, "%llu %s %u %s", parts.first, name[parts.unit],
                 parts.second, name[parts.unit + 1]);
}

void luna_duration_short(uint64_t ms, char out[LUNA_AMOUNT_BYTES])
{
    static const char name[] = "dhms";
    const two_units parts = split_duration(ms);
    if (ms < 1000)
        snprintf(out, LUNA_AMOUNT_BYTES, "%ums", (unsigned)ms);
    else if (ms < 60000)
        snprintf(out, LUNA_AMOUNT_BYTES, "%.1fs", (double)(ms / 100) / 10);
    else
        snprintf(out, LUNA_AMOUNT_BYTES, "%llu%c%02u%c", parts.first, name[parts.unit],
                 parts.second, name[parts.unit + 1]);
}

void luna_time_text(uint64_t ms, char out[LUNA_AMOUNT_BYTES])
{
    struct tm local;
    const time_t seconds = (time_t)(ms / 1000);
    out[0] = '\0';
    if (localtime_r(&seconds, &local))
        strftime(out, LUNA_AMOUNT_BYTES, "%Y-%m-%d %H:%M:%S", &local);
}

void luna_bar_text(uint64_t done, uint64_t of, size_t width, char *out)
{
    const double part = of ? (double)done / (double)of : 0;
    const size_t filled = (size_t)((part < 1 ? part : 1) * (double)width);
    out[0] = '[';
    for (size_t i = 0; i < width; i++) out[1 + i] = i < filled ? '#' : '.';
    memcpy(out + 1 + width, "]", 2);
}
