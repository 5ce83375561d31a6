#include "decoder/worker/json_members.h"

#include <string.h>

#include "common/json_text.h"

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

bool luna_members_find(luna_blob json, const char *word, luna_text *value)
{
    luna_members members = luna_members_of(json);
    luna_text key;
    while (luna_members_next(&members, &key, value))
        if (luna_text_is((luna_text){key.data + 1, key.len - 2}, word)) return true;
    return false;
}

luna_err luna_member_text(luna_arena *memory, luna_text value, luna_text *out)
{
    const char *fault;
    *out = value;
    if (value.data[0] != '"') return LUNA_OK;
    char *room = luna_arena_alloc(memory, value.len, 1);
    if (!room) return luna_error(LUNA_NO_MEMORY, "no memory for a picture's metadata");
    if (luna_json_text_read(value.data, value.len, room, &out->len, &fault) == 0)
        return LUNA_OK;
    out->data = room;
    return LUNA_OK;
}
