//  xmp.h - an XMP packet of texts
//
//  Each text is a simple property of Luna's own namespace, named after its keyword.
//  Formula source: ISO 16684-1 (XMP), sections 6.3.2, 7.2 and 7.5. Pure; thread-safe.

#ifndef LUNA_IMAGE_XMP_H
#define LUNA_IMAGE_XMP_H

#include "decoder/image/bytes.h"
#include "decoder/image/texts.h"

#define LUNA_XMP_NAMESPACE "urn:luna:image:1"

//  Whether XML can hold it: the keyword is a plain name (a letter or '_', then letters,
//  digits and '_'), the text has no control characters but tab and the line ends.
bool luna_xmp_can_hold(const luna_image_text *text);

//  Bytes of the property of a text that can be held.
size_t luna_xmp_text_bytes(const luna_image_text *text);

//  Bytes of a packet without properties, at most: a packet's length is made even.
size_t luna_xmp_frame_bytes(void);

//  Adds a packet of those `texts` whose place in `chosen` is true; all can be held.
void luna_xmp_write(const luna_image_text *texts, const bool *chosen, size_t count,
                    luna_bytes *out);

#endif
