#include "common/json_text.h"
#include "common/hex.h"

#include "common/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct cursor {
    const char *at;
    const char *end;
    char *out;
    const char *fault;
} cursor;

//  The four digits after \u; -1 when they are not there.
static int32_t hex4(cursor *c)
{
    int32_t value = 0;
    if (c->end - c->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const int digit = luna_hex_value(c->at[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    c->at += 4;
    return value;
}

static bool fail(cursor *c, const char *fault)
{
    c->fault = fault;
    return false;
}

static bool read_unicode(cursor *c)
{
    int32_t code = hex4(c);
    if (code < 0) return fail(c, "\\u needs four hexadecimal digits");
    if (code >= 0xdc00 && code <= 0xdfff) return fail(c, "half a surrogate pair");
    if (code >= 0xd800 && code <= 0xdbff) {
        if (c->end - c->at < 6 || c->at[0] != '\\' || c->at[1] != 'u')
            return fail(c, "half a surrogate pair");
        c->at += 2;
        const int32_t low = hex4(c);
        if (low < 0xdc00 || low > 0xdfff) return fail(c, "half a surrogate pair");
        code = 0x10000 + (code - 0xd800) * 0x400 + (low - 0xdc00);
    }
    char bytes[4];
    const size_t len = luna_utf8_put((uint32_t)code, bytes);
    memcpy(c->out, bytes, len);
    c->out += len;
    return true;
}

static bool read_escape(cursor *c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (c->at == c->end) return fail(c, "a text without its end");
    const char letter = *c->at++;
    if (letter == 'u') return read_unicode(c);
    const char *found = memchr(from, letter, sizeof from - 1);
    if (!found) return fail(c, "an unknown escape");
    *c->out++ = to[found - from];
    return true;
}

static bool read_plain(cursor *c)
{
    const size_t len = luna_utf8_length(c->at, (size_t)(c->end - c->at));
    if (len == 0) return fail(c, "malformed UTF-8");
    if ((unsigned char)*c->at < 0x20) return fail(c, "a control character in a text");
    memmove(c->out, c->at, len);
    c->at += len;
    c->out += len;
    return true;
}

size_t luna_json_text_read(const char *json, size_t len, char *out, size_t *out_len,
                           const char **fault)
{
    cursor c = {.at = json, .end = json + len, .out = out, .fault = "no text"};
    bool good = len > 0 && *c.at++ == '"';
    while (good && c.at < c.end && *c.at != '"') {
        const bool escape = *c.at == '\\';
        if (escape) c.at++;
        good = escape ? read_escape(&c) : read_plain(&c);
    }
    if (good && c.at == c.end) good = fail(&c, "a text without its end");
    if (!good) {
        *fault = c.fault;
        return 0;
    }
    *out_len = (size_t)(c.out - out);
    return (size_t)(c.at + 1 - json);
}

static size_t escape_one(unsigned char c, char text[7])
{
    static const char digit[] = "0123456789abcdef";
    if (c >= 0x20 && c != '"' && c != '\\') {
        text[0] = (char)c;
        return 1;
    }
    if (c >= 0x20) {
        text[0] = '\\';
        text[1] = (char)c;
        return 2;
    }
    memcpy(text, "\\u00", 4);
    text[4] = digit[c >> 4];
    text[5] = digit[c & 15];
    return 6;
}

static void put(char *out, size_t room, size_t at, const char *piece, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at + i < room) out[at + i] = piece[i];
}

size_t luna_json_text_write(const char *text, size_t len, char *out, size_t room)
{
    size_t at = 0;
    put(out, room, at++, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        char piece[7];
        const size_t step = escape_one((unsigned char)text[i], piece);
        put(out, room, at, piece, step);
        at += step;
    }
    put(out, room, at++, "\"", 2);
    return at;
}
