#include "decoder/image/jpeg_segments.h"

#include <string.h>

#define SOI        0xD8
#define APP0       0xE0
#define APP1       0xE1
#define SOS        0xDA
#define HEAD_BYTES 4  //  marker and length

static const char exif_name[] = "Exif\0";                       //  6 bytes
static const char xmp_name[] = "http://ns.adobe.com/xap/1.0/";  //  29 bytes

typedef struct segment {
    uint8_t marker;
    const uint8_t *data;  //  behind the length
    size_t len;           //  of data
} segment;

static luna_err unsound(size_t at)
{
    return luna_error(LUNA_BAD_REQUEST, "the JPEG is damaged at byte %zu", at);
}

static luna_err check_start(const uint8_t *file, size_t len)
{
    if (len >= 4 && file[0] == 0xFF && file[1] == SOI && file[2] == 0xFF) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "the file is no JPEG");
}

//  The segment at *at, which moves to the next. The last one is SOS.
static luna_err next(const uint8_t *file, size_t len, size_t *at, segment *out)
{
    if (len - *at < HEAD_BYTES || file[*at] != 0xFF) return unsound(*at);
    const size_t told = luna_read_be16(file + *at + 2);
    if (file[*at + 1] < 0xC0 || told < 2 || told > len - *at - 2) return unsound(*at);
    *out = (segment){
        .marker = file[*at + 1], .data = file + *at + HEAD_BYTES, .len = told - 2};
    *at += 2 + told;
    return LUNA_OK;
}

static void put_app1(luna_bytes *out, const void *name, size_t name_len,
                     const luna_bytes *block)
{
    if (block->len == 0) return;
    luna_bytes_be16(out, 0xFF00 | APP1);
    luna_bytes_be16(out, (uint32_t)(2 + name_len + block->len));
    luna_bytes_put(out, name, name_len);
    luna_bytes_put(out, block->data, block->len);
}

//  Version 1.1, no unit, square pixels, no thumbnail. It stands first: Diffusion Toolkit
//  takes for a JPEG only what begins with an application segment.
static const uint8_t jfif[] = {0xFF, APP0, 0, 16, 'J', 'F', 'I', 'F', 0,
                               1,    1,    0, 0,  1,   0,   1,   0,   0};

//  Everything but APP0 and APP1, and behind SOS the picture.
static luna_err put_rest(luna_bytes *out, const uint8_t *file, size_t len)
{
    segment s = {0};
    size_t at = 2;
    while (s.marker != SOS) {
        const size_t from = at;
        LUNA_TRY(next(file, len, &at, &s));
        if (s.marker != APP0 && s.marker != APP1)
            luna_bytes_put(out, file + from, at - from);
    }
    luna_bytes_put(out, file + at, len - at);
    return LUNA_OK;
}

luna_err luna_jpeg_add(const void *file, size_t len, const luna_bytes *exif,
                       const luna_bytes *xmp, uint8_t **out, size_t *out_len)
{
    luna_bytes made = {0};
    LUNA_TRY(check_start(file, len));
    if (exif->len > LUNA_JPEG_EXIF_MAX || xmp->len > LUNA_JPEG_XMP_MAX)
        return luna_error(LUNA_TOO_LARGE, "a JPEG takes 64 KiB of metadata");
    luna_bytes_reserve(&made, len + exif->len + xmp->len + 128);
    luna_bytes_be16(&made, 0xFF00 | SOI);
    luna_bytes_put(&made, jfif, sizeof jfif);
    put_app1(&made, exif_name, sizeof exif_name, exif);
    put_app1(&made, xmp_name, sizeof xmp_name, xmp);
    luna_err err = put_rest(&made, file, len);
    if (err == LUNA_OK) err = luna_bytes_end(&made, "a JPEG file");
    if (err != LUNA_OK) {
        luna_bytes_free(&made);
        return err;
    }
    *out = made.data;
    *out_len = made.len;
    return LUNA_OK;
}

luna_err luna_jpeg_find(const void *file, size_t len, bool xmp, const uint8_t **out,
                        size_t *out_len)
{
    const char *name = xmp ? xmp_name : exif_name;
    const size_t name_len = xmp ? sizeof xmp_name : sizeof exif_name;
    segment s = {0};
    size_t at = 2;
    LUNA_TRY(check_start(file, len));
    while (s.marker != SOS) {
        LUNA_TRY(next(file, len, &at, &s));
        if (s.marker != APP1 || s.len < name_len) continue;
        if (memcmp(s.data, name, name_len) != 0) continue;
        *out = s.data + name_len;
        *out_len = s.len - name_len;
        return LUNA_OK;
    }
    return luna_error(LUNA_NOT_FOUND, "the JPEG has no such metadata");
}
