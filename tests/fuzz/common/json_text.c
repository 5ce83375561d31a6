//  json_text.c - one JSON string read and written
//
//  What is read takes no more room than it had, also in place; text that is written
//  reads as itself.

#include "common/json_text.h"
#include "common/utf8.h"
#include "fuzz/fuzz.h"

static void read_any(luna_blob text)
{
    const char *fault = NULL;
    size_t out_len = 0, again_len = 0;
    char *out = malloc(text.len + 1), *place = fuzz_copy(text.data, text.len);
    CHECK(out);
    const size_t used = luna_json_text_read(place, text.len, out, &out_len, &fault);
    if (used == 0) CHECK(fault && fault[0]);
    CHECK(used <= text.len && (used == 0 || out_len + 2 <= used));
    if (used > 0) {
        CHECK(luna_utf8_valid(out, out_len));
        CHECK(luna_json_text_read(place, text.len, place, &again_len, &fault) == used);
        CHECK(again_len == out_len && memcmp(place, out, out_len) == 0);
    }
    free(out);
    free(place);
}

static void write_and_read(luna_blob text)
{
    const char *fault = NULL;
    char *given = fuzz_copy(text.data, text.len);
    const size_t need = luna_json_text_write(given, text.len, NULL, 0);
    char *json = malloc(need + 1), *back = malloc(need + 1);
    CHECK(json && back);
    CHECK(luna_json_text_write(given, text.len, json, need + 1) == need);
    CHECK(strlen(json) == need);
    size_t len = 0;
    const size_t used = luna_json_text_read(json, need, back, &len, &fault);
    if (luna_utf8_valid(given, text.len)) {
        CHECK(used == need && len == text.len);
        CHECK(len == 0 || memcmp(back, given, len) == 0);
    }
    free(given);
    free(json);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    if (len == 0) return 0;
    if (fuzz_bool(&from))
        write_and_read(fuzz_rest(&from));
    else if (from.left > 0 && from.at[0] == '"')
        read_any(fuzz_rest(&from));
    return 0;
}
