#include "decoder/image/jxl_boxes.h"

#include "decoder/image/iso_boxes.h"

#include <string.h>

#define EXIF_START 4  //  the TIFF block's offset behind this number, which is 0

static const uint8_t signature[] = {0,   0,   0,    12,   'J',  'X',
                                    'L', ' ', 0x0D, 0x0A, 0x87, 0x0A};
static const uint8_t brands[] = {'j', 'x', 'l', ' ', 0, 0, 0, 0, 'j', 'x', 'l', ' '};

static bool is_codestream(const uint8_t *file, size_t len)
{
    return len >= 4 && file[0] == 0xFF && file[1] == 0x0A;
}

static bool is_container(const uint8_t *file, size_t len)
{
    return len > sizeof signature && memcmp(file, signature, sizeof signature) == 0;
}

static bool is(const luna_iso_box *box, const char *type)
{
    return strcmp(box->type, type) == 0;
}

static bool is_picture(const luna_iso_box *box)
{
    return is(box, "jxlc") || is(box, "jxlp");
}

static void put_blocks(luna_bytes *out, const luna_bytes *exif, const luna_bytes *xmp)
{
    if (exif->len) {
        luna_iso_head(out, "Exif", EXIF_START + exif->len);
        luna_bytes_be32(out, 0);
        luna_bytes_put(out, exif->data, exif->len);
    }
    if (xmp->len) luna_iso_put(out, "xml ", xmp->data, xmp->len);
}

//  The boxes of a container, the blocks before the first of the picture. Each is given
//  its length: the last may have left it out.
static luna_err put_container(luna_bytes *out, const uint8_t *file, size_t len,
                              const luna_bytes *exif, const luna_bytes *xmp)
{
    luna_iso_walker walker = {.from = file, .len = len};
    luna_iso_box box = {0};
    bool pictured = false;
    luna_err err;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK) {
        if (is(&box, "Exif") || is(&box, "xml ")) continue;
        if (is_picture(&box) && !pictured) put_blocks(out, exif, xmp);
        pictured = pictured || is_picture(&box);
        luna_iso_put(out, box.type, box.data, box.len);
    }
    if (err != LUNA_NOT_FOUND) return err;
    return pictured ? LUNA_OK
                    : luna_error(LUNA_BAD_REQUEST, "the JPEG XL has no picture");
}

static luna_err put_file(luna_bytes *out, const uint8_t *file, size_t len,
                         const luna_bytes *exif, const luna_bytes *xmp)
{
    if (is_container(file, len)) return put_container(out, file, len, exif, xmp);
    if (!is_codestream(file, len))
        return luna_error(LUNA_BAD_REQUEST, "the file is no JPEG XL");
    if (exif->len == 0 && xmp->len == 0) {
        luna_bytes_put(out, file, len);
        return LUNA_OK;
    }
    luna_bytes_put(out, signature, sizeof signature);
    luna_iso_put(out, "ftyp", brands, sizeof brands);
    put_blocks(out, exif, xmp);
    luna_iso_put(out, "jxlc", file, len);
    return LUNA_OK;
}

luna_err luna_jxl_add(const void *file, size_t len, const luna_bytes *exif,
                      const luna_bytes *xmp, uint8_t **out, size_t *out_len)
{
    luna_bytes made = {0};
    if (exif->len > UINT32_MAX / 4 || xmp->len > UINT32_MAX / 4 || len > UINT32_MAX / 4)
        return luna_error(LUNA_TOO_LARGE, "a JPEG XL file takes 4 GiB");
    luna_bytes_reserve(&made, len + exif->len + xmp->len + 128);
    luna_err err = put_file(&made, file, len, exif, xmp);
    if (err == LUNA_OK) err = luna_bytes_end(&made, "a JPEG XL file");
    if (err != LUNA_OK) {
        luna_bytes_free(&made);
        return err;
    }
    *out = made.data;
    *out_len = made.len;
    return LUNA_OK;
}

luna_err luna_jxl_find(const void *file, size_t len, bool xmp, const uint8_t **out,
                       size_t *out_len)
{
    const luna_iso_walker walker = {.from = file, .len = len};
    const size_t start = xmp ? 0 : EXIF_START;
    luna_iso_box box;
    if (is_codestream(file, len))
        return luna_error(LUNA_NOT_FOUND, "the JPEG XL has no boxes");
    if (!is_container(file, len))
        return luna_error(LUNA_BAD_REQUEST, "the file is no JPEG XL");
    LUNA_TRY(luna_iso_find(walker, xmp ? "xml " : "Exif", &box));
    if (box.len < start) return luna_error(LUNA_BAD_REQUEST, "the EXIF box is cut off");
    *out = box.data + start;
    *out_len = box.len - start;
    return LUNA_OK;
}
