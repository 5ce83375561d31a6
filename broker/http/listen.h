//  listen.h - the address the shim listens on

#ifndef LUNA_BROKER_HTTP_LISTEN_H
#define LUNA_BROKER_HTTP_LISTEN_H

#include "common/err.h"

#define LUNA_ADDRESS_BYTES 64

typedef struct luna_listener {
    int fd;
    bool loopback;
    char address[LUNA_ADDRESS_BYTES];  //  with the real port, "[::1]:19284"
} luna_listener;

//  Binds "HOST:PORT" (an IPv4 or [IPv6] address, or localhost) and listens. The caller
//  closes out->fd. LUNA_CONFIG when it does not parse, or is not loopback and
//  `loopback_only`; LUNA_UNAVAILABLE when it cannot be had.
LUNA_MUST_USE luna_err luna_listen(const char *address, bool loopback_only,
                                   luna_listener *out);

//  Whether luna_listen would try the address. LUNA_CONFIG as there.
LUNA_MUST_USE luna_err luna_listen_check(const char *address, bool loopback_only);

//  Whether a Host header's value ("localhost:8080", "[::1]") names loopback.
bool luna_host_is_loopback(const char *host);

#endif
