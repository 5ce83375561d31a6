//  The walker takes what RFC 8259 takes, and NaN; it hands values out byte for byte.

#include "broker/http/json_walk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

static luna_err check(const char *text)
{
    luna_text value;
    //  Exactly as long as the text, so that the sanitizer sees a read beyond it.
    const size_t len = strlen(text);
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    const luna_err err = luna_json_check((luna_text){copy, len}, &value);
    free(copy);
    return err;
}

static void takes_what_is_json(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        " [ ] ",
        "0",
        "-0.5e+10",
        "1E5",
        "\"\"",
        "true",
        "null",
        "[[[]]]",
        "{\"a\":{\"b\":[1,2,{\"c\":\"\\u00e9\\n\\/\"}]},\"d\":[{}, [] ,\"x\"]}",
        "\"caf\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x8e\xa8 long enough for whole words\"",
        "{\"seed\": 18446744073709551615}",
        "[NaN,Infinity,-Infinity]",
        "\r\n\t{}\n"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (check(good[i]) != LUNA_OK) fail_msg("%s: %s", good[i], luna_error_text());
}

static void refuses_what_is_not(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[",
                                      "[1",
                                      "[1,",
                                      "[1,]",
                                      "[,1]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{\"a\":1 \"b\":2}",
                                      "[1 2]",
                                      "[1}",
                                      "{\"a\":1]",
                                      "01",
                                      "1.",
                                      ".5",
                                      "-",
                                      "+1",
                                      "1e",
                                      "tru",
                                      "nan",
                                      "\"",
                                      "\"abc",
                                      "\"\\",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\u12g4\"",
                                      "\"tab\there\"",
                                      "\"bad \xff utf8 in here\"",
                                      "\"\xc0\xaf\"",
                                      "\"\xed\xa0\x80\"",
                                      "{} {}",
                                      "1 2",
                                      "\"a\"b",
                                      "-In",
                                      "[\"a\":1]"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (check(bad[i]) != LUNA_BAD_REQUEST) fail_msg("taken: %s", bad[i]);
}

//  Every cut of a document, against jansson's judgement.
static void agrees_with_jansson_on_every_cut(void **state)
{
    static const char text[] =
        "[{\"k\\u0041\": [1, -2.5e3, true, null, \"x\\\\y\\\"z \xc3\xa9 and more of "
        "it\"],"
        " \"m\": {}}, [], 12]";
    (void)state;
    for (size_t i = 0; i < sizeof text; i++) {
        char cut[sizeof text] = "";
        memcpy(cut, text, i);
        json_t *json = json_loadb(cut, i, JSON_DECODE_ANY, NULL);
        assert_int_equal(check(cut) == LUNA_OK, json != NULL);
        json_decref(json);
    }
}

//  Every single byte put in each place, against jansson's judgement.
static void agrees_with_jansson_on_every_byte(void **state)
{
    static const char text[] = "{\"ab\":[1,\"cdefghijkl\\n\"],\"b\":-2e1}";
    (void)state;
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        for (int byte = 1; byte < 256; byte++) {
            char changed[sizeof text];
            memcpy(changed, text, sizeof text);
            changed[i] = (char)byte;
            json_t *json = json_loadb(changed, sizeof text - 1,
                                      JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
            if ((check(changed) == LUNA_OK) != (json != NULL))
                fail_msg("byte %d at %zu: %s", byte, i, changed);
            json_decref(json);
        }
    }
}

static void names_line_and_column(void **state)
{
    (void)state;
    assert_int_equal(check("{\n \"a\": 1,\n \"b\": oops\n}"), LUNA_BAD_REQUEST);
    assert_non_null(strstr(luna_error_text(), "line 3, column 7"));
}

static void depth_is_bounded(void **state)
{
    char deep[2 * LUNA_JSON_DEPTH_MAX + 3];
    (void)state;
    for (size_t depth = LUNA_JSON_DEPTH_MAX; depth <= LUNA_JSON_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        deep[2 * depth] = '\0';
        assert_int_equal(check(deep),
                         depth == LUNA_JSON_DEPTH_MAX ? LUNA_OK : LUNA_BAD_REQUEST);
    }
}

static void hands_out_spans(void **state)
{
    static const char text[] =
        " {\"prompt\" : { \"s\": 18446744073709551615 ,\"f\":1.0 } , "
        "\"l\":[1 , {\"x\":[]}]}";
    luna_text value, key, item;
    luna_json_walk walk, list;
    (void)state;
    const luna_text document = {text, sizeof text - 1};
    assert_int_equal(luna_json_check(document, &value), LUNA_OK);
    assert_int_equal(luna_json_enter(document, value, &walk), LUNA_OK);
    assert_true(luna_json_next(&walk, &key, &item));
    assert_true(luna_text_is(key, "prompt"));
    assert_true(luna_text_is(item, "{ \"s\": 18446744073709551615 ,\"f\":1.0 }"));
    assert_true(luna_json_next(&walk, &key, &item));
    assert_true(luna_text_is(key, "l"));
    assert_false(luna_json_next(&walk, &key, &value));
    assert_int_equal(luna_json_enter(document, item, &list), LUNA_OK);
    assert_true(luna_json_next(&list, &key, &item));
    assert_true(luna_text_is(item, "1"));
    assert_true(luna_json_next(&list, &key, &item));
    assert_true(luna_text_is(item, "{\"x\":[]}"));
    assert_false(luna_json_next(&list, &key, &item));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_json),
        cmocka_unit_test(refuses_what_is_not),
        cmocka_unit_test(agrees_with_jansson_on_every_cut),
        cmocka_unit_test(agrees_with_jansson_on_every_byte),
        cmocka_unit_test(names_line_and_column),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(hands_out_spans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
