//  proto/README.md is normative: its tables must be the schema's, field for field, and
//  its example bytes must decode and encode again to the same bytes.

#include "common/file.h"
#include "proto/codec.h"
#include "proto/schema.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *text;

static int load_text(void **state)
{
    (void)state;
    char path[4096];
    size_t len;
    snprintf(path, sizeof path, "%s/../../proto/README.md", getenv("LUNA_TEST_DATA"));
    return luna_file_read(path, 1 << 20, &text, &len) == LUNA_OK ? 0 : -1;
}

static int drop_text(void **state)
{
    (void)state;
    free(text);
    return 0;
}

static void expected_row(const luna_field *field, char *out, size_t room)
{
    char kind[64], limit[32] = "", fallback[32] = "";
    snprintf(kind, sizeof kind, "%s%s%s", luna_kind_name(field->kind),
             field->sub ? " of " : "", field->sub ? field->sub->name : "");
    const bool unlimited = field->max == UINT64_MAX || field->kind == LUNA_KIND_BOOL ||
                           field->kind == LUNA_KIND_ID || field->kind == LUNA_KIND_MAP;
    if (!unlimited)
        snprintf(limit, sizeof limit, "%llu ", (unsigned long long)field->max);
    if (field->fallback && field->kind == LUNA_KIND_BOOL)
        snprintf(fallback, sizeof fallback, "true ");
    else if (field->fallback)
        snprintf(fallback, sizeof fallback, "%llu ", (unsigned long long)field->fallback);
    snprintf(out, room, "| `%s` | %s | %s| %s| %s|", field->key, kind,
             field->required ? "yes " : "", limit, fallback);
}

//  The table under "#### NAME" must start each of its rows as the schema says, in
//  order, and have no row more.
static void check_table(const luna_schema *schema, const char *name)
{
    char heading[64], row[256];
    snprintf(heading, sizeof heading, "\n#### %s\n", name);
    const char *at = strstr(text, heading);
    if (!at) fail_msg("proto/README.md has no table '%s'", name);
    at = strstr(at, "|---|");
    for (size_t i = 0; i < schema->count; i++) {
        at = strchr(at, '\n') + 1;
        expected_row(&schema->fields[i], row, sizeof row);
        if (strncmp(at, row, strlen(row)) != 0)
            fail_msg("table '%s': expected\n%s\nfound\n%.100s", name, row, at);
        if (schema->fields[i].sub)
            check_table(schema->fields[i].sub, schema->fields[i].sub->name);
    }
    at = strchr(at, '\n') + 1;
    if (*at == '|')
        fail_msg("table '%s' has a row that the code has not: %.60s", name, at);
}

static void test_tables_are_the_schema(void **state)
{
    (void)state;
    for (int i = 0; i < LUNA_MSG_COUNT; i++) {
        const luna_schema *schema = luna_msg_schema((luna_msg_type)i);
        if (i == LUNA_MSG_CREDIT) continue;  //  the text refers to ready
        const bool order = i >= LUNA_MSG_CANCEL && i <= LUNA_MSG_DRAIN;
        check_table(schema, order ? "order" : schema->name);
    }
}

static size_t read_hex(const char *at, uint8_t *out, size_t room)
{
    size_t len = 0;
    while (*at != '`') {
        if (isspace((unsigned char)*at)) {
            at++;
            continue;
        }
        unsigned byte;
        assert_int_equal(sscanf(at, "%2x", &byte), 1);
        assert_true(len < room);
        out[len++] = (uint8_t)byte;
        at += 2;
    }
    return len;
}

static void check_example(const char *name, const uint8_t *bytes, size_t len)
{
    luna_packet *packet = NULL;
    if (luna_packet_open(bytes, len, &packet) != LUNA_OK)
        fail_msg("example %s: %s", name, luna_error_text());
    const luna_msg_type type = luna_packet_type(packet);
    assert_string_equal(luna_msg_schema(type)->name, name);
    max_align_t message[64];
    assert_true(luna_msg_schema(type)->size <= sizeof message);
    if (luna_packet_read(packet, message) != LUNA_OK)
        fail_msg("example %s: %s", name, luna_error_text());
    void *again;
    size_t again_len;
    assert_int_equal(luna_msg_pack(type, message, &again, &again_len), LUNA_OK);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, bytes, len);
    free(again);
    luna_packet_close(&packet);
}

static void test_examples_round_trip(void **state)
{
    (void)state;
    bool seen[LUNA_MSG_COUNT] = {false};
    const char *at = text;
    while ((at = strstr(at, "### example: "))) {
        char name[32];
        uint8_t bytes[4096];
        assert_int_equal(sscanf(at, "### example: %31s", name), 1);
        at = strstr(at, "```hex\n") + 7;
        const size_t len = read_hex(at, bytes, sizeof bytes);
        check_example(name, bytes, len);
        for (int i = 0; i < LUNA_MSG_COUNT; i++)
            if (strcmp(luna_msg_schema((luna_msg_type)i)->name, name) == 0)
                seen[i] = true;
    }
    for (int i = 0; i < LUNA_MSG_COUNT; i++)
        if (!seen[i])
            fail_msg("no example of '%s'", luna_msg_schema((luna_msg_type)i)->name);
}

static void test_every_error_word_is_listed(void **state)
{
    (void)state;
    for (int i = LUNA_USAGE; i < LUNA_ERR_COUNT; i++) {
        char word[40];
        snprintf(word, sizeof word, "`%s`", luna_err_name((luna_err)i));
        if (!strstr(text, word)) fail_msg("the error word %s is missing", word);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_are_the_schema),
        cmocka_unit_test(test_examples_round_trip),
        cmocka_unit_test(test_every_error_word_is_listed),
    };
    return cmocka_run_group_tests(tests, load_text, drop_text);
}
