#include "decoder/image/webp_chunks.h"

#include <string.h>

#define RIFF_BYTES 12  //  "RIFF", length, "WEBP"
#define HEAD_BYTES 8   //  type and length of a chunk
#define VP8X_BYTES 10
#define FLAG_ALPHA 0x10
#define FLAG_EXIF  0x08
#define FLAG_XMP   0x04

//  ---- reading --------------------------------------------------------------------

luna_err luna_webp_walk(const void *file, size_t len, luna_webp_walker *out)
{
    const uint8_t *at = file;
    if (len < RIFF_BYTES || memcmp(at, "RIFF", 4) != 0 || memcmp(at + 8, "WEBP", 4) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the file is no WebP");
    const uint64_t told = (uint64_t)luna_read_le32(at + 4) + HEAD_BYTES;
    if (told < RIFF_BYTES || told > len)
        return luna_error(LUNA_BAD_REQUEST, "the WebP is cut off");
    *out = (luna_webp_walker){.file = file, .len = (size_t)told, .at = RIFF_BYTES};
    return LUNA_OK;
}

luna_err luna_webp_next(luna_webp_walker *walker, luna_webp_chunk *out)
{
    const size_t left = walker->len - walker->at;
    const uint8_t *at = walker->file + walker->at;
    if (left == 0) return luna_error(LUNA_NOT_FOUND, "the WebP has no more chunks");
    if (left < HEAD_BYTES || luna_read_le32(at + 4) > left - HEAD_BYTES)
        return luna_error(LUNA_BAD_REQUEST, "the WebP is damaged at byte %zu",
                          walker->at);
    *out = (luna_webp_chunk){.data = at + HEAD_BYTES, .len = luna_read_le32(at + 4)};
    memcpy(out->type, at, 4);
    const size_t whole = HEAD_BYTES + out->len + (out->len & 1);
    walker->at += whole < left ? whole : left;
    return LUNA_OK;
}

//  ---- the picture's size ---------------------------------------------------------

typedef struct canvas {
    uint32_t width;  //  pixels, less one
    uint32_t height;
    uint8_t flags;
    bool known;
} canvas;

//  A key frame's header: RFC 6386, section 9.1.
static bool read_vp8(const luna_webp_chunk *c, canvas *out)
{
    const uint8_t *at = c->data;
    if (c->len < 10 || (at[0] & 1) || memcmp(at + 3, "\x9D\x01\x2A", 3) != 0)
        return false;
    const uint32_t width = (at[6] | (uint32_t)at[7] << 8) & 0x3FFF;
    const uint32_t height = (at[8] | (uint32_t)at[9] << 8) & 0x3FFF;
    *out = (canvas){.width = width - 1, .height = height - 1, .known = true};
    return width > 0 && height > 0;
}

//  The lossless bitstream's header: 14 bits each of width and height, less one, alpha.
static bool read_vp8l(const luna_webp_chunk *c, canvas *out)
{
    if (c->len < 5 || c->data[0] != 0x2F) return false;
    const uint32_t bits = luna_read_le32(c->data + 1);
    *out = (canvas){.width = bits & 0x3FFF,
                    .height = bits >> 14 & 0x3FFF,
                    .flags = bits >> 28 & 1 ? FLAG_ALPHA : 0,
                    .known = true};
    return true;
}

static bool read_vp8x(const luna_webp_chunk *c, canvas *out)
{
    if (c->len != VP8X_BYTES) return false;
    *out = (canvas){.width = luna_read_le32(c->data + 3) >> 8,
                    .height = luna_read_le32(c->data + 6) >> 8,
                    .flags = c->data[0] & (uint8_t) ~(FLAG_EXIF | FLAG_XMP),
                    .known = true};
    return true;
}

static bool is_type(const luna_webp_chunk *c, const char *type)
{
    return strcmp(c->type, type) == 0;
}

//  Checks the whole file.
static luna_err read_canvas(luna_webp_walker walker, canvas *out)
{
    luna_webp_chunk chunk;
    luna_err err;
    bool good = true;
    while (good && (err = luna_webp_next(&walker, &chunk)) == LUNA_OK) {
        if (is_type(&chunk, "ANIM") || is_type(&chunk, "ANMF"))
            return luna_error(LUNA_BAD_REQUEST, "the WebP is an animation");
        if (out->known) continue;
        if (is_type(&chunk, "VP8X")) good = read_vp8x(&chunk, out);
        if (is_type(&chunk, "VP8 ")) good = read_vp8(&chunk, out);
        if (is_type(&chunk, "VP8L")) good = read_vp8l(&chunk, out);
    }
    if (good && err != LUNA_NOT_FOUND) return err;
    if (good && out->known) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "the WebP has no picture");
}

