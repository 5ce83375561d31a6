//  base64.h - base64 to bytes (RFC 4648, section 4), in place
//
//  Strict, since a damaged latent must not become a damaged picture: only the
//  standard alphabet, `=` to a multiple of four, and no bits left over. Line breaks
//  and blanks, which many encoders put in, and JSON's `\/`, `\n`, `\r` are passed over.

#ifndef LUNA_BROKER_HTTP_BASE64_H
#define LUNA_BROKER_HTTP_BASE64_H

#include "common/err.h"

#include <stddef.h>

//  Decodes `text` (the inside of a JSON string) over itself; *len becomes the bytes
//  there are. LUNA_BAD_REQUEST, with `text` undefined, naming the place. About 1 GB/s.
LUNA_MUST_USE luna_err luna_base64_decode(char *text, size_t *len);

#endif
