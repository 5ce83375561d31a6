//  avif_items.h - EXIF and XMP in AVIF files
//
//  Pure functions over the bytes of an AVIF file; nothing here decodes pixels. Formula
//  source: ISO/IEC 14496-12, sections 4.2 and 8.11; ISO/IEC 23008-12, annex A.
//
//  The blocks become items of the types "Exif" and "mime" that describe the picture.
//  Their bytes stand in a media box at the end; what points at the picture moves by as
//  much as the boxes before it grow. ComfyUI's page looks for the first Exif item, at an
//  absolute offset, in one piece.

#ifndef LUNA_IMAGE_AVIF_ITEMS_H
#define LUNA_IMAGE_AVIF_ITEMS_H

#include "decoder/image/bytes.h"

//  A new file with these blocks, each left out when its len is 0. *out is malloc'd, the
//  caller frees it; set on success only. LUNA_BAD_REQUEST: `file` is no sound still AVIF
//  with one table of items of 16-bit numbers, or it has such blocks already.
//  LUNA_TOO_LARGE: more than 4 GiB. LUNA_NO_MEMORY. Cost: copies the file once.
LUNA_MUST_USE luna_err luna_avif_add(const void *file, size_t len, const luna_bytes *exif,
                                     const luna_bytes *xmp, uint8_t **out,
                                     size_t *out_len);

//  The TIFF block or XMP packet of a file: *out points into it. LUNA_NOT_FOUND when it
//  has none, LUNA_BAD_REQUEST as above.
LUNA_MUST_USE luna_err luna_avif_find(const void *file, size_t len, bool xmp,
                                      const uint8_t **out, size_t *out_len);

#endif
