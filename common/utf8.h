//  utf8.h - checking and writing UTF-8 (RFC 3629)

#ifndef LUNA_COMMON_UTF8_H
#define LUNA_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  Bytes of the well-formed character at `text`, 1 to 4; 0 when it is overlong, a
//  surrogate, above U+10FFFF, cut off by `len`, or `len` is 0.
size_t luna_utf8_length(const char *text, size_t len);

//  Whether all of `text` is well-formed. Empty text is.
bool luna_utf8_valid(const char *text, size_t len);

//  Writes the character `code` (at most U+10FFFF, no surrogate) and returns its bytes,
//  1 to 4.
size_t luna_utf8_put(uint32_t code, char out[4]);

#endif
