//  exif.h - an EXIF block of texts
//
//  A TIFF structure in big-endian order, without a picture: IFD0 with ASCII entries and,
//  for a user comment, the Exif IFD. Formula source: Exif 2.32 (CIPA DC-008), sections
//  4.5.2 and 4.6; TIFF 6.0, section 2. The bytes of an ASCII entry are UTF-8, which is
//  what ComfyUI's page, Pillow and exiftool make of them. Pure; thread-safe.

#ifndef LUNA_IMAGE_EXIF_H
#define LUNA_IMAGE_EXIF_H

#include "decoder/image/bytes.h"

#define LUNA_EXIF_ENTRIES_MAX 1024

//  One ASCII entry: its value is `keyword`, a colon and `text`, or `text` alone when
//  keyword is NULL. A coded one is UNDEFINED, as user comments are: `text` begins with
//  the eight bytes that name its coding and has no NUL behind it. All borrowed.
typedef struct luna_exif_entry {
    uint16_t tag;
    bool coded;
    const char *keyword;
    const char *text;
    size_t len;
} luna_exif_entry;

typedef struct luna_exif {
    const luna_exif_entry *entries;  //  tags ascending, each once, none above 0xFFFF
    size_t count;                    //  at most LUNA_EXIF_ENTRIES_MAX
    const char *comment;             //  UserComment, UTF-8, stored as UTF-16; or NULL
    size_t comment_len;
} luna_exif;

//  Bytes that luna_exif_write would add. SIZE_MAX when that does not fit 32 bits.
size_t luna_exif_bytes(const luna_exif *exif);

//  Adds the block, which begins with "MM", to `out`; `out` need not be empty.
//  Only for a block whose luna_exif_bytes is not SIZE_MAX.
void luna_exif_write(const luna_exif *exif, luna_bytes *out);

#endif
