#include "decoder/worker/json_members.h"

#include <string.h>

luna_members luna_members_of(luna_blob json)
{
    const char *text = json.data ? json.data : "";
    return (luna_members){.at = text, .end = text + json.len};
}

static void skip_space(luna_members *members)
{
    while (members->at < members->end && memchr(" \t\r\n", *members->at, 4))
        members->at++;
}

static bool take(luna_members *members, char wanted)
{
    skip_space(members);
    if (members->at == members->end || *members->at != wanted) return false;
    members->at++;
    return true;
}

static bool take_string(luna_members *members, luna_text *out)
{
    const char *start = members->at;
    if (!take(members, '"')) return false;
    start = members->at - 1;
    while (members->at < members->end && *members->at != '"') {
        if (*members->at == '\\') members->at++;
        if (members->at < members->end) members->at++;
    }
    if (!take(members, '"')) return false;
    *out = (luna_text){start, (size_t)(members->at - start)};
    return true;
}

//  A number or word ends before a comma, a bracket or a space; an object or array at
//  its own closing bracket.
static bool take_value(luna_members *members, luna_text *out)
{
    skip_space(members);
    const char *start = members->at;
    luna_text string;
    size_t depth = 0;
    do {
        if (members->at == members->end) return false;
        const char here = *members->at;
        if (here == '"') {
            if (!take_string(members, &string)) return false;
            continue;
        }
        const bool ends = depth == 0 && memchr(",}] \t\r\n", here, 7);
        if (ends) break;
        if (here == '{' || here == '[') depth++;
        if (here == '}' || here == ']') depth--;
        members->at++;
        const bool closed = depth == 0 && (here == '}' || here == ']');
        if (closed) break;
    } while (depth > 0 || *start != '"');
    *out = (luna_text){start, (size_t)(members->at - start)};
    return out->len > 0;
}

bool luna_members_next(luna_members *members, luna_text *key, luna_text *value)
{
    if (!take(members, members->started ? ',' : '{')) return false;
    members->started = true;
    return take_string(members, key) && take(members, ':') && take_value(members, value);
}
