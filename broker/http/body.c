#include "broker/http/body.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 65536

static luna_err too_large(const luna_body *body)
{
    return luna_error(LUNA_TOO_LARGE, "the body has more than %zu bytes (the limit)",
                      body->max_bytes);
}

static luna_err grow(luna_body *body, size_t room)
{
    const size_t more = room - body->room;
    if (!luna_held_take(body->held, more))
        return luna_error(LUNA_BUSY, "too many bodies at a time; try again later");
    char *data = realloc(body->data, room);
    if (!data) {
        luna_held_give(body->held, more);
        return luna_error(LUNA_NO_MEMORY, "no memory for a body of %zu bytes", room);
    }
    body->data = data;
    body->room = room;
    return LUNA_OK;
}

luna_err luna_body_start(luna_body *body, luna_held *held, size_t max_bytes,
                         uint64_t announced_bytes)
{
    body->held = held;
    body->max_bytes = max_bytes;
    if (announced_bytes > max_bytes) return too_large(body);
    return announced_bytes ? grow(body, (size_t)announced_bytes) : LUNA_OK;
}

luna_err luna_body_add(luna_body *body, const char *data, size_t len)
{
    if (len > body->max_bytes - body->len) return too_large(body);
    if (len > body->room - body->len) {
        const size_t need = body->len + len;
        size_t room = body->room ? body->room : FIRST_BYTES;
        while (room < need)
            room = room > body->max_bytes / 2 ? body->max_bytes : room * 2;
        LUNA_TRY(grow(body, room));
    }
    memcpy(body->data + body->len, data, len);
    body->len += len;
    return LUNA_OK;
}

void luna_body_free(luna_body *body)
{
    if (body->held) luna_held_give(body->held, body->room);
    free(body->data);
    *body = (luna_body){0};
}
