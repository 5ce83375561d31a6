//  values.c - any text as the value of a setting: numbers, words, ids, times, base64
//
//  A refused value leaves the old one; an accepted time is the one that was written; what
//  base64 decodes to encodes to the same characters.

#include "broker/http/base64.h"
#include "broker/http/value.h"
#include "fuzz/fuzz.h"

#include <ctype.h>
#include <math.h>
#include <time.h>

//  "2026-01-05T17:03:11Z", digit for digit: the only form with one possible reading.
static bool is_plain_utc(luna_text text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    if (text.len != sizeof form - 1) return false;
    for (size_t i = 0; i < text.len; i++)
        if (form[i] == 'd' ? !isdigit((unsigned char)text.data[i])
                           : text.data[i] != form[i])
            return false;
    return true;
}

static void check_time(luna_text text)
{
    uint64_t ms = 77;
    int64_t offset_min = 7;
    if (luna_http_time("timestamp", text, &ms, &offset_min) != LUNA_OK) {
        CHECK(ms == 77 && offset_min == 7);
        return;
    }
    CHECK(offset_min >= -1440 && offset_min <= 1440);
    if (!is_plain_utc(text)) return;
    char back[32];
    struct tm parts;
    const time_t seconds = (time_t)(ms / 1000);
    CHECK(gmtime_r(&seconds, &parts));
    CHECK(strftime(back, sizeof back, "%Y-%m-%dT%H:%M:%SZ", &parts) == text.len);
    CHECK(memcmp(back, text.data, text.len) == 0);
}

static void check_numbers(luna_text text)
{
    uint64_t number = 77;
    double real = 7.5;
    bool yes = true, no = false;
    if (luna_http_uint("n", text, &number) != LUNA_OK) CHECK(number == 77);
    if (luna_http_float("n", text, &real) != LUNA_OK) CHECK(real > 7.4 && real < 7.6);
    CHECK(isfinite(real));
    if (luna_http_bool("n", text, &yes) == LUNA_OK) {
        CHECK(luna_http_bool("n", text, &no) == LUNA_OK && yes == no);
    } else {
        CHECK(yes);
    }
}

static void check_words(luna_text text)
{
    luna_text dtype = {0};
    luna_id id = {{0}};
    const luna_err err = luna_http_dtype("d", text, &dtype);
    CHECK((err == LUNA_OK) == (dtype.data != NULL));
    const bool good = luna_http_id("id", text, &id) == LUNA_OK;
    CHECK(good == !luna_id_is_nil(&id));
    CHECK(luna_http_blanks(text) <= text.len);
}

static size_t encode(const uint8_t *bytes, size_t len, char *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t used = 0;
    for (size_t i = 0; i < len; i += 3) {
        const size_t left = len - i;
        const uint32_t three = (uint32_t)bytes[i] << 16 |
                               (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? bytes[i + 2] : 0);
        for (size_t j = 0; j < 4; j++)
            out[used++] = j > left ? '=' : alphabet[three >> (18 - 6 * j) & 63];
    }
    return used;
}

//  The text without what is passed over; false when it has an escape.
static bool plain_characters(luna_text text, char *out, size_t *len)
{
    *len = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\\') return false;
        if (!memchr(" \n\r\t", text.data[i], 4)) out[(*len)++] = text.data[i];
    }
    return true;
}

static void check_base64(luna_text text)
{
    char *copy = fuzz_copy(text.data, text.len);
    char *plain = malloc(text.len + 4), *again = malloc(text.len * 2 + 8);
    CHECK(plain && again);
    size_t len = text.len, plain_len;
    const luna_err err = luna_base64_decode(copy, &len);
    if (err != LUNA_OK) {
        CHECK(err == LUNA_BAD_REQUEST);
        fuzz_check_error(err);
    } else if (plain_characters(text, plain, &plain_len)) {
        CHECK(encode((const uint8_t *)copy, len, again) == plain_len);
        CHECK(memcmp(plain, again, plain_len) == 0);
    }
    free(copy);
    free(plain);
    free(again);
}

//  Any bytes decode from their own encoding.
static void check_encoded(luna_text bytes)
{
    char *text = malloc(bytes.len * 2 + 8);
    CHECK(text);
    size_t len = encode((const uint8_t *)bytes.data, bytes.len, text);
    CHECK(luna_base64_decode(text, &len) == LUNA_OK);
    CHECK(len == bytes.len && (len == 0 || memcmp(text, bytes.data, len) == 0));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *copy = fuzz_copy(data, len);
    const luna_text text = {.data = copy, .len = len};
    check_numbers(text);
    check_words(text);
    check_time(text);
    check_base64(text);
    check_encoded(text);
    free(copy);
    return 0;
}
