#include "decoder/worker/wire.h"

#include <stdlib.h>

#include "proto/codec.h"

#define RECONNECT_MS     100
#define RECONNECT_MAX_MS 5000

static luna_err connect_to(const luna_address *broker, zsock_t *socket,
                           const char *endpoint, zsock_t **out)
{
    zsock_set_reconnect_ivl(socket, RECONNECT_MS);
    zsock_set_reconnect_ivl_max(socket, RECONNECT_MAX_MS);
    const luna_err err = luna_address_connect(broker, zsock_resolve(socket), endpoint);
    if (err != LUNA_OK)
        zsock_destroy(&socket);
    else
        *out = socket;
    return err;
}

static luna_err no_socket(void)
{
    return luna_error(LUNA_NO_MEMORY, "cannot make a socket: %s",
                      zmq_strerror(zmq_errno()));
}

luna_err luna_wire_dealer(const luna_address *broker, const luna_id *identity,
                          zsock_t **out)
{
    zsock_t *socket = zsock_new(ZMQ_DEALER);
    if (!socket) return no_socket();
    (void)zmq_setsockopt(zsock_resolve(socket), ZMQ_ROUTING_ID, identity->byte,
                         sizeof identity->byte);
    zsock_set_linger(socket, LUNA_WIRE_LINGER_MS);
    zsock_set_maxmsgsize(socket, LUNA_WIRE_CONTROL_MAX);
    return connect_to(broker, socket, broker->endpoint, out);
}

luna_err luna_wire_pull(const luna_address *broker, const char *endpoint,
                        uint64_t max_bytes, zsock_t **out)
{
    const int64_t limit = max_bytes && max_bytes < INT64_MAX ? (int64_t)max_bytes : -1;
    zsock_t *socket = zsock_new(ZMQ_PULL);
    if (!socket) return no_socket();
    zsock_set_rcvhwm(socket, 1);
    zsock_set_linger(socket, 0);
    (void)zmq_setsockopt(zsock_resolve(socket), ZMQ_MAXMSGSIZE, &limit, sizeof limit);
    return connect_to(broker, socket, endpoint, out);
}

luna_err luna_wire_send_bytes(zsock_t *socket, const void *data, size_t len)
{
    if (zmq_send(zsock_resolve(socket), data, len, ZMQ_DONTWAIT) >= 0) return LUNA_OK;
    return luna_error(LUNA_BUSY, "the broker takes no messages: %s",
                      zmq_strerror(zmq_errno()));
}

luna_err luna_wire_send(zsock_t *socket, luna_msg_type type, const void *message)
{
    void *data = NULL;
    size_t len = 0;
    LUNA_TRY(luna_msg_pack(type, message, &data, &len));
    const luna_err err = luna_wire_send_bytes(socket, data, len);
    free(data);
    return err;
}

zframe_t *luna_wire_receive(zsock_t *socket)
{
    if (!(zsock_events(socket) & ZMQ_POLLIN)) return NULL;
    return zframe_recv(socket);
}
