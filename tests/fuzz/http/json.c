//  json.c - any text as JSON: checked whole, then walked member by member
//
//  Every span that is handed out lies in the text and is itself a value. What jansson
//  reads is taken; what is taken jansson reads, but for what JSON libraries do not keep
//  apart (numbers out of range, NaN, half surrogate pairs).

#include "broker/http/json_walk.h"
#include "fuzz/fuzz.h"

#include <ctype.h>
#include <jansson.h>

static bool inside(luna_text part, luna_text whole)
{
    return part.data >= whole.data && part.data + part.len <= whole.data + whole.len;
}

//  Walks the members of one value, and notes the first object or array in it.
static void walk_one(luna_text document, luna_text value, luna_text *nested)
{
    luna_json_walk walk;
    luna_text key, member, again;
    nested->data = NULL;
    if (luna_json_enter(document, value, &walk) != LUNA_OK) {
        CHECK(value.data[0] != '{' && value.data[0] != '[');
        return;
    }
    while (luna_json_next(&walk, &key, &member)) {
        CHECK((key.data != NULL) == (value.data[0] == '{'));
        CHECK(member.len > 0 && inside(member, value));
        if (key.data) CHECK(inside(key, value) && key.data + key.len < member.data);
        CHECK(luna_json_check(member, &again) == LUNA_OK);
        CHECK(again.data == member.data && again.len == member.len);
        const bool deep = member.data[0] == '{' || member.data[0] == '[';
        if (deep && !nested->data) *nested = member;
    }
    CHECK(!luna_json_next(&walk, &key, &member));
}

static void walk_down(luna_text document, luna_text value)
{
    luna_text nested = value;
    for (size_t depth = 0; nested.data; depth++) {
        CHECK(depth <= LUNA_JSON_DEPTH_MAX);
        walk_one(document, nested, &nested);
    }
}

//  Whether nothing is in the text that the two treat differently.
static bool comparable(luna_text text)
{
    size_t digits = 0;
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.data[i];
        digits = isdigit((unsigned char)c) ? digits + 1 : 0;
        if (digits > 15 || !c || strchr("NIeE\\", c)) return false;
    }
    return true;
}

static bool jansson_reads(luna_text text)
{
    json_error_t error;
    json_t *value =
        json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    json_decref(value);
    return value != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *copy = fuzz_copy(data, len);
    const luna_text document = {.data = copy, .len = len};
    luna_text value;
    const luna_err err = luna_json_check(document, &value);
    if (err == LUNA_OK) {
        CHECK(value.len > 0 && inside(value, document));
        walk_down(document, value);
        if (comparable(document)) CHECK(jansson_reads(document));
    } else {
        CHECK(err == LUNA_BAD_REQUEST);
        fuzz_check_error(err);
        //  jansson takes a NUL after the value for the end.
        const bool deep = strstr(luna_error_text(), "too deep") != NULL;
        if (!deep && !memchr(copy, 0, len)) CHECK(!jansson_reads(document));
    }
    free(copy);
    return 0;
}
