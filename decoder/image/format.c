//  The table of formats in encode.h, without libvips.

#include "decoder/image/encode.h"

#include <string.h>

typedef struct format_row {
    const char *word;
    const char *extension;
} format_row;

static const format_row rows[LUNA_FORMAT_COUNT] = {
#define X(symbol, word, extension) {word, extension},
    LUNA_FORMAT_TABLE(X)
#undef X
};

static const format_row *row_of(luna_format format)
{
    return &rows[(unsigned)format < LUNA_FORMAT_COUNT ? format : LUNA_FORMAT_PNG];
}

static bool same(const char *word, size_t len, const char *known)
{
    return strlen(known) == len && memcmp(word, known, len) == 0;
}

luna_err luna_format_parse(const char *word, size_t len, luna_format *out)
{
    for (unsigned i = 0; i < LUNA_FORMAT_COUNT; i++) {
        if (len == 0) break;
        if (!same(word, len, rows[i].word) && !same(word, len, rows[i].extension))
            continue;
        *out = (luna_format)i;
        return LUNA_OK;
    }
    return luna_error(LUNA_BAD_REQUEST,
                      "\"%.*s\" is no image format; use png, webp, jpeg, avif or jxl",
                      len < 20 ? (int)len : 20, len ? word : "");
}

const char *luna_format_word(luna_format format)
{
    return row_of(format)->word;
}

const char *luna_format_extension(luna_format format)
{
    return row_of(format)->extension;
}
