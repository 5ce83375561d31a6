//  jxl_boxes.h - EXIF and XMP in JPEG XL files
//
//  Pure functions over the bytes of a JPEG XL file; nothing here decodes pixels. Formula
//  source: ISO/IEC 18181-2, section 9.

#ifndef LUNA_IMAGE_JXL_BOXES_H
#define LUNA_IMAGE_JXL_BOXES_H

#include "decoder/image/bytes.h"

//  A new file with these blocks in boxes before the picture, each left out when its len
//  is 0. A bare codestream without blocks stays one, else it is put into a container.
//  What the file had of them is dropped. *out is malloc'd, the caller frees it; set on
//  success only. LUNA_BAD_REQUEST: `file` is no sound JPEG XL. LUNA_TOO_LARGE: more than
//  4 GiB. LUNA_NO_MEMORY. Cost: copies the file once.
LUNA_MUST_USE luna_err luna_jxl_add(const void *file, size_t len, const luna_bytes *exif,
                                    const luna_bytes *xmp, uint8_t **out,
                                    size_t *out_len);

//  The TIFF block or XMP packet of a file: *out points into it. LUNA_NOT_FOUND when it
//  has none, LUNA_BAD_REQUEST as above.
LUNA_MUST_USE luna_err luna_jxl_find(const void *file, size_t len, bool xmp,
                                     const uint8_t **out, size_t *out_len);

#endif
