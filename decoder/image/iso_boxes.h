//  iso_boxes.h - the boxes of ISO files, of which AVIF and JPEG XL are made
//
//  Formula source: ISO/IEC 14496-12, section 4.2. Pure; thread-safe.

#ifndef LUNA_IMAGE_ISO_BOXES_H
#define LUNA_IMAGE_ISO_BOXES_H

#include "decoder/image/bytes.h"

typedef struct luna_iso_box {
    char type[5];         //  "ftyp" and so on, with a NUL
    const uint8_t *data;  //  behind its head, into the file
    size_t len;           //  bytes of data
    size_t at;            //  offset of the whole box in what is walked
    size_t whole;         //  bytes of the whole box
} luna_iso_box;

//  A place in a file, or in a box of boxes; fill it in with `at` 0.
typedef struct luna_iso_walker {
    const uint8_t *from;
    size_t len;
    size_t at;
} luna_iso_walker;

//  The next box; at the end LUNA_NOT_FOUND. LUNA_BAD_REQUEST for one that is cut off.
LUNA_MUST_USE luna_err luna_iso_next(luna_iso_walker *walker, luna_iso_box *out);

//  The first box of that type behind the walker's place, which does not move. Errors as
//  above.
LUNA_MUST_USE luna_err luna_iso_find(luna_iso_walker walker, const char *type,
                                     luna_iso_box *out);

//  Adds the head of a box with so many bytes of data, of less than 4 GiB.
void luna_iso_head(luna_bytes *out, const char *type, size_t len);

//  Adds a box.
void luna_iso_put(luna_bytes *out, const char *type, const void *data, size_t len);

#endif
