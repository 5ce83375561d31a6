#include "decoder/image/exif.h"

#include <string.h>

#define HEADER_BYTES  8
#define ENTRY_BYTES   12
#define IFD_BYTES(n)  (2 + ENTRY_BYTES * (n) + 4)
#define INLINE_BYTES  4  //  a value this short stands in the entry itself
#define TYPE_ASCII    2
#define TYPE_LONG     4
#define TYPE_UNDEF    7
#define TAG_EXIF_IFD  0x8769
#define TAG_COMMENT   0x9286
#define COMMENT_HEAD  "UNICODE"  //  and its NUL: 8 bytes
#define COMMENT_START 8

//  ---- sizes ----------------------------------------------------------------------

static size_t value_bytes(const luna_exif_entry *e)
{
    return (e->keyword ? strlen(e->keyword) + 1 : 0) + e->len + !e->coded;
}

//  Values begin at even offsets; short ones need no place of their own.
static size_t place_bytes(size_t value)
{
    return value <= INLINE_BYTES ? 0 : value + (value & 1);
}

//  One unit a character, two above U+FFFF. `text` is valid UTF-8.
static size_t utf16_bytes(const char *text, size_t len)
{
    size_t units = 0;
    for (size_t i = 0; i < len; i++) {
        const uint8_t byte = (uint8_t)text[i];
        units += (byte & 0xC0) != 0x80;
        units += byte >= 0xF0;
    }
    return 2 * units;
}

static size_t comment_bytes(const luna_exif *exif)
{
    return COMMENT_START + utf16_bytes(exif->comment, exif->comment_len);
}

static size_t ifd0_count(const luna_exif *exif)
{
    return exif->count + (exif->comment != NULL);
}

size_t luna_exif_bytes(const luna_exif *exif)
{
    size_t total = HEADER_BYTES + IFD_BYTES(ifd0_count(exif));
    for (size_t i = 0; i < exif->count; i++) {
        if (exif->entries[i].len > UINT32_MAX / 4) return SIZE_MAX;
        total += place_bytes(value_bytes(&exif->entries[i]));
        if (total > UINT32_MAX / 4) return SIZE_MAX;
    }
    if (!exif->comment) return total;
    if (exif->comment_len > UINT32_MAX / 4) return SIZE_MAX;
    return total + IFD_BYTES(1) + place_bytes(comment_bytes(exif));
}

//  ---- writing --------------------------------------------------------------------

static void put_entry(luna_bytes *out, uint32_t tag, uint32_t type, size_t count)
{
    luna_bytes_be16(out, tag);
    luna_bytes_be16(out, type);
    luna_bytes_be32(out, (uint32_t)count);
}

static void put_value(luna_bytes *out, const luna_exif_entry *e)
{
    if (e->keyword) luna_bytes_text(out, e->keyword);
    if (e->keyword) luna_bytes_put(out, ":", 1);
    luna_bytes_put(out, e->text, e->len);
    luna_bytes_put(out, "", !e->coded);
}

//  *at is the offset of the next value's place, and moves on.
static void put_text_entry(luna_bytes *out, const luna_exif_entry *e, size_t *at)
{
    const size_t bytes = value_bytes(e);
    put_entry(out, e->tag, e->coded ? TYPE_UNDEF : TYPE_ASCII, bytes);
    if (bytes > INLINE_BYTES) {
        luna_bytes_be32(out, (uint32_t)*at);
    } else {
        put_value(out, e);
        luna_bytes_put(out, "\0\0\0", INLINE_BYTES - bytes);
    }
    *at += place_bytes(bytes);
}

static void put_ifd_pointer(luna_bytes *out, size_t at)
{
    put_entry(out, TAG_EXIF_IFD, TYPE_LONG, 1);
    luna_bytes_be32(out, (uint32_t)at);
}

//  The pointer stands among the entries in the order of tags.
static void put_ifd0(luna_bytes *out, const luna_exif *exif, size_t values, size_t ifd)
{
    bool pointed = exif->comment == NULL;
    luna_bytes_be16(out, (uint32_t)ifd0_count(exif));
    for (size_t i = 0; i < exif->count; i++) {
        if (!pointed && exif->entries[i].tag > TAG_EXIF_IFD) {
            put_ifd_pointer(out, ifd);
            pointed = true;
        }
        put_text_entry(out, &exif->entries[i], &values);
    }
    if (!pointed) put_ifd_pointer(out, ifd);
    luna_bytes_be32(out, 0);
}

static void put_utf16(luna_bytes *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        const uint8_t *at = (const uint8_t *)text + i;
        const size_t more = (at[0] >= 0xC0) + (size_t)(at[0] >= 0xE0) + (at[0] >= 0xF0);
        uint32_t code = more ? at[0] & (0x3Fu >> more) : at[0];
        for (size_t k = 1; k <= more; k++) code = code << 6 | (at[k] & 0x3Fu);
        if (code > 0xFFFF) luna_bytes_be16(out, 0xD800 + ((code - 0x10000) >> 10));
        luna_bytes_be16(out, code > 0xFFFF ? 0xDC00 + ((code - 0x10000) & 0x3FF) : code);
        i += more + 1;
    }
}

static void put_comment(luna_bytes *out, const luna_exif *exif, size_t ifd)
{
    luna_bytes_be16(out, 1);
    put_entry(out, TAG_COMMENT, TYPE_UNDEF, comment_bytes(exif));
    luna_bytes_be32(out, (uint32_t)(ifd + IFD_BYTES(1)));
    luna_bytes_be32(out, 0);
    luna_bytes_put(out, COMMENT_HEAD, COMMENT_START);
    put_utf16(out, exif->comment, exif->comment_len);
}

void luna_exif_write(const luna_exif *exif, luna_bytes *out)
{
    const size_t values = HEADER_BYTES + IFD_BYTES(ifd0_count(exif));
    size_t ifd = values;
    for (size_t i = 0; i < exif->count; i++)
        ifd += place_bytes(value_bytes(&exif->entries[i]));
    luna_bytes_text(out, "MM");
    luna_bytes_be16(out, 42);
    luna_bytes_be32(out, HEADER_BYTES);
    put_ifd0(out, exif, values, ifd);
    for (size_t i = 0; i < exif->count; i++) {
        const size_t bytes = value_bytes(&exif->entries[i]);
        if (bytes <= INLINE_BYTES) continue;
        put_value(out, &exif->entries[i]);
        luna_bytes_put(out, "", bytes & 1);
    }
    if (exif->comment) put_comment(out, exif, ifd);
}
