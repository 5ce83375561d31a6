#include "broker/http/base64.h"

#include <stdint.h>
#include <string.h>

#define NONE 0x80  //  no character of the alphabet

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void fill_values(uint8_t value[256])
{
    memset(value, NONE, 256);
    for (uint8_t i = 0; i < 64; i++) value[(uint8_t)alphabet[i]] = i;
}

//  What a JSON escape stands for; 0 for one that has no place in base64.
static char unescape(char c)
{
    return c == '/' ? '/' : c == 'n' || c == 'r' || c == 't' ? ' ' : '\0';
}

//  Takes blanks and escapes out, so that the decoder sees the alphabet and '=' only.
static luna_err squeeze(char *text, size_t *len)
{
    size_t used = 0;
    for (size_t i = 0; i < *len; i++) {
        char c = text[i];
        if (c == '\\') c = i + 1 < *len ? unescape(text[++i]) : '\0';
        if (c == '\0')
            return luna_error(LUNA_BAD_REQUEST, "not base64: an escape at character %zu",
                              i);
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') text[used++] = c;
    }
    *len = used;
    return LUNA_OK;
}

//  Decodes whole groups of four; returns the characters read, a multiple of four.
static size_t decode_groups(const uint8_t value[256], const uint8_t *in, size_t len,
                            uint8_t *out)
{
    size_t i = 0;
    for (; i + 4 <= len; i += 4, out += 3) {
        const uint8_t a = value[in[i]], b = value[in[i + 1]];
        const uint8_t c = value[in[i + 2]], d = value[in[i + 3]];
        if ((a | b | c | d) & NONE) break;
        out[0] = (uint8_t)(a << 2 | b >> 4);
        out[1] = (uint8_t)(b << 4 | c >> 2);
        out[2] = (uint8_t)(c << 6 | d);
    }
    return i;
}

//  The last group, with one or two '='; returns the bytes it holds, 0 when it is wrong.
static size_t decode_last(const uint8_t value[256], const uint8_t in[4], uint8_t *out)
{
    const uint8_t a = value[in[0]], b = value[in[1]], c = value[in[2]];
    if (((a | b) & NONE) || in[3] != '=') return 0;
    const bool one = in[2] == '=' && (b & 15) == 0;
    const bool two = !(c & NONE) && (c & 3) == 0;
    if (one || two) out[0] = (uint8_t)(a << 2 | b >> 4);
    if (two) out[1] = (uint8_t)(b << 4 | c >> 2);
    return one ? 1 : two ? 2 : 0;
}

static luna_err odd_character(const uint8_t value[256], const uint8_t *in, size_t at)
{
    while (!(value[in[at]] & NONE)) at++;
    return luna_error(LUNA_BAD_REQUEST, "not base64: the byte 0x%02x at character %zu",
                      in[at], at);
}

luna_err luna_base64_decode(char *text, size_t *len)
{
    uint8_t value[256];
    fill_values(value);
    if (memchr(text, '\\', *len) || memchr(text, ' ', *len)) LUNA_TRY(squeeze(text, len));
    const size_t count = *len;
    if (count % 4 != 0)
        return luna_error(LUNA_BAD_REQUEST,
                          "not base64: %zu characters, which is no multiple of four",
                          count);
    uint8_t *bytes = (uint8_t *)text;
    const size_t done = decode_groups(value, bytes, count, bytes);
    *len = done / 4 * 3;
    if (done == count) return LUNA_OK;
    uint8_t last[4];
    memcpy(last, bytes + done, 4);  //  the output never reaches what is not read yet
    const size_t tail = done + 4 == count ? decode_last(value, last, bytes + *len) : 0;
    *len += tail;
    return tail ? LUNA_OK : odd_character(value, bytes, done);
}
