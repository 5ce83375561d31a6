//  avif_table.h - the table of an AVIF file: which items it has, and where their bytes
//  are
//
//  Used by avif_items.c. Borrows the file. Pure; thread-safe.

#ifndef LUNA_IMAGE_AVIF_TABLE_H
#define LUNA_IMAGE_AVIF_TABLE_H

#include "decoder/image/iso_boxes.h"

#define LUNA_ISO_VERSION_BYTES 4  //  of a full box: version and flags

//  Construction methods.
#define LUNA_AVIF_IN_FILE 0
#define LUNA_AVIF_IN_META 1

typedef struct luna_avif_table {
    const uint8_t *file;
    size_t len;
    luna_iso_box meta, iloc, iinf, iref;  //  iref.whole is 0 when there is none
    uint32_t primary;                     //  the picture's item
} luna_avif_table;

//  An item's place but for its extents.
typedef struct luna_avif_location {
    uint32_t id, method, reference, extents;
    uint64_t base;
} luna_avif_location;

//  A piece of an item, its base included.
typedef struct luna_avif_extent {
    uint64_t at, len;
} luna_avif_extent;

//  Reads the boxes of a file. LUNA_BAD_REQUEST as luna_avif_add says.
LUNA_MUST_USE luna_err luna_avif_open(const void *file, size_t len, luna_avif_table *out);

//  The boxes in a full box.
luna_iso_walker luna_avif_inside(const luna_iso_box *box);

//  The number of the first item of that type; 0 when there is none.
LUNA_MUST_USE luna_err luna_avif_find_item(const luna_avif_table *table, const char *type,
                                           uint32_t *id);

//  Calls for each extent; `first` is true for an item's first one. An error of `visit`
//  ends it. LUNA_BAD_REQUEST for a damaged box.
typedef luna_err luna_avif_visit(void *arg, const luna_avif_location *of,
                                 luna_avif_extent extent, bool first);
LUNA_MUST_USE luna_err luna_avif_each_extent(const luna_avif_table *table,
                                             luna_avif_visit *visit, void *arg);

//  "the AVIF has <what>": LUNA_BAD_REQUEST.
luna_err luna_avif_unsound(const char *what);

#endif