//  ---- writing --------------------------------------------------------------------

static void put_chunk(luna_bytes *out, const char *type, const void *data, size_t len)
{
    luna_bytes_put(out, type, 4);
    luna_bytes_le32(out, (uint32_t)len);
    luna_bytes_put(out, data, len);
    luna_bytes_put(out, "", len & 1);
}

static void put_vp8x(luna_bytes *out, const canvas *c, uint8_t flags)
{
    const uint8_t data[VP8X_BYTES] = {(uint8_t)(c->flags | flags),
                                      0,
                                      0,
                                      0,
                                      (uint8_t)c->width,
                                      (uint8_t)(c->width >> 8),
                                      (uint8_t)(c->width >> 16),
                                      (uint8_t)c->height,
                                      (uint8_t)(c->height >> 8),
                                      (uint8_t)(c->height >> 16)};
    put_chunk(out, "VP8X", data, sizeof data);
}

//  The picture's own chunks, of even length.
static void put_picture(luna_bytes *out, luna_webp_walker walker)
{
    luna_webp_chunk chunk;
    while (luna_webp_next(&walker, &chunk) == LUNA_OK) {
        if (is_type(&chunk, "VP8X") || is_type(&chunk, "EXIF") || is_type(&chunk, "XMP "))
            continue;
        luna_bytes_put(out, chunk.type, 4);
        luna_bytes_le32(out, (uint32_t)(chunk.len + (chunk.len & 1)));
        luna_bytes_put(out, chunk.data, chunk.len);
        luna_bytes_put(out, "", chunk.len & 1);
    }
}

static void put_riff_length(luna_bytes *out)
{
    const uint32_t len = (uint32_t)(out->len - HEAD_BYTES);
    for (int i = 0; i < 4; i++) out->data[4 + i] = (uint8_t)(len >> (8 * i));
}

luna_err luna_webp_add(const void *file, size_t len, const luna_bytes *exif,
                       const luna_bytes *xmp, uint8_t **out, size_t *out_len)
{
    luna_webp_walker walker = {0};
    canvas size = {0};
    luna_bytes made = {0};
    LUNA_TRY(luna_webp_walk(file, len, &walker));
    LUNA_TRY(read_canvas(walker, &size));
    if (exif->len > UINT32_MAX / 4 || xmp->len > UINT32_MAX / 4 || len > UINT32_MAX / 4)
        return luna_error(LUNA_TOO_LARGE, "a WebP file takes 4 GiB");
    const uint8_t flags =
        (uint8_t)((exif->len ? FLAG_EXIF : 0) | (xmp->len ? FLAG_XMP : 0));
    luna_bytes_reserve(&made, len + exif->len + xmp->len + 64);
    luna_bytes_put(&made, "RIFF\0\0\0\0WEBP", RIFF_BYTES);
    if (flags || size.flags) put_vp8x(&made, &size, flags);
    put_picture(&made, walker);
    if (exif->len) put_chunk(&made, "EXIF", exif->data, exif->len);
    if (xmp->len) put_chunk(&made, "XMP ", xmp->data, xmp->len);
    LUNA_TRY(luna_bytes_end(&made, "a WebP file"));
    put_riff_length(&made);
    *out = made.data;
    *out_len = made.len;
    return LUNA_OK;
}
