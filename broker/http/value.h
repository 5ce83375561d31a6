//  value.h - the values of settings, read from text
//
//  Each names the setting (`name`) in its LUNA_BAD_REQUEST and leaves *out unchanged
//  then.

#ifndef LUNA_BROKER_HTTP_VALUE_H
#define LUNA_BROKER_HTTP_VALUE_H

#include "proto/message.h"

//  Digits only, up to 2^64 - 1.
LUNA_MUST_USE luna_err luna_http_uint(const char *name, luna_text value, uint64_t *out);

//  A finite decimal number.
LUNA_MUST_USE luna_err luna_http_float(const char *name, luna_text value, double *out);

//  true, false, 1, 0, yes, no, on, off.
LUNA_MUST_USE luna_err luna_http_bool(const char *name, luna_text value, bool *out);

//  A UUID, but not the nil one; quotation marks around it are passed over.
LUNA_MUST_USE luna_err luna_http_id(const char *name, luna_text value, luna_id *out);

//  "float16", "F16", "fp16", "half", "torch.float16" ... become the wire's word (static).
LUNA_MUST_USE luna_err luna_http_dtype(const char *name, luna_text value, luna_text *out);

//  Milliseconds since 1970, or ISO 8601 ("2026-01-05T17:03:11.25+01:00"); without a zone
//  it is this machine's local time.
LUNA_MUST_USE luna_err luna_http_time(const char *name, luna_text value, uint64_t *ms,
                                      int64_t *utc_offset_min);

//  JSON's blanks at the start of `text`.
size_t luna_http_blanks(luna_text text);

#endif
