//  json_members.h - the members of a JSON object, one after the other
//
//  For metadata that must keep its own digits: ComfyUI's seeds have 64 bits, which
//  JSON libraries round. Values are given as they stand in the text.

#ifndef LUNA_WORKER_JSON_MEMBERS_H
#define LUNA_WORKER_JSON_MEMBERS_H

#include "common/arena.h"
#include "common/err.h"
#include "proto/message.h"

typedef struct luna_members {
    const char *at;
    const char *end;
    bool started;
} luna_members;

//  Starts on a text; borrows it.
luna_members luna_members_of(luna_blob json);

//  The next member: key and value as they stand in the text, a string with its
//  quotation marks. False at the end, and where the text is not an object of JSON.
bool luna_members_next(luna_members *members, luna_text *key, luna_text *value);

//  The value of the first member whose key is `word`, written without escapes; false
//  when there is none.
bool luna_members_find(luna_blob json, const char *word, luna_text *value);

//  A value as text: what a JSON string says, anything else as it stands. *out lives in
//  `memory` or borrows `value`. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_member_text(luna_arena *memory, luna_text value,
                                        luna_text *out);

#endif
