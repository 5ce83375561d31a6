//  body.h - a request's body, taken in pieces, within the limits

#ifndef LUNA_BROKER_HTTP_BODY_H
#define LUNA_BROKER_HTTP_BODY_H

#include "broker/http/held.h"
#include "common/err.h"

#include <stdint.h>

typedef struct luna_body {
    char *data;
    size_t len;   //  bytes there are
    size_t room;  //  bytes of `data`, all counted in `held`
    size_t max_bytes;
    luna_held *held;  //  borrowed
} luna_body;

//  A zeroed body gets its limits and, when the length is known (else 0), its memory:
//  one that cannot be kept is refused before it is sent. LUNA_TOO_LARGE, LUNA_BUSY,
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_body_start(luna_body *body, luna_held *held, size_t max_bytes,
                                       uint64_t announced_bytes);

//  Appends. Errors as above; the body is then as before.
LUNA_MUST_USE luna_err luna_body_add(luna_body *body, const char *data, size_t len);

//  Frees the memory; a body that was never started is fine.
void luna_body_free(luna_body *body);

#endif
