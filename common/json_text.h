//  json_text.h - one JSON string: its escapes resolved, or put in
//
//  For the few places that read or write a known, small JSON form without a JSON
//  library.

#ifndef LUNA_COMMON_JSON_TEXT_H
#define LUNA_COMMON_JSON_TEXT_H

#include <stddef.h>

//  Reads the string that starts at the quotation mark `json[0]`. Writes its UTF-8 to
//  `out`, never more bytes than it reads, and no NUL after it. Returns the bytes read,
//  both quotation marks included, or 0 with *fault (a static phrase) set: no closing
//  mark, a control character, malformed UTF-8, an unknown escape, half a surrogate pair.
//  `out` may be the place that is read.
size_t luna_json_text_read(const char *json, size_t len, char *out, size_t *out_len,
                           const char **fault);

//  Writes `text` with quotation marks, escapes and a NUL. Returns the bytes that takes
//  without the NUL; nothing is cut off, but nothing is written past `room` either: call
//  with room 0 to measure. UTF-8 is kept as it is.
size_t luna_json_text_write(const char *text, size_t len, char *out, size_t room);

#endif
