#include "broker/http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct place {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at;
    socklen_t len;
} place;

static bool parse_port(const char *text, uint16_t *out)
{
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits]) return false;
    const unsigned long port = strtoul(text, NULL, 10);
    if (port > 65535) return false;
    *out = (uint16_t)port;
    return true;
}

//  Splits "HOST:PORT" at the last colon; the brackets around IPv6 are taken off.
static bool split(const char *address, char host[LUNA_ADDRESS_BYTES], uint16_t *port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !parse_port(colon + 1, port)) return false;
    size_t len = (size_t)(colon - address);
    if (address[0] == '[') {
        if (len < 3 || address[len - 1] != ']') return false;
        address++;
        len -= 2;
    } else if (memchr(address, ':', len)) {
        return false;
    }
    if (len >= LUNA_ADDRESS_BYTES) return false;
    memcpy(host, address, len);
    host[len] = '\0';
    return true;
}

static bool resolve(const char *host, uint16_t port, place *out)
{
    *out = (place){.len = sizeof out->at.v4};
    if (strcasecmp(host, "localhost") == 0) host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &out->at.v4.sin_addr) == 1) {
        out->at.v4.sin_family = AF_INET;
        out->at.v4.sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, host, &out->at.v6.sin6_addr) != 1) return false;
    out->at.v6.sin6_family = AF_INET6;
    out->at.v6.sin6_port = htons(port);
    out->len = sizeof out->at.v6;
    return true;
}

static bool is_loopback(const place *p)
{
    if (p->at.any.sa_family == AF_INET)
        return ntohl(p->at.v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&p->at.v6.sin6_addr);
}

static void describe(int fd, char out[LUNA_ADDRESS_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";
    place p = {.len = sizeof p.at};
    if (getsockname(fd, &p.at.any, &p.len) != 0) p.at.any.sa_family = AF_UNSPEC;
    if (p.at.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &p.at.v6.sin6_addr, host, sizeof host);
        snprintf(out, LUNA_ADDRESS_BYTES, "[%s]:%u", host, ntohs(p.at.v6.sin6_port));
    } else {
        inet_ntop(AF_INET, &p.at.v4.sin_addr, host, sizeof host);
        snprintf(out, LUNA_ADDRESS_BYTES, "%s:%u", host, ntohs(p.at.v4.sin_port));
    }
}

static luna_err bind_failed(const char *address)
{
    if (errno == EADDRINUSE)
        return luna_error(LUNA_UNAVAILABLE,
                          "%s is in use (Diffusion Toolkit's watcher listens on 19284 "
                          "too); choose another http.listen",
                          address);
    return luna_error_errno(LUNA_UNAVAILABLE, "cannot listen on %s", address);
}

static luna_err open_listener(const char *address, const place *p, int *fd)
{
    const int yes = 1;
    *fd = socket(p->at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0) return luna_error_errno(LUNA_UNAVAILABLE, "no socket for %s", address);
    //  A restart must not wait for the last connections' TIME_WAIT.
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(*fd, &p->at.any, p->len) == 0 && listen(*fd, 128) == 0) return LUNA_OK;
    const luna_err err = bind_failed(address);
    close(*fd);
    return err;
}

static luna_err find_place(const char *address, bool loopback_only, place *out)
{
    char host[LUNA_ADDRESS_BYTES];
    uint16_t port;
    if (!split(address, host, &port) || !resolve(host, port, out))
        return luna_error(LUNA_CONFIG,
                          "http.listen '%.60s' is no address; use 127.0.0.1:19284, "
                          "[::1]:19284 or off",
                          address);
    if (loopback_only && !is_loopback(out))
        return luna_error(LUNA_CONFIG,
                          "http.listen %s can be reached from other machines; set a "
                          "token, or listen on 127.0.0.1",
                          address);
    return LUNA_OK;
}

luna_err luna_listen_check(const char *address, bool loopback_only)
{
    place p;
    return find_place(address, loopback_only, &p);
}

luna_err luna_listen(const char *address, bool loopback_only, luna_listener *out)
{
    place p;
    luna_listener made = {.fd = -1};
    LUNA_TRY(find_place(address, loopback_only, &p));
    made.loopback = is_loopback(&p);
    LUNA_TRY(open_listener(address, &p, &made.fd));
    describe(made.fd, made.address);
    *out = made;
    return LUNA_OK;
}

bool luna_host_is_loopback(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t len = strlen(names[i]);
        if (strncasecmp(host, names[i], len) != 0) continue;
        uint16_t port;
        if (!host[len] || (host[len] == ':' && parse_port(host + len + 1, &port)))
            return true;
    }
    return false;
}
