#include "decoder/vae/taesd_member.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

//  Names that contain another stand before it.
static const luna_taesd_member members[] = {
    {"taesdxl", 4, 0.13025F, 0.0F},
    {"taesd3", 16, 1.5305F, 0.0609F},
    {"taesd", 4, 0.18215F, 0.0F},
    {"taef1", 16, 0.3611F, 0.1159F},
};

enum { MEMBERS = sizeof members / sizeof members[0] };

//  Whether `len` bytes at `text` hold the name, in letters of either case.
static bool holds(const char *text, size_t len, const char *name)
{
    const size_t room = strlen(name);
    for (size_t at = 0; at + room <= len; at++) {
        size_t same = 0;
        while (same < room && tolower((unsigned char)text[at + same]) == name[same])
            same++;
        if (same == room) return true;
    }
    return false;
}

static const luna_taesd_member *named(const char *text, size_t len)
{
    for (size_t i = 0; i < MEMBERS; i++)
        if (holds(text, len, members[i].name)) return &members[i];
    return NULL;
}

const luna_taesd_member *luna_taesd_member_of(const char *path, size_t channels)
{
    const luna_taesd_member *found = NULL;
    size_t end = strlen(path);
    while (!found && end > 0) {
        size_t start = end;
        while (start > 0 && path[start - 1] != '/') start--;
        found = named(path + start, end - start);
        end = start > 0 ? start - 1 : 0;
    }
    return found && found->channels == channels ? found : NULL;
}

void luna_taesd_member_choices(size_t channels, char *out, size_t room)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < MEMBERS && used < room; i++)
        if (members[i].channels == channels)
            used += (size_t)snprintf(out + used, room - used, "%s%s (scale %g, shift %g)",
                                     used ? " or " : "", members[i].name,
                                     (double)members[i].scale, (double)members[i].shift);
}
