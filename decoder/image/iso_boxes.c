#include "decoder/image/iso_boxes.h"

#include <string.h>

#define HEAD_BYTES  8
#define LARGE_BYTES 16  //  of a head whose length has 64 bits

//  The bytes of head and whole box by the head; a length of 0 reaches to the end.
static bool read_head(const uint8_t *at, size_t left, size_t *head, size_t *whole)
{
    if (left < HEAD_BYTES) return false;
    const uint32_t told = luna_read_be32(at);
    *head = told == 1 ? LARGE_BYTES : HEAD_BYTES;
    if (left < *head) return false;
    if (told == 1) {
        if (luna_read_be32(at + 8) != 0) return false;
        *whole = luna_read_be32(at + 12);
    } else {
        *whole = told == 0 ? left : told;
    }
    return *whole >= *head && *whole <= left;
}

luna_err luna_iso_next(luna_iso_walker *walker, luna_iso_box *out)
{
    const size_t left = walker->len - walker->at;
    const uint8_t *at = walker->from + walker->at;
    size_t head = 0, whole = 0;
    if (left == 0) return luna_error(LUNA_NOT_FOUND, "there are no more boxes");
    if (!read_head(at, left, &head, &whole))
        return luna_error(LUNA_BAD_REQUEST, "the box at byte %zu is damaged", walker->at);
    *out = (luna_iso_box){
        .data = at + head, .len = whole - head, .at = walker->at, .whole = whole};
    memcpy(out->type, at + 4, 4);
    walker->at += whole;
    return LUNA_OK;
}

luna_err luna_iso_find(luna_iso_walker walker, const char *type, luna_iso_box *out)
{
    luna_err err;
    while ((err = luna_iso_next(&walker, out)) == LUNA_OK)
        if (strcmp(out->type, type) == 0) return LUNA_OK;
    return err;
}

void luna_iso_head(luna_bytes *out, const char *type, size_t len)
{
    luna_bytes_be32(out, (uint32_t)(HEAD_BYTES + len));
    luna_bytes_put(out, type, 4);
}

void luna_iso_put(luna_bytes *out, const char *type, const void *data, size_t len)
{
    luna_iso_head(out, type, len);
    luna_bytes_put(out, data, len);
}
