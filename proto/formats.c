#include "proto/formats.h"

#include <string.h>

//  In the order of the bits.
static const char *const names[LUNA_FORMATS_COUNT] = {"png", "webp", "jpeg", "avif",
                                                      "jxl"};

const char *luna_formats_word(size_t i)
{
    return names[i];
}

luna_formats luna_formats_of(luna_text word)
{
    for (size_t i = 0; i < LUNA_FORMATS_COUNT; i++)
        if (luna_text_is(word, names[i])) return 1u << i;
    return 0;
}

luna_formats luna_formats_parse(luna_text words)
{
    luna_formats found = 0;
    for (size_t at = 0, len; at < words.len; at += len + 1) {
        const char *from = words.data + at;
        const char *space = memchr(from, ' ', words.len - at);
        len = space ? (size_t)(space - from) : words.len - at;
        found |= luna_formats_of((luna_text){from, len});
    }
    return found;
}

luna_text luna_formats_write(luna_formats formats, char out[LUNA_FORMATS_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < LUNA_FORMATS_COUNT; i++) {
        if (!(formats >> i & 1)) continue;
        const size_t bytes = strlen(names[i]);
        if (len) out[len++] = ' ';
        memcpy(out + len, names[i], bytes);
        len += bytes;
    }
    out[len] = '\0';
    return len ? (luna_text){out, len} : (luna_text){0};
}

luna_formats luna_formats_of_job(const luna_msg_job *job)
{
    luna_formats formats = 0;
    for (size_t i = 0; i < job->inputs.count; i++)
        formats |= luna_formats_of(job->inputs.items[i].format);
    return formats;
}
