//  json_walk.h - the members of a JSON object or array as spans of the text
//
//  `prompt`, `workflow` and the like must reach the picture byte for byte: parsing
//  and writing them again would change 64-bit seeds, number forms, key order and
//  escapes. So the text is walked, strictly checked (RFC 8259, UTF-8), and every
//  value is handed out as the bytes it is. Nothing is allocated and nothing recurses,
//  whatever the text holds; about 1 GB/s.
//
//  One thing beyond the RFC is let through: NaN, Infinity and -Infinity as values.
//  Python writes them, and ComfyUI's own prompts hold them ("is_changed": [NaN]).

#ifndef LUNA_BROKER_HTTP_JSON_WALK_H
#define LUNA_BROKER_HTTP_JSON_WALK_H

#include "proto/message.h"

#define LUNA_JSON_DEPTH_MAX 512

typedef struct luna_json_walk {
    luna_text document;  //  the whole text, for positions in errors
    const char *at;
    const char *end;
    bool object;  //  else an array
    bool started;
} luna_json_walk;

//  Checks `document` whole: one value, nothing after it. *out is the value without
//  the blanks around it. LUNA_BAD_REQUEST naming line and column.
LUNA_MUST_USE luna_err luna_json_check(luna_text document, luna_text *out);

//  Starts on `value`, a span of a checked document. LUNA_BAD_REQUEST, with the
//  position, when it is neither an object nor an array.
LUNA_MUST_USE luna_err luna_json_enter(luna_text document, luna_text value,
                                       luna_json_walk *out);

//  The next member: true, with its value and, in an object, its key between (without)
//  the quotation marks, escapes kept; or false at the end.
bool luna_json_next(luna_json_walk *walk, luna_text *key, luna_text *value);

//  A sentence "line 3, column 7: WHAT" for a place in the document. LUNA_BAD_REQUEST.
luna_err luna_json_fault(luna_text document, const char *at, const char *what);

#endif
