//  safetensors: what a good file gives, and that hostile ones give one clear line.

#include "common/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

//  A file image on the heap of exactly its own size, so that reading past it is caught.
typedef struct image {
    uint8_t *data;
    size_t len;
} image;

static image make_image(const char *header, size_t header_len, size_t body)
{
    image m = {.len = 8 + header_len + body};
    const uint64_t announced = header_len;
    m.data = malloc(m.len);
    assert_non_null(m.data);
    memcpy(m.data, &announced, 8);
    memcpy(m.data + 8, header, header_len);
    for (size_t i = 0; i < body; i++) m.data[8 + header_len + i] = (uint8_t)i;
    return m;
}

static luna_err parse(const char *header, size_t body, luna_safetensors **out, image *m)
{
    *m = make_image(header, strlen(header), body);
    return luna_safetensors_parse(m->data, m->len, "test", out);
}

static void expect_refused(const char *header, size_t body, const char *because)
{
    image m;
    luna_safetensors *file = NULL;
    const luna_err err = parse(header, body, &file, &m);
    free(m.data);
    if (err == LUNA_OK) luna_safetensors_close(&file);
    if (err != LUNA_BAD_REQUEST || !strstr(luna_error_text(), because))
        fail_msg("%s\n gave %s: %s\n expected: %s", header, luna_err_name(err),
                 luna_error_text(), because);
    assert_null(file);
}

static void good_file_is_read(void **state)
{
    (void)state;
    image m;
    luna_safetensors *file = NULL;
    size_t len = 0;
    assert_int_equal(
        parse(" {\"b\" : {\"dtype\":\"F16\", \"shape\":[1,2],\"data_offsets\":[4,8]},\n"
              "\"__metadata__\":{\"k\":\"v\",\"e\":\"\"},"
              "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}  ",
              8, &file, &m),
        LUNA_OK);
    assert_int_equal(luna_safetensors_count(file), 2);
    assert_string_equal(luna_safetensors_at(file, 0)->name, "a");
    assert_null(luna_safetensors_at(file, 2));
    const luna_tensor *b = luna_safetensors_find(file, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, LUNA_DTYPE_F16);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], 2);
    assert_int_equal(b->count, 2);
    assert_int_equal(b->bytes, 4);
    assert_int_equal(((const uint8_t *)b->data)[0], 4);
    assert_int_equal(luna_safetensors_find(file, "a")->rank, 0);
    assert_int_equal(luna_safetensors_find(file, "a")->count, 1);
    assert_null(luna_safetensors_find(file, "c"));
    assert_string_equal(luna_safetensors_metadata(file, "k", &len), "v");
    assert_int_equal(len, 1);
    assert_string_equal(luna_safetensors_metadata(file, "e", &len), "");
    assert_null(luna_safetensors_metadata(file, "x", NULL));
    luna_safetensors_close(&file);
    assert_null(file);
    luna_safetensors_close(&file);
    free(m.data);
}

static void empty_tensors_and_no_tensors(void **state)
{
    (void)state;
    image m;
    luna_safetensors *file = NULL;
    assert_int_equal(parse("{}", 0, &file, &m), LUNA_OK);
    assert_int_equal(luna_safetensors_count(file), 0);
    assert_null(luna_safetensors_find(file, "a"));
    luna_safetensors_close(&file);
    free(m.data);
    assert_int_equal(
        parse("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
              "\"b\":{\"dtype\":\"F64\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
              "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
              1, &file, &m),
        LUNA_OK);
    assert_int_equal(luna_safetensors_find(file, "b")->count, 0);
    luna_safetensors_close(&file);
    free(m.data);
}

