//  endpoint.h - binding sockets: options first, stale socket files, clear refusals

#ifndef LUNA_BROKER_ENDPOINT_H
#define LUNA_BROKER_ENDPOINT_H

#include "common/err.h"

#include <czmq.h>
#include <stdint.h>

//  Creates the folder of an ipc:// endpoint (mode 0700) when it is missing; other
//  endpoints need none. LUNA_CANT_CREATE.
LUNA_MUST_USE luna_err luna_endpoint_make_dir(const char *endpoint);

//  Limits every bound socket has: the largest message it reads, and five seconds for
//  a handshake. To be called before bind.
void luna_endpoint_limit(zsock_t *socket, uint64_t max_message_bytes);

//  Binds. A socket file that nobody listens on is left from a crash and removed; one
//  that somebody listens on is never touched.
//  LUNA_BUSY: somebody listens there, most likely another broker; LUNA_CANT_CREATE.
LUNA_MUST_USE luna_err luna_endpoint_bind(zsock_t *socket, const char *endpoint);

//  How ZeroMQ names what was bound last, with the address in numbers; as that it can be
//  unbound.
void luna_endpoint_last(zsock_t *socket, char *out, size_t room);

//  Removes the socket file of an ipc:// endpoint that nobody listens on.
void luna_endpoint_remove_stale(const char *endpoint);

//  Removes the file of an ipc:// endpoint after its socket was closed.
void luna_endpoint_remove(const char *endpoint);

#endif
