//  jpeg_segments.h - EXIF and XMP in JPEG files
//
//  Pure functions over the bytes of a JPEG file; nothing here decodes pixels. Formula
//  source: ITU T.81, annex B; Exif 2.32, section 4.5.4;
//  ISO 16684-3, section 1.1.3 (XMP).

#ifndef LUNA_IMAGE_JPEG_SEGMENTS_H
#define LUNA_IMAGE_JPEG_SEGMENTS_H

#include "decoder/image/bytes.h"

//  Bytes of a TIFF block and of an XMP packet that fit into their segments.
#define LUNA_JPEG_EXIF_MAX (65533 - 6)
#define LUNA_JPEG_XMP_MAX  (65533 - 29)

//  A new file with a JFIF header that claims no resolution and these blocks in APP1
//  segments, each left out when its len is 0. What the file had of APP0 and APP1 is
//  dropped. *out is malloc'd, the caller frees it; set on success only.
//  LUNA_BAD_REQUEST: `file` is no sound JPEG. LUNA_TOO_LARGE: a block that does not fit.
//  LUNA_NO_MEMORY. Cost: copies the file once.
LUNA_MUST_USE luna_err luna_jpeg_add(const void *file, size_t len, const luna_bytes *exif,
                                     const luna_bytes *xmp, uint8_t **out,
                                     size_t *out_len);

//  The TIFF block or XMP packet of a file: *out points into it. LUNA_NOT_FOUND when it
//  has none, LUNA_BAD_REQUEST as above.
LUNA_MUST_USE luna_err luna_jpeg_find(const void *file, size_t len, bool xmp,
                                      const uint8_t **out, size_t *out_len);

#endif