static void unknown_dtype_is_listed(void **state)
{
    (void)state;
    image m;
    luna_safetensors *file = NULL;
    assert_int_equal(
        parse("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, &file,
              &m),
        LUNA_OK);
    const luna_tensor *a = luna_safetensors_at(file, 0);
    float out[4];
    assert_int_equal(a->dtype, LUNA_DTYPE_OTHER);
    assert_string_equal(a->dtype_name, "F4");
    assert_int_equal(a->bytes, 2);
    assert_int_equal(luna_dtype_to_float(a->dtype, a->data, a->count, out),
                     LUNA_UNSUPPORTED);
    luna_safetensors_close(&file);
    free(m.data);
}

static void metadata_escapes(void **state)
{
    (void)state;
    image m;
    luna_safetensors *file = NULL;
    size_t len = 0;
    assert_int_equal(
        parse("{\"__metadata__\":{\"prompt\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC"
              "\\ud83d\\ude00\\u0000x\xc3\xa9\"}}",
              0, &file, &m),
        LUNA_OK);
    const char *text = luna_safetensors_metadata(file, "prompt", &len);
    static const char expected[] =
        "\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0x\xc3\xa9";
    assert_int_equal(len, sizeof expected - 1);
    assert_memory_equal(text, expected, sizeof expected);
    luna_safetensors_close(&file);
    free(m.data);
}

#define T(name, dtype, shape, offsets)                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
    ",\"data_offsets\":" offsets "}"

static void hostile_places(void **state)
{
    (void)state;
    expect_refused("{" T("a", "F32", "[1]", "[0,4]") "}", 3, "outside the file");
    expect_refused("{" T("a", "F32", "[1]", "[0,4]") "}", 5, "follow the last tensor");
    expect_refused("{" T("a", "F32", "[1]", "[4,0]") "}", 4, "ends before it starts");
    expect_refused("{" T("a", "F32", "[2]", "[0,4]") "}", 4, "disagree");
    expect_refused("{" T("a", "F32", "[1]", "[1,5]") "}", 5, "unused bytes");
    expect_refused(
        "{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[2,6]") "}", 6,
        "overlaps");
    expect_refused(
        "{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[0,4]") "}", 4,
        "overlaps");
    expect_refused(
        "{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8,
        "given twice");
    expect_refused(
        "{" T("a", "F32", "[1]", "[18446744073709551612,18446744073709551615]") "}", 4,
        "outside the file");
    expect_refused("{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0,
                   "too large");
    expect_refused("{" T("a", "F64", "[2305843009213693952]", "[0,0]") "}", 0,
                   "too large");
    expect_refused("{" T("a", "F32", "[18446744073709551616]", "[0,4]") "}", 4,
                   "too large");
}

static void hostile_grammar(void **state)
{
    (void)state;
    expect_refused("", 0, "'{' expected");
    expect_refused("[]", 0, "'{' expected");
    expect_refused("{", 0, "no text");
    expect_refused("{}x", 0, "follows the last");
    expect_refused("{\"a\"}", 0, "':' expected");
    expect_refused("{\"a\":1}", 0, "'{' expected");
    expect_refused("{\"a\":{}}", 0, "no text");
    expect_refused("{\"a\":{\"dtype\":\"F32\"}}", 0, "lacks");
    expect_refused("{\"a\":{\"dtype\":1}}", 0, "no text");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0, "given twice");
    expect_refused("{\"a\":{\"size\":[1]}}", 0, "unknown field");
    expect_refused("{" T("a", "F32", "[1],", "[0,4]") "}", 4, "no text");
    expect_refused("{" T("a", "F32", "[1,]", "[0,4]") "}", 4, "whole number");
    expect_refused("{" T("a", "F32", "[-1]", "[0,4]") "}", 4, "whole number");
    expect_refused("{" T("a", "F32", "[1.0]", "[0,4]") "}", 4, "']' expected");
    expect_refused("{" T("a", "F32", "[01]", "[0,4]") "}", 4, "leading zero");
    expect_refused("{" T("a", "F32", "[1e0]", "[0,4]") "}", 4, "']' expected");
    expect_refused("{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "too many");
    expect_refused("{" T("a", "F32", "[1]", "[0]") "}", 4, "two numbers");
    expect_refused("{" T("a", "F32", "[1]", "[0,4,4]") "}", 4, "too many");
    expect_refused("{" T("a", "F32", "[1]", "[0,4]") ",}", 4, "no text");
    expect_refused("{\"__metadata__\":{\"a\":1}}", 0, "no text");
    expect_refused("{\"__metadata__\":{\"a\":\"b\"},\"__metadata__\":{\"a\":\"b\"}}", 0,
                   "given twice");
    expect_refused("{\"__metadata__\":{},\"__metadata__\":{\"a\":\"b\"}}", 0,
                   "given twice");
}

