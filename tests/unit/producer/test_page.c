//  Text for people: what is cleaned, how wide it is, where it is cut, and tables.

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "producer/lunactl/page.h"

#include <stdlib.h>
#include <string.h>

static char *written;
static size_t written_len;

static luna_page open_page(size_t width)
{
    FILE *out = open_memstream(&written, &written_len);
    assert_non_null(out);
    return (luna_page){.out = out, .width = width};
}

static void assert_written(luna_page *page, const char *expected)
{
    fclose(page->out);
    assert_string_equal(written, expected);
    free(written);
}

static void nothing_moves_the_cursor(void **state)
{
    (void)state;
    luna_page page = open_page(0);
    luna_page_put(&page, LUNA_STYLE_BAD, "a\x1b[2Jb\r\n\tc\x7f");
    luna_page_put(&page, LUNA_STYLE_PLAIN,
                  "\xc2\x9b"
                  "31m");                                    //  C1: CSI
    luna_page_put(&page, LUNA_STYLE_PLAIN, "\xe2\x80\xae");  //  right to left
    luna_page_put(&page, LUNA_STYLE_PLAIN, "\xff\xc3");      //  no UTF-8
    luna_page_put(&page, LUNA_STYLE_PLAIN, "\xc3\xa4\xe4\xb8\xad");
    luna_page_put(&page, LUNA_STYLE_PLAIN, NULL);
    assert_written(&page, "a?[2Jb???c??31m???\xc3\xa4\xe4\xb8\xad");
}

static void widths_are_columns(void **state)
{
    (void)state;
    assert_int_equal(luna_page_columns(""), 0);
    assert_int_equal(luna_page_columns(NULL), 0);
    assert_int_equal(luna_page_columns("abc"), 3);
    assert_int_equal(luna_page_columns("\xc3\xa4"), 1);
    assert_int_equal(luna_page_columns("\xe4\xb8\xad\xe6\x96\x87"), 4);
    assert_int_equal(luna_page_columns("a\xcc\x88"), 1);  //  a combining mark
    assert_int_equal(luna_page_columns("\x1b\xff"), 2);   //  two question marks
}

static void lines_are_cut_at_the_width(void **state)
{
    (void)state;
    luna_page page = open_page(5);
    luna_page_put(&page, LUNA_STYLE_PLAIN, "abc");
    luna_page_put(&page, LUNA_STYLE_PLAIN, "defg");
    luna_page_pad(&page, 9);
    luna_page_end(&page);
    luna_page_put(&page, LUNA_STYLE_PLAIN, "\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad");
    luna_page_end(&page);
    assert_int_equal(page.lines, 2);
    assert_written(&page, "abcde\n\xe4\xb8\xad\xe6\x96\x87\n");
}

static void sentences_are_broken_at_spaces(void **state)
{
    (void)state;
    luna_page page = open_page(9);
    luna_page_wrap(&page, LUNA_STYLE_PLAIN, "look at the disk now please", 9);
    luna_page_wrap(&page, LUNA_STYLE_PLAIN, "exactly 9", 2);
    luna_page_wrap(&page, LUNA_STYLE_PLAIN, "one two three four five", 2);
    luna_page_wrap(&page, LUNA_STYLE_PLAIN, "unbreakable", 3);
    luna_page_wrap(&page, LUNA_STYLE_PLAIN, "", 3);
    assert_written(&page,
                   "look at\nthe disk\nnow\nplease\nexactly 9\none two\nthree fou\n"
                   "unbreakab\nle\n");
}

static void colours_end_with_their_text(void **state)
{
    (void)state;
    luna_page page = open_page(0);
    page.colour = true;
    luna_page_put(&page, LUNA_STYLE_PLAIN, "a");
    luna_page_print(&page, LUNA_STYLE_GOOD, "%d", 5);
    assert_int_equal(page.column, 2);
    assert_written(&page, "a\033[32m5\033[0m");
}

static void long_texts_are_whole(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    luna_page page = open_page(0);
    luna_page_print(&page, LUNA_STYLE_PLAIN, "%s", text);
    assert_int_equal(page.column, sizeof text - 1);
    assert_written(&page, text);
}

