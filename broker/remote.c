#include "broker/remote.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_BYTES_MAX = 1 << 20, PORT_MOST = 65535 };

static unsigned long port_of(const char *base)
{
    const char *colon = strrchr(base, ':');
    char *end;
    const unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    return port && *end == '\0' && colon[1] != '-' && colon[1] != '+' ? port : 0;
}

luna_err luna_remote_check(const char *base)
{
    const unsigned long port = port_of(base);
    if (strncmp(base, "tcp://", 6) != 0 || port == 0 ||
        strlen(base) > LUNA_ENDPOINT_BYTES - 8)
        return luna_error(LUNA_CONFIG,
                          "[broker] remote: '%.200s' is not tcp://ADDRESS:FIRSTPORT, as "
                          "tcp://0.0.0.0:19290",
                          base);
    if (port + LUNA_REMOTE_PORTS - 1 <= PORT_MOST) return LUNA_OK;
    return luna_error(LUNA_CONFIG,
                      "[broker] remote: %d ports from %lu on are needed, there are %d",
                      LUNA_REMOTE_PORTS, port, PORT_MOST);
}

void luna_remote_endpoint(const char *base, unsigned offset, char *out, size_t room)
{
    const char *colon = strrchr(base, ':');
    snprintf(out, room, "%.*s:%lu", (int)(colon - base), base, port_of(base) + offset);
}

void luna_remote_told(const char *endpoint, char *out, size_t room)
{
    snprintf(out, room, "tcp://*:%lu", port_of(endpoint));
}

bool luna_remote_is_listed(const char *path, const luna_key *key)
{
    char *text;
    size_t len;
    bool found = false;
    if (luna_file_read(path, LIST_BYTES_MAX, &text, &len) != LUNA_OK) return false;
    for (const char *line = text; line && !found; line = strchr(line, '\n')) {
        luna_key each;
        if (*line == '\n') line++;
        found = luna_key_parse(line, &each) && memcmp(&each, key, sizeof each) == 0;
    }
    free(text);
    return found;
}