static void hostile_texts(void **state)
{
    (void)state;
    expect_refused("{\"a", 0, "without its end");
    expect_refused("{\"a\\", 0, "without its end");
    expect_refused("{\"a\\x\":", 0, "unknown escape");
    expect_refused("{\"a\\u12", 0, "four hexadecimal");
    expect_refused("{\"a\\u12g4\":", 0, "four hexadecimal");
    expect_refused("{\"\\ud800\":", 0, "surrogate");
    expect_refused("{\"\\ud800\\u0041\":", 0, "surrogate");
    expect_refused("{\"\\udc00\":", 0, "surrogate");
    expect_refused("{\"\\ud800\\ud800\":", 0, "surrogate");
    expect_refused("{\"a\\u0000b\":", 0, "a NUL");
    expect_refused("{\"a\nb\":", 0, "control character");
    expect_refused("{\"\xff\":", 0, "UTF-8");
    expect_refused("{\"\xc0\x80\":", 0, "UTF-8");
    expect_refused("{\"\xed\xa0\x80\":", 0, "UTF-8");
    expect_refused("{\"\xf4\x90\x80\x80\":", 0, "UTF-8");
    expect_refused("{\"\xe2\x82", 0, "UTF-8");
}

static void hostile_lengths(void **state)
{
    (void)state;
    luna_safetensors *file = NULL;
    uint8_t bytes[16] = {0};
    for (size_t len = 0; len < 8; len++)
        assert_int_equal(luna_safetensors_parse(bytes, len, "test", &file),
                         LUNA_BAD_REQUEST);
    const uint64_t lengths[] = {9,
                                1000,
                                LUNA_SAFETENSORS_HEADER_MAX,
                                LUNA_SAFETENSORS_HEADER_MAX + 1ULL,
                                UINT64_MAX - 7,
                                UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(luna_safetensors_parse(bytes, 16, "test", &file),
                         LUNA_BAD_REQUEST);
        assert_null(file);
    }
}

//  Every cut and every changed byte of a good file: an answer, never a crash.
static void every_cut_and_flip(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"k\":\"\\ud83d\\ude00\"}," T(
        "a", "F16", "[1,2]", "[0,4]") "}";
    const image good = make_image(header, sizeof header - 1, 4);
    luna_safetensors *file = NULL;
    for (size_t len = 0; len < good.len; len++) {
        uint8_t *cut = malloc(len ? len : 1);
        memcpy(cut, good.data, len);
        assert_int_equal(luna_safetensors_parse(cut, len, "cut", &file),
                         LUNA_BAD_REQUEST);
        free(cut);
    }
    size_t survived = 0;
    for (size_t at = 0; at < good.len; at++)
        for (int bit = 0; bit < 8; bit++) {
            good.data[at] ^= (uint8_t)(1 << bit);
            if (luna_safetensors_parse(good.data, good.len, "flip", &file) == LUNA_OK)
                survived++;
            luna_safetensors_close(&file);
            good.data[at] ^= (uint8_t)(1 << bit);
        }
    assert_true(survived > 32);  //  the tensor's own 32 bits at least
    assert_int_equal(luna_safetensors_parse(good.data, good.len, "good", &file), LUNA_OK);
    luna_safetensors_close(&file);
    free(good.data);
}

