#include "decoder/sink/mark.h"

#include "decoder/sink/place.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void luna_mark_text(const char *folder, bool held,
                    char out[LUNA_SINK_PATH_BYTES + LUNA_HOST_BYTES])
{
    char host[LUNA_HOST_BYTES] = "";
    if (held) luna_host_text(host);
    snprintf(out, LUNA_SINK_PATH_BYTES + LUNA_HOST_BYTES, "%s\n%s%s", folder, host,
             host[0] ? "\n" : "");
}

//  The text up to the line's end; false when that is missing or the line too long.
static bool take_line(const char **at, char *out, size_t room)
{
    const size_t len = strcspn(*at, "\n");
    if ((*at)[len] == '\0' || len >= room) return false;
    memcpy(out, *at, len);
    out[len] = '\0';
    *at += len + 1;
    return true;
}

//  A host that was not written whole is none.
static bool parse(const char *text, luna_mark *out)
{
    if (!take_line(&text, out->folder, sizeof out->folder)) return false;
    if (!take_line(&text, out->host, sizeof out->host)) out->host[0] = '\0';
    return out->folder[0] == '\0' || luna_place_is_plain(out->folder);
}

bool luna_mark_read(int side, const char *name, luna_mark *out)
{
    char text[LUNA_SINK_PATH_BYTES + LUNA_HOST_BYTES + 1];
    const int fd = openat(side, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len < 0) return false;
    text[len] = '\0';
    return parse(text, out);
}

static bool is_mark(const char *name)
{
    const size_t len = strlen(name), end = strlen(LUNA_MARK_END);
    return len > end && strcmp(name + len - end, LUNA_MARK_END) == 0;
}

bool luna_mark_key(const char *name, luna_image_key *key)
{
    char *end;
    if (!is_mark(name) || name[0] < '0' || name[0] > '9') return false;
    key->input = strtoull(name, &end, 10);
    if (*end != '-' || end[1] < '0' || end[1] > '9') return false;
    key->index = strtoull(end + 1, &end, 10);
    return *end == '.';
}
