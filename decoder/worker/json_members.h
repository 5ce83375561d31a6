//  json_members.h - the members of a JSON object, one after the other
//
//  For metadata that must keep its own digits: ComfyUI's seeds have 64 bits, which
//  JSON libraries round. Values are given as they stand in the text.

#ifndef LUNA_WORKER_JSON_MEMBERS_H
#define LUNA_WORKER_JSON_MEMBERS_H

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

#endif
