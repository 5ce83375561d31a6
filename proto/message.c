#include "proto/message.h"

#include <string.h>

luna_text luna_text_of(const char *text)
{
    return (luna_text){.data = text, .len = text ? strlen(text) : 0};
}

bool luna_text_is(luna_text text, const char *word)
{
    return text.data && strlen(word) == text.len &&
           memcmp(text.data, word, text.len) == 0;
}

void luna_text_copy(luna_text text, char *out, size_t room)
{
    size_t len = text.len < room ? text.len : room - 1;
    if (len < text.len)  //  never half a character
        while (len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80) len--;
    if (len) memcpy(out, text.data, len);
    out[len] = '\0';
}