static void files_that_are_not_there(void **state)
{
    (void)state;
    luna_safetensors *file = NULL;
    assert_int_equal(luna_safetensors_open("absent.safetensors", &file), LUNA_NOT_FOUND);
    assert_non_null(strstr(luna_error_text(), "absent.safetensors"));
    assert_int_equal(luna_safetensors_open(".", &file), LUNA_IO);
}

static const luna_tensor_spec two_specs[] = {
    {.name = "pix \"els\"\n", .dtype = LUNA_DTYPE_F32, .rank = 2, .shape = {1, 2}},
    {.name = "b", .dtype = LUNA_DTYPE_U8, .rank = 0}};

static void written_file_reads_back(void **state)
{
    (void)state;
    luna_safetensors_writer *writer = NULL;
    luna_safetensors *file = NULL;
    const float values[2] = {1.5F, -2.0F};
    const uint8_t byte = 7;
    assert_int_equal(luna_safetensors_create("out.safetensors", two_specs, 2, &writer),
                     LUNA_OK);
    assert_int_equal(access("out.safetensors", F_OK), -1);
    assert_int_equal(luna_safetensors_append(writer, values, 4), LUNA_OK);
    assert_int_equal(luna_safetensors_append(writer, &values[1], 4), LUNA_OK);
    assert_int_equal(luna_safetensors_append(writer, &byte, 1), LUNA_OK);
    assert_int_equal(luna_safetensors_append(writer, &byte, 1), LUNA_USAGE);
    assert_int_equal(luna_safetensors_commit(&writer), LUNA_OK);
    assert_null(writer);
    assert_int_equal(luna_safetensors_open("out.safetensors", &file), LUNA_OK);
    const luna_tensor *pixels = luna_safetensors_find(file, two_specs[0].name);
    assert_non_null(pixels);
    assert_int_equal((uintptr_t)pixels->data % 8, 0);
    assert_memory_equal(pixels->data, values, sizeof values);
    assert_memory_equal(luna_safetensors_find(file, "b")->data, &byte, 1);
    luna_safetensors_close(&file);
    assert_int_equal(unlink("out.safetensors"), 0);
}

static void unfinished_file_leaves_nothing(void **state)
{
    (void)state;
    luna_safetensors_writer *writer = NULL;
    assert_int_equal(luna_safetensors_create("out.safetensors", two_specs, 2, &writer),
                     LUNA_OK);
    assert_int_equal(luna_safetensors_commit(&writer), LUNA_USAGE);
    assert_null(writer);
    assert_int_equal(luna_safetensors_create("out.safetensors", two_specs, 2, &writer),
                     LUNA_OK);
    luna_safetensors_abandon(&writer);
    assert_int_equal(access("out.safetensors", F_OK), -1);
    assert_int_equal(luna_safetensors_create("no/such/folder/o", two_specs, 2, &writer),
                     LUNA_CANT_CREATE);
    assert_null(writer);
    const luna_tensor_spec huge = {
        .name = "a", .dtype = LUNA_DTYPE_F32, .rank = 2, .shape = {SIZE_MAX, 2}};
    assert_int_equal(luna_safetensors_create("out.safetensors", &huge, 1, &writer),
                     LUNA_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file_is_read),
        cmocka_unit_test(empty_tensors_and_no_tensors),
        cmocka_unit_test(unknown_dtype_is_listed),
        cmocka_unit_test(metadata_escapes),
        cmocka_unit_test(hostile_places),
        cmocka_unit_test(hostile_grammar),
        cmocka_unit_test(hostile_texts),
        cmocka_unit_test(hostile_lengths),
        cmocka_unit_test(every_cut_and_flip),
        cmocka_unit_test(files_that_are_not_there),
        cmocka_unit_test(written_file_reads_back),
        cmocka_unit_test(unfinished_file_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
