//  client.h - an HTTP client with nothing between the test and the bytes

#ifndef LUNA_TESTS_CLIENT_H
#define LUNA_TESTS_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

typedef struct response {
    int status;  //  0: the connection ended without one
    char head[4096];
    char *body;  //  NUL after it
    size_t len;
} response;

static inline int client_open(const char *address)
{
    const char *colon = strrchr(address, ':');
    const struct timeval patience = {.tv_sec = 30};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)atoi(colon + 1))};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) abort();
    return fd;
}

//  False when the server has closed meanwhile.
static inline bool client_write(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        const ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

__attribute__((format(printf, 2, 3))) static inline bool client_print(int fd,
                                                                      const char *format,
                                                                      ...)
{
    char text[8192];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text) abort();
    return client_write(fd, text, (size_t)n);
}

static inline const char *client_header(const response *r, const char *name, char *out,
                                        size_t room)
{
    const size_t len = strlen(name);
    for (const char *line = strstr(r->head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) != 0 || line[len] != ':') continue;
        const char *value = line + len + 1 + strspn(line + len + 1, " ");
        snprintf(out, room, "%.*s", (int)strcspn(value, "\r"), value);
        return out;
    }
    return NULL;
}

//  Reads one response, interim ones passed over.
static inline response client_read(int fd)
{
    response r = {0};
    char text[32];
    for (size_t used = 0; used < sizeof r.head - 1; used++) {
        if (recv(fd, r.head + used, 1, 0) != 1) return r;
        if (used < 3 || memcmp(r.head + used - 3, "\r\n\r\n", 4) != 0) continue;
        if (strncmp(r.head, "HTTP/1.1 100", 12) != 0) break;
        memset(r.head, 0, sizeof r.head);
        used = (size_t)-1;
    }
    r.status = atoi(r.head + 9);
    r.len =
        client_header(&r, "Content-Length", text, sizeof text) ? (size_t)atol(text) : 0;
    r.body = calloc(r.len + 1, 1);
    if (!r.body) abort();
    for (size_t got = 0; got < r.len;) {
        const ssize_t n = recv(fd, r.body + got, r.len - got, 0);
        if (n <= 0) abort();
        got += (size_t)n;
    }
    return r;
}

static inline response client_get(const char *address, const char *path)
{
    const int fd = client_open(address);
    client_print(fd, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address);
    const response r = client_read(fd);
    close(fd);
    return r;
}

//  `headers` are whole lines.
static inline response client_post(const char *address, const char *path,
                                   const char *headers, const void *body, size_t len)
{
    const int fd = client_open(address);
    client_print(fd, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n%s\r\n",
                 path, address, len, headers);
    client_write(fd, body, len);
    const response r = client_read(fd);
    close(fd);
    return r;
}

#endif
