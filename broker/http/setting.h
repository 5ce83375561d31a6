//  setting.h - the settings of a job over HTTP, as a table
//
//  One row a name: what it holds and where it goes. JSON members and query strings
//  share it.

#ifndef LUNA_BROKER_HTTP_SETTING_H
#define LUNA_BROKER_HTTP_SETTING_H

#include "broker/http/draft.h"

typedef enum luna_http_kind {
    LUNA_HTTP_TEXT,      //  luna_text
    LUNA_HTTP_UINT,      //  uint64_t
    LUNA_HTTP_FLOAT,     //  double
    LUNA_HTTP_BOOL,      //  bool
    LUNA_HTTP_ID,        //  luna_id
    LUNA_HTTP_TIME,      //  created_ms and utc_offset_min
    LUNA_HTTP_DOCUMENT,  //  luna_blob: JSON kept byte for byte, or a string holding it
    LUNA_HTTP_OBJECT,    //  the same, and it must be an object
    LUNA_HTTP_EXTRA,     //  extra_pnginfo: workflow and further documents
    LUNA_HTTP_DTYPE,     //  luna_text: the wire's word for any usual name
    LUNA_HTTP_SHAPE,     //  luna_dims
    LUNA_HTTP_DATA,      //  luna_blob: the base64 text, not decoded yet
    LUNA_HTTP_LATENTS    //  luna_text: the list's span
} luna_http_kind;

typedef struct luna_http_setting {
    const char *name;
    luna_http_kind kind;
    bool of_input;  //  goes into a luna_msg_input, else into the luna_draft
    size_t offset;
} luna_http_setting;

//  NULL when there is none of that name.
const luna_http_setting *luna_http_setting_find(luna_text name);

//  Place in the table, below 64.
size_t luna_http_setting_index(const luna_http_setting *setting);

//  Sets from a query's value (borrowed) or from the span of a JSON value (borrowed;
//  `null` changes nothing). `input` is where settings of an input go.
//  LUNA_BAD_REQUEST naming the setting, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_http_setting_text(luna_draft *draft, luna_msg_input *input,
                                              const luna_http_setting *setting,
                                              luna_text value);
LUNA_MUST_USE luna_err luna_http_setting_json(luna_draft *draft, luna_msg_input *input,
                                              const luna_http_setting *setting,
                                              luna_text value);

//  The text of a JSON string's span, escapes resolved (from the arena), or the span's
//  own bytes where there are none. LUNA_BAD_REQUEST for a NUL, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_http_json_string(luna_draft *draft, luna_text span,
                                             luna_text *out);

#endif
