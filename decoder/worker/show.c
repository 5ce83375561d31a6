#include "decoder/worker/show.h"

#include "common/utf8.h"

void luna_text_show(luna_text text, char *out, size_t room)
{
    size_t len = 0, next;
    while ((next = luna_utf8_length(text.data + len, text.len - len)) > 0 &&
           len + next < room)
        len += next;
    luna_text_copy((luna_text){text.data, len}, out, room);
}