static const luna_column columns[] = {
    {.title = "NAME", .most = 6}, {.title = "N", .right = true}, {.title = "LAST"}};

static luna_table *table_of(const char *name, int number, const char *last)
{
    luna_table *table = luna_table_new(columns, 3);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", name);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%d", number);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", last);
    return table;
}

static void columns_are_as_wide_as_their_cells(void **state)
{
    (void)state;
    luna_page page = open_page(0);
    luna_table *table = table_of("ab", 12345, "last");
    luna_table_cell(table, LUNA_STYLE_PLAIN, "\xe4\xb8\xad");
    luna_table_cell(table, LUNA_STYLE_PLAIN, "1");
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", "");
    assert_int_equal(luna_table_print(table, &page), LUNA_OK);
    luna_table_free(&table);
    luna_table_free(&table);
    assert_written(&page,
                   "NAME      N  LAST\nab    12345  last\n\xe4\xb8\xad        1\n");
}

static void cells_and_rows_are_cut(void **state)
{
    (void)state;
    luna_page page = open_page(14);
    luna_table *table = table_of("abcdefgh", 1, "the last one");
    assert_int_equal(luna_table_print(table, &page), LUNA_OK);
    luna_table_free(&table);
    assert_written(&page, "NAME    N  LAS\nabc...  1  the\n");
}

static void a_table_without_memory_says_so(void **state)
{
    (void)state;
    luna_page page = open_page(0);
    luna_table_cell(NULL, LUNA_STYLE_PLAIN, "x");
    assert_int_equal(luna_table_print(NULL, &page), LUNA_NO_MEMORY);
    assert_written(&page, "");
}

static void assert_duration(uint64_t ms, const char *text, const char *brief)
{
    char out[LUNA_AMOUNT_BYTES];
    luna_duration_text(ms, out);
    assert_string_equal(out, text);
    luna_duration_short(ms, out);
    assert_string_equal(out, brief);
}

static void amounts_have_units(void **state)
{
    (void)state;
    char out[LUNA_AMOUNT_BYTES];
    assert_duration(0, "0 ms", "0ms");
    assert_duration(999, "999 ms", "999ms");
    assert_duration(1000, "1.0 s", "1.0s");
    assert_duration(59999, "59.9 s", "59.9s");
    assert_duration(60000, "1 min 0 s", "1m00s");
    assert_duration(3599999, "59 min 59 s", "59m59s");
    assert_duration(3600000, "1 h 0 min", "1h00m");
    assert_duration(86400000ULL * 3 + 3600000 * 4, "3 d 4 h", "3d04h");
    assert_duration(UINT64_MAX, "213503982334 d 14 h", "213503982334d14h");
    luna_bytes_text(0, out);
    assert_string_equal(out, "0 B");
    luna_bytes_text(1023, out);
    assert_string_equal(out, "1023 B");
    luna_bytes_text(1536, out);
    assert_string_equal(out, "1.5 KiB");
    luna_bytes_text(UINT64_MAX, out);
    assert_string_equal(out, "16.0 EiB");
}

static void bars_are_never_too_long(void **state)
{
    (void)state;
    char bar[8];
    luna_bar_text(0, 0, 5, bar);
    assert_string_equal(bar, "[.....]");
    luna_bar_text(1, 2, 5, bar);
    assert_string_equal(bar, "[##...]");
    luna_bar_text(UINT64_MAX, 2, 5, bar);
    assert_string_equal(bar, "[#####]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_moves_the_cursor),
        cmocka_unit_test(widths_are_columns),
        cmocka_unit_test(lines_are_cut_at_the_width),
        cmocka_unit_test(sentences_are_broken_at_spaces),
        cmocka_unit_test(colours_end_with_their_text),
        cmocka_unit_test(long_texts_are_whole),
        cmocka_unit_test(columns_are_as_wide_as_their_cells),
        cmocka_unit_test(cells_and_rows_are_cut),
        cmocka_unit_test(a_table_without_memory_says_so),
        cmocka_unit_test(amounts_have_units),
        cmocka_unit_test(bars_are_never_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
