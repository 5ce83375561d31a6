//  wire.h - one message over one socket

#ifndef LUNA_WORKER_WIRE_H
#define LUNA_WORKER_WIRE_H

#include <czmq.h>

#include "common/address.h"
#include "proto/message.h"

#define LUNA_WIRE_CONTROL_MAX (64 << 20)  //  bytes of a control message
#define LUNA_WIRE_LINGER_MS   3000        //  for the last done

//  A DEALER that says who it is, or a PULL that takes one message at a time; both
//  reconnect by themselves and connect in the background. `max_bytes` of a message, 0
//  for no limit. The caller ends them with zsock_destroy.
//  LUNA_CONFIG: the endpoint is malformed. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_wire_dealer(const luna_address *broker,
                                        const luna_id *identity, zsock_t **out);
LUNA_MUST_USE luna_err luna_wire_pull(const luna_address *broker, const char *endpoint,
                                      uint64_t max_bytes, zsock_t **out);

//  Sends without waiting. LUNA_BUSY: the peer takes nothing.
LUNA_MUST_USE luna_err luna_wire_send_bytes(zsock_t *socket, const void *data,
                                            size_t len);
LUNA_MUST_USE luna_err luna_wire_send(zsock_t *socket, luna_msg_type type,
                                      const void *message);

//  The next frame that is there, or NULL. The caller destroys it.
zframe_t *luna_wire_receive(zsock_t *socket);

#endif
