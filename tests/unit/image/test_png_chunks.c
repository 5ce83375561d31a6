//  Text in PNG files: what goes in comes out, everything else stays, hostile files and
//  texts are refused.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "decoder/image/png_chunks.h"

typedef struct bytes {
    uint8_t data[4096];
    size_t len;
} bytes;

static void add(bytes *b, const void *data, size_t len)
{
    assert_true(b->len + len <= sizeof b->data);
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void add_u32(bytes *b, uint32_t v)
{
    const uint8_t raw[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                            (uint8_t)v};
    add(b, raw, 4);
}

static void add_chunk(bytes *b, const char *type, const void *data, size_t len)
{
    add_u32(b, (uint32_t)len);
    const size_t at = b->len;
    add(b, type, 4);
    add(b, data, len);
    add_u32(b, (uint32_t)crc32(0, b->data + at, (uInt)(len + 4)));
}

//  A file with every kind of chunk that matters; its IDAT need not inflate.
static bytes sample(void)
{
    bytes b = {.len = 0};
    const uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0};
    add(&b, "\x89PNG\r\n\x1A\n", 8);
    add_chunk(&b, "IHDR", header, 13);
    add_chunk(&b, "pHYs", "\0\0\3\350\0\0\3\350\1", 9);
    add_chunk(&b, "tEXt", "Title\0old", 9);
    add_chunk(&b, "IDAT", "pixels", 6);
    add_chunk(&b, "tIME", "\7\351\1\1\0\0\0", 7);
    add_chunk(&b, "IEND", NULL, 0);
    return b;
}

static luna_image_text entry(const char *keyword, const char *text)
{
    return (luna_image_text){keyword, text, strlen(text), LUNA_TEXT_NOTE};
}

static void check_text(const uint8_t *file, size_t len, const luna_image_text *want,
                       const char *type)
{
    const char *got;
    size_t got_len;
    if (luna_png_find_text(file, len, want->keyword, &got, &got_len) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    assert_int_equal(got_len, want->len);
    assert_memory_equal(got, want->text, want->len);
    luna_png_walker w;
    luna_png_chunk c;
    assert_int_equal(luna_png_walk(file, len, &w), LUNA_OK);
    do assert_int_equal(luna_png_next(&w, &c), LUNA_OK);
    while ((const uint8_t *)got < c.data || (const uint8_t *)got > c.data + c.len);
    assert_string_equal(c.type, type);
}

static void test_texts_go_behind_the_header(void **state)
{
    (void)state;
    const bytes png = sample();
    const luna_image_text texts[] = {
        entry("prompt", "{\"a\": \"quote \\\" line\\n\", \"s\": 18446744073709551615}"),
        entry("workflow", "line one\nline two\ttab"),
        entry("caf\xE9 key", "caf\xC3\xA9"),
        entry("kanji", "\xE6\xBC\xA2\xE5\xAD\x97"),
        entry("emoji", "\xF0\x9F\x8C\x99 Luna"),
        entry("empty", ""),
    };
    const size_t count = sizeof texts / sizeof *texts;
    uint8_t *out;
    size_t len;
    assert_int_equal(luna_png_add_text(png.data, png.len, texts, count, &out, &len),
                     LUNA_OK);
    for (size_t i = 0; i < count; i++)
        check_text(out, len, &texts[i], i == 2 || i == 3 || i == 4 ? "iTXt" : "tEXt");
    static const char *const order[] = {"IHDR", "tEXt", "tEXt", "iTXt", "iTXt",
                                        "iTXt", "tEXt", "tEXt", "IDAT", "IEND"};
    luna_png_walker w;
    luna_png_chunk c;
    assert_int_equal(luna_png_walk(out, len, &w), LUNA_OK);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        assert_int_equal(luna_png_next(&w, &c), LUNA_OK);
        assert_string_equal(c.type, order[i]);
    }
    assert_int_equal(luna_png_next(&w, &c), LUNA_NOT_FOUND);
    const luna_image_text old = entry("Title", "old");
    check_text(out, len, &old, "tEXt");
    free(out);
}

static void test_no_texts_only_drops(void **state)
{
    (void)state;
    const bytes png = sample();
    uint8_t *out;
    size_t len;
    assert_int_equal(luna_png_add_text(png.data, png.len, NULL, 0, &out, &len), LUNA_OK);
    assert_int_equal(len, png.len - (12 + 9) - (12 + 7));
    free(out);
}

static void test_large_workflow(void **state)
{
    (void)state;
    const bytes png = sample();
    const size_t size = 2u << 20;
    char *text = malloc(size);
    for (size_t i = 0; i < size; i++) text[i] = (char)(32 + i % 95);
    luna_image_text texts[] = {{"workflow", text, size, LUNA_TEXT_GRAPH},
                               {"prompt", text, size - 1, LUNA_TEXT_GRAPH}};
    uint8_t *out;
    size_t len;
    assert_int_equal(luna_png_add_text(png.data, png.len, texts, 2, &out, &len), LUNA_OK);
    check_text(out, len, &texts[0], "tEXt");
    check_text(out, len, &texts[1], "tEXt");
    free(out);
    memcpy(text + size - 4, "\xF0\x9F\x8C\x99", 4);
    assert_int_equal(luna_png_add_text(png.data, png.len, texts, 1, &out, &len), LUNA_OK);
    check_text(out, len, &texts[0], "iTXt");
    free(out);
    free(text);
}

