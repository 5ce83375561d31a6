//  embed.h - the texts of an image into its file, whatever its format
//
//  PNG    every text in a tEXt or iTXt chunk of its keyword (png_chunks.h).
//  WebP   an EXIF chunk as ComfyUI writes and reads it: ASCII entries "keyword:text" in
//         IFD0, Model (0x0110) for "prompt", Make (0x010F) for "workflow", the next lower
//         two tags and then private ones from 0xFE80 for the other JSON of ComfyUI;
//         "parameters" is the UserComment. The other texts are properties of an XMP
//         chunk; those that XML cannot hold go into private EXIF entries.
//  JPEG   the same in APP1 segments, and the prompt once more as {"prompt":...} in an
//         IFD0 UserComment, where Diffusion Toolkit looks for it.
//
//  JPEG's segments end at 64 KiB, so texts are left out until the others fit:
//    EXIF   the copy of the prompt; prompt; workflow (but then the prompt, if it fits);
//           both; everything but the parameters; everything
//    XMP    daam_heatmaps; generation_metadata, whose members stand beside it; then
//    always the longest
//  The picture is never refused for its texts: what a format cannot hold is left out and
//  told.

#ifndef LUNA_IMAGE_EMBED_H
#define LUNA_IMAGE_EMBED_H

#include "decoder/image/encode.h"
#include "decoder/image/texts.h"

#define LUNA_EMBED_TEXTS_MAX 384  //  the private EXIF tags there are

//  Puts the texts into `file`, which is freed; *file and *len are the new file's. On an
//  error they are unchanged. left_out[i] tells which texts did not fit.
//
//  `count` is at most LUNA_EMBED_TEXTS_MAX. Texts are checked as luna_png_add_text says,
//  for every format: LUNA_BAD_REQUEST. LUNA_NO_MEMORY. Thread-safe.
LUNA_MUST_USE luna_err luna_image_embed(luna_format format, const luna_image_text *texts,
                                        size_t count, uint8_t **file, size_t *len,
                                        bool *left_out);

#endif
