#include "common/utf8.h"

//  Bytes that a first byte announces; 0 for one that can start nothing.
static size_t announced(uint8_t first)
{
    if (first < 0x80) return 1;
    if (first < 0xc2) return 0;
    if (first < 0xe0) return 2;
    if (first < 0xf0) return 3;
    return first < 0xf5 ? 4 : 0;
}

//  The second byte's range depends on the first: RFC 3629, section 4.
static bool second_fits(uint8_t first, uint8_t second)
{
    if (first == 0xe0) return second >= 0xa0 && second <= 0xbf;
    if (first == 0xed) return second >= 0x80 && second <= 0x9f;
    if (first == 0xf0) return second >= 0x90 && second <= 0xbf;
    if (first == 0xf4) return second >= 0x80 && second <= 0x8f;
    return second >= 0x80 && second <= 0xbf;
}

size_t luna_utf8_length(const char *text, size_t len)
{
    if (len == 0) return 0;
    const uint8_t *byte = (const uint8_t *)text;
    const size_t want = announced(byte[0]);
    if (want > len) return 0;
    if (want > 1 && !second_fits(byte[0], byte[1])) return 0;
    for (size_t i = 2; i < want; i++)
        if (byte[i] < 0x80 || byte[i] > 0xbf) return 0;
    return want;
}

bool luna_utf8_valid(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        const size_t step = luna_utf8_length(text + at, len - at);
        if (step == 0) return false;
        at += step;
    }
    return true;
}

size_t luna_utf8_put(uint32_t code, char out[4])
{
    const size_t extra = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t mark[4] = {0x00, 0xc0, 0xe0, 0xf0};
    for (size_t i = extra; i > 0; i--) {
        out[i] = (char)(0x80U | (code & 0x3fU));
        code >>= 6;
    }
    out[0] = (char)(mark[extra] | code);
    return extra + 1;
}
