//  png_chunks.h - text in PNG files: prompt, workflow and every other metadata
//
//  Pure functions over the bytes of a PNG file; nothing here decodes pixels.
//  Formula source: PNG (third edition), sections 5 and 11.3.3.
//
//  Which chunk a text goes into:
//  - ASCII text: tEXt. ComfyUI's front end, Pillow and every indexer read it, the
//    oldest ones nothing else. ComfyUI's own JSON is ASCII.
//  - any other text: uncompressed iTXt, which is UTF-8 by definition. A tEXt chunk
//    is Latin-1 by the specification and in Pillow, but ComfyUI's front end decodes
//    it as UTF-8: "cafe" with an accent reads wrong in one of the two whichever
//    bytes are written. In iTXt both read the same.
//  - never zTXt or compressed iTXt: ComfyUI does not read them.

#ifndef LUNA_IMAGE_PNG_CHUNKS_H
#define LUNA_IMAGE_PNG_CHUNKS_H

#include "common/err.h"
#include "decoder/image/texts.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_PNG_KEYWORD_MAX 79          //  Latin-1 bytes
#define LUNA_PNG_CHUNK_MAX   2147483647  //  bytes of one chunk's data

typedef struct luna_png_chunk {
    char type[5];         //  "IHDR" and so on, with a NUL
    const uint8_t *data;  //  into the file
    size_t len;           //  bytes of data
    size_t at;            //  offset of the whole chunk (its length field)
} luna_png_chunk;

//  A place in a file; fill with luna_png_walk.
typedef struct luna_png_walker {
    const uint8_t *file;
    size_t len;  //  bytes of the file
    size_t at;   //  offset of the next chunk
    bool ended;  //  IEND was seen
} luna_png_walker;

//  Starts a walk. LUNA_BAD_REQUEST when the bytes are no PNG. Borrows `file`.
LUNA_MUST_USE luna_err luna_png_walk(const void *file, size_t len, luna_png_walker *out);

//  The next chunk, in order; after IEND LUNA_NOT_FOUND. LUNA_BAD_REQUEST for a chunk
//  that is cut off, too long, has a type of other than letters or a wrong CRC, for a
//  file that does not begin with IHDR or has bytes after IEND.
LUNA_MUST_USE luna_err luna_png_next(luna_png_walker *walker, luna_png_chunk *out);

//  A new file with `texts` right after IHDR, in their order, and everything else as
//  it was but for tIME and pHYs, which say nothing about the picture and are left
//  out. *out is malloc'd, the caller frees it; set on success only.
//
//  LUNA_BAD_REQUEST: `file` is no sound PNG; a keyword that is empty, too long, has
//  a character outside Latin-1's printable ones, a space at an end or two together,
//  or is there already or given twice; a text with a NUL or that is not UTF-8.
//  LUNA_TOO_LARGE: a text does not fit in one chunk. LUNA_NO_MEMORY.
//  Cost: reads and copies the file once.
LUNA_MUST_USE luna_err luna_png_add_text(const void *file, size_t len,
                                         const luna_image_text *texts, size_t count,
                                         uint8_t **out, size_t *out_len);

//  Only the checks of luna_png_add_text that need no file.
LUNA_MUST_USE luna_err luna_png_check_texts(const luna_image_text *texts, size_t count);

//  The text stored under `keyword` in a tEXt or uncompressed iTXt chunk: *out points
//  into the file, *out_len bytes, no NUL after it; UTF-8 when it came from iTXt or is
//  ASCII. LUNA_NOT_FOUND when there is none; LUNA_BAD_REQUEST as luna_png_next.
LUNA_MUST_USE luna_err luna_png_find_text(const void *file, size_t len,
                                          const char *keyword, const char **out,
                                          size_t *out_len);

#endif