static void check_refused(const luna_image_text *texts, size_t count, luna_err want)
{
    const bytes png = sample();
    uint8_t *out = NULL;
    size_t len = 77;
    assert_int_equal(luna_png_add_text(png.data, png.len, texts, count, &out, &len),
                     want);
    assert_null(out);
    assert_int_equal(len, 77);
}

static void test_refused_texts(void **state)
{
    (void)state;
    char longest[81];
    memset(longest, 'k', 80);
    longest[80] = '\0';
    const char *const keywords[] = {"",      " a",   "a ",     "a  b", "a\nb",
                                    "a\x7F", "\x80", "a\xA0z", longest};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        const luna_image_text text = entry(keywords[i], "x");
        check_refused(&text, 1, LUNA_BAD_REQUEST);
    }
    const luna_image_text nul = {"key", "a\0b", 3, LUNA_TEXT_NOTE},
                          broken = entry("key", "a\xC3");
    check_refused(&nul, 1, LUNA_BAD_REQUEST);
    check_refused(&broken, 1, LUNA_BAD_REQUEST);
    const luna_image_text twice[] = {entry("a", "1"), entry("b", "2"), entry("a", "3")};
    check_refused(twice, 3, LUNA_BAD_REQUEST);
    const luna_image_text there = entry("Title", "new");
    check_refused(&there, 1, LUNA_BAD_REQUEST);
    //  The length is refused before the text is read.
    const luna_image_text huge = {"key", "x", (size_t)LUNA_PNG_CHUNK_MAX, LUNA_TEXT_NOTE};
    check_refused(&huge, 1, LUNA_TOO_LARGE);
}

static void check_hostile(const bytes *png)
{
    //  A copy of its exact size, so that reading past it is seen.
    uint8_t *copy = malloc(png->len ? png->len : 1), *out = NULL;
    const luna_image_text text = entry("prompt", "{}");
    size_t len;
    const char *found;
    memcpy(copy, png->data, png->len);
    assert_int_equal(luna_png_add_text(copy, png->len, &text, 1, &out, &len),
                     LUNA_BAD_REQUEST);
    assert_null(out);
    assert_int_equal(luna_png_find_text(copy, png->len, "none", &found, &len),
                     LUNA_BAD_REQUEST);
    free(copy);
}

static void test_cut_and_flipped_files(void **state)
{
    (void)state;
    const bytes whole = sample();
    for (size_t len = 0; len < whole.len; len++) {
        bytes cut = whole;
        cut.len = len;
        check_hostile(&cut);
    }
    for (size_t at = 0; at < whole.len; at++) {
        bytes flipped = whole;
        flipped.data[at] ^= 0x40;
        check_hostile(&flipped);
    }
}

static void test_wrong_order_and_lengths(void **state)
{
    (void)state;
    const uint8_t header[14] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0, 0};
    bytes b = {.len = 0};
    add(&b, "\x89PNG\r\n\x1A\n", 8);
    const bytes start = b;
    add_chunk(&b, "IEND", NULL, 0);
    check_hostile(&b);
    b = start;
    add_chunk(&b, "IHDR", header, 14);
    add_chunk(&b, "IEND", NULL, 0);
    check_hostile(&b);
    b = start;
    add_chunk(&b, "IHDR", header, 13);
    add_chunk(&b, "IHDR", header, 13);
    add_chunk(&b, "IEND", NULL, 0);
    check_hostile(&b);
    b = sample();
    add(&b, "x", 1);
    check_hostile(&b);
    b = start;
    add_chunk(&b, "IHDR", header, 13);
    add_chunk(&b, "ID4T", NULL, 0);
    add_chunk(&b, "IEND", NULL, 0);
    check_hostile(&b);
    b = start;
    add_u32(&b, 0xFFFFFFFF);
    add(&b, "IHDRxxxxxxxx", 12);
    check_hostile(&b);
}

//  Text chunks that make no sense are skipped by the search and kept as they are.
static void test_odd_text_chunks(void **state)
{
    (void)state;
    bytes b = {.len = 0};
    const uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0};
    const char *found;
    uint8_t *out;
    size_t len;
    add(&b, "\x89PNG\r\n\x1A\n", 8);
    add_chunk(&b, "IHDR", header, 13);
    add_chunk(&b, "tEXt", NULL, 0);
    add_chunk(&b, "tEXt", "noend", 5);
    add_chunk(&b, "iTXt", "key\0", 4);
    add_chunk(&b, "iTXt", "key\0\1\0\0\0packed", 14);
    add_chunk(&b, "iTXt", "key\0\0\0en", 8);
    add_chunk(&b, "zTXt", "key\0\0packed", 11);
    add_chunk(&b, "IEND", NULL, 0);
    assert_int_equal(luna_png_find_text(b.data, b.len, "key", &found, &len),
                     LUNA_NOT_FOUND);
    assert_int_equal(luna_png_find_text(b.data, b.len, "", &found, &len), LUNA_NOT_FOUND);
    const luna_image_text fresh = entry("new", "text"), same = entry("key", "text");
    assert_int_equal(luna_png_add_text(b.data, b.len, &fresh, 1, &out, &len), LUNA_OK);
    assert_int_equal(len, b.len + 12 + 8);
    free(out);
    assert_int_equal(luna_png_add_text(b.data, b.len, &same, 1, &out, &len),
                     LUNA_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_go_behind_the_header),
        cmocka_unit_test(test_no_texts_only_drops),
        cmocka_unit_test(test_large_workflow),
        cmocka_unit_test(test_refused_texts),
        cmocka_unit_test(test_cut_and_flipped_files),
        cmocka_unit_test(test_wrong_order_and_lengths),
        cmocka_unit_test(test_odd_text_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
