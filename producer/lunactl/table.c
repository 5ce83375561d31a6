//  Tables: cells are collected first, since a column is as wide as its widest cell.

#include "producer/lunactl/page.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define GAP 2  //  columns between two columns

typedef struct cell {
    luna_style style;
    char *text;
} cell;

struct luna_table {
    const luna_column *columns;
    size_t column_count;
    cell *cells;  //  row after row
    size_t cell_count, cell_room;
    bool failed;
};

luna_table *luna_table_new(const luna_column *columns, size_t count)
{
    luna_table *table = calloc(1, sizeof *table);
    if (!table) return NULL;
    table->columns = columns;
    table->column_count = count;
    return table;
}

void luna_table_free(luna_table **table)
{
    if (!*table) return;
    for (size_t i = 0; i < (*table)->cell_count; i++) free((*table)->cells[i].text);
    free((*table)->cells);
    free(*table);
    *table = NULL;
}

static bool grow(luna_table *table)
{
    if (table->cell_count < table->cell_room) return true;
    const size_t room = table->cell_room ? 2 * table->cell_room : 64;
    cell *cells = realloc(table->cells, room * sizeof *cells);
    if (!cells) return false;
    table->cells = cells;
    table->cell_room = room;
    return true;
}

static char *format_text(const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = len < 0 ? NULL : malloc((size_t)len + 1);
    if (text) vsnprintf(text, (size_t)len + 1, format, args);
    return text;
}

void luna_table_cell(luna_table *table, luna_style style, const char *format, ...)
{
    if (!table || table->failed) return;
    va_list args;
    va_start(args, format);
    char *text = format_text(format, args);
    va_end(args);
    if (!text || !grow(table)) {
        free(text);
        table->failed = true;
        return;
    }
    table->cells[table->cell_count++] = (cell){.style = style, .text = text};
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t width_of(const luna_table *table, size_t column)
{
    size_t width = luna_page_columns(table->columns[column].title);
    for (size_t i = column; i < table->cell_count; i += table->column_count) {
        const size_t needed = luna_page_columns(table->cells[i].text);
        if (needed > width) width = needed;
    }
    const size_t most = table->columns[column].most;
    return most ? smaller(width, most) : width;
}

//  Cuts through a page of the cell's own width, which knows characters from bytes.
static void put_cell(luna_page *page, luna_style style, const char *text, size_t width)
{
    luna_page room = *page;
    const bool cut = luna_page_columns(text) > width;
    const size_t end = page->column + width - (cut && width > 3 ? 3 : 0);
    room.width = page->width ? smaller(page->width, end) : end;
    luna_page_put(&room, style, text);
    page->column = room.column;
    if (cut && width > 3) luna_page_put(page, style, "...");
}

static void put_row(const luna_table *table, luna_page *page, const size_t *widths,
                    const cell *row)
{
    size_t start = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        const char *text = row ? row[i].text : table->columns[i].title;
        const size_t used = smaller(luna_page_columns(text), widths[i]);
        const size_t indent = table->columns[i].right ? widths[i] - used : 0;
        if (used) luna_page_pad(page, start + indent);
        put_cell(page, row ? row[i].style : LUNA_STYLE_HEAD, text, widths[i]);
        start += widths[i] + GAP;
    }
    luna_page_end(page);
}

luna_err luna_table_print(const luna_table *table, luna_page *page)
{
    size_t *widths =
        table && !table->failed ? calloc(table->column_count, sizeof *widths) : NULL;
    if (!widths) return luna_error(LUNA_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < table->column_count; i++) widths[i] = width_of(table, i);
    put_row(table, page, widths, NULL);
    for (size_t i = 0; i + table->column_count <= table->cell_count;
         i += table->column_count)
        put_row(table, page, widths, &table->cells[i]);
    free(widths);
    return LUNA_OK;
}
