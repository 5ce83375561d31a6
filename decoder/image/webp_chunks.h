//  webp_chunks.h - EXIF and XMP in WebP files
//
//  Pure functions over the bytes of a WebP file; nothing here decodes pixels. Formula
//  source: the WebP container specification (RIFF, "VP8X", "EXIF", "XMP ").
//
//  A chunk of odd length is made to cover its padding byte, and the blocks that are added
//  are even: the parser of ComfyUI's page forgot the padding until February 2026 and
//  found no metadata behind such a chunk. Half of the lossless pictures have one.
//  Decoders read the same pixels from it: the bitstreams end themselves.

#ifndef LUNA_IMAGE_WEBP_CHUNKS_H
#define LUNA_IMAGE_WEBP_CHUNKS_H

#include "decoder/image/bytes.h"

typedef struct luna_webp_chunk {
    char type[5];         //  "VP8 " and so on, with a NUL
    const uint8_t *data;  //  into the file
    size_t len;           //  bytes of data, without padding
} luna_webp_chunk;

//  A place in a file; fill with luna_webp_walk.
typedef struct luna_webp_walker {
    const uint8_t *file;
    size_t len;  //  bytes of the RIFF chunk
    size_t at;
} luna_webp_walker;

//  Starts a walk. LUNA_BAD_REQUEST when the bytes are no WebP file, or cut off. Borrows.
LUNA_MUST_USE luna_err luna_webp_walk(const void *file, size_t len,
                                      luna_webp_walker *out);

//  The next chunk; at the end LUNA_NOT_FOUND. LUNA_BAD_REQUEST for one that is cut off.
LUNA_MUST_USE luna_err luna_webp_next(luna_webp_walker *walker, luna_webp_chunk *out);

//  A new file with these chunks, each left out when its len is 0. What the file had of
//  them is dropped. *out is malloc'd, the caller frees it; set on success only.
//  LUNA_BAD_REQUEST: `file` is no sound still WebP. LUNA_TOO_LARGE: more than 4 GiB.
//  LUNA_NO_MEMORY. Cost: copies the file once.
LUNA_MUST_USE luna_err luna_webp_add(const void *file, size_t len, const luna_bytes *exif,
                                     const luna_bytes *xmp, uint8_t **out,
                                     size_t *out_len);

#endif
