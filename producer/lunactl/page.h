//  page.h - text for people: cleaned, coloured on terminals, cut to their width
//
//  Names and sentences come from other machines: what could move the cursor or turn the
//  direction of writing is shown as '?'. Widths are columns of a terminal, not bytes.

#ifndef LUNA_LUNACTL_PAGE_H
#define LUNA_LUNACTL_PAGE_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LUNA_AMOUNT_BYTES 32  //  of an amount with its unit, as text

typedef enum luna_style {
    LUNA_STYLE_PLAIN,
    LUNA_STYLE_HEAD,  //  titles of columns
    LUNA_STYLE_DIM,
    LUNA_STYLE_GOOD,
    LUNA_STYLE_WARN,
    LUNA_STYLE_BAD
} luna_style;

typedef struct luna_page {
    FILE *out;      //  borrowed
    size_t width;   //  columns of a line; 0: lines are never cut
    size_t column;  //  where the next character goes
    size_t lines;   //  that have ended
    bool colour;
} luna_page;

//  A page on a stream, whose lines are not cut. On a terminal it has colours, unless
//  NO_COLOR is set or the terminal is dumb.
luna_page luna_page_on(FILE *out);

//  From now on lines are cut to the terminal's width, when the stream is one.
void luna_page_fit(luna_page *page);

//  Rows and columns of the terminal on a descriptor. False when it is none.
bool luna_page_size(int fd, size_t *rows, size_t *columns);

//  Writes the text, which may be NULL, as far as the line has room for it.
void luna_page_put(luna_page *page, luna_style style, const char *text);

//  The same of a formatted text.
void luna_page_print(luna_page *page, luna_style style, const char *format, ...)
    LUNA_PRINTF(3, 4);

//  Spaces up to that column, at least none; and the end of the line.
void luna_page_pad(luna_page *page, size_t column);
void luna_page_end(luna_page *page);

//  Lines of a sentence, broken at spaces where they would be cut; `most` at most.
void luna_page_wrap(luna_page *page, luna_style style, const char *text, size_t most);

//  "name          " and a value; one line.
void luna_page_field(luna_page *page, const char *name, luna_style style,
                     const char *format, ...) LUNA_PRINTF(4, 5);

//  How many columns a text takes.
size_t luna_page_columns(const char *text);

//  "512 B", "1.5 MiB"; "950 ms", "4.2 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"; and for
//  tables "950ms", "4.2s", "3m05s", "2h10m", "3d04h".
void luna_bytes_text(uint64_t bytes, char out[LUNA_AMOUNT_BYTES]);
void luna_duration_text(uint64_t ms, char out[LUNA_AMOUNT_BYTES]);
void luna_duration_short(uint64_t ms, char out[LUNA_AMOUNT_BYTES]);

//  "2026-11-27 14:03:22" in local time; `ms` is wall clock.
void luna_time_text(uint64_t ms, char out[LUNA_AMOUNT_BYTES]);

//  "[####....]" of `width` marks, NUL-terminated; `out` has room for width + 3.
void luna_bar_text(uint64_t done, uint64_t of, size_t width, char *out);

//  ---- tables ----------------------------------------------------------------------

typedef struct luna_column {
    const char *title;
    size_t most;  //  columns at most, longer texts end in "..."; 0: no limit
    bool right;   //  numbers: aligned to the right
} luna_column;

typedef struct luna_table luna_table;

//  A table without rows; `columns` is borrowed for its life. NULL without memory: every
//  function takes that, and printing reports it.
luna_table *luna_table_new(const luna_column *columns, size_t count);
void luna_table_free(luna_table **table);

//  The next cell, row after row.
void luna_table_cell(luna_table *table, luna_style style, const char *format, ...)
    LUNA_PRINTF(3, 4);

//  Titles and rows, each column as wide as its widest cell. LUNA_NO_MEMORY when a cell
//  is missing.
LUNA_MUST_USE luna_err luna_table_print(const luna_table *table, luna_page *page);

#endif
