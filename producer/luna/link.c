#include "producer/luna/link.h"

#include "common/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define INTAKE_HWM       2
#define RECONNECT_MS     100
#define RECONNECT_MAX_MS 1000
#define ANSWER_MAX_BYTES (256 << 20)

luna_err luna_link_init(luna_link *link, const luna_id *id, const luna_address *broker)
{
    *link = (luna_link){.id = *id, .broker = broker};
    link->context = zmq_ctx_new();
    if (link->context) return LUNA_OK;
    return luna_error_errno(LUNA_UNAVAILABLE, "cannot set up ZeroMQ");
}

static void close_socket(void **socket)
{
    if (!*socket) return;
    zmq_close(*socket);
    *socket = NULL;
}

void luna_link_events_close(luna_link *link)
{
    close_socket(&link->events);
}

void luna_link_term(luna_link *link)
{
    close_socket(&link->intake);
    close_socket(&link->events);
    close_socket(&link->control);
    while (link->context && zmq_ctx_term(link->context) != 0 && errno == EINTR) continue;
    link->context = NULL;
}

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

//  A socket that loses what it holds when closed, as all of ours: receipts decide. No
//  ZeroMQ heartbeats: a broker that is slow to read would be cut off although it is
//  healthy, and libzmq 4.3 can end the process over one. Pings find a dead host.
static luna_err open_socket(luna_link *link, int type, void **out)
{
    close_socket(out);
    void *socket = zmq_socket(link->context, type);
    if (!socket) return luna_error_errno(LUNA_UNAVAILABLE, "cannot make a socket");
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    const int64_t max_bytes = ANSWER_MAX_BYTES;
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes);
    *out = socket;
    return LUNA_OK;
}

static luna_err connect_socket(const luna_link *link, void **socket, const char *endpoint)
{
    const luna_err err = luna_address_connect(link->broker, *socket, endpoint);
    if (err != LUNA_OK) close_socket(socket);
    return err;
}

luna_err luna_link_control(luna_link *link)
{
    LUNA_TRY(open_socket(link, ZMQ_DEALER, &link->control));
    zmq_setsockopt(link->control, ZMQ_ROUTING_ID, link->id.byte, sizeof link->id.byte);
    return connect_socket(link, &link->control, link->broker->endpoint);
}

//  IMMEDIATE: only a live connection takes jobs.
luna_err luna_link_intake(luna_link *link, luna_text endpoint)
{
    char text[LUNA_MAX_PATH_BYTES + 1];
    luna_text_copy(endpoint, text, sizeof text);
    LUNA_TRY(open_socket(link, ZMQ_PUSH, &link->intake));
    set_int(link->intake, ZMQ_SNDHWM, INTAKE_HWM);
    set_int(link->intake, ZMQ_IMMEDIATE, 1);
    return connect_socket(link, &link->intake, text);
}

luna_err luna_link_events(luna_link *link, const char *endpoint)
{
    LUNA_TRY(open_socket(link, ZMQ_SUB, &link->events));
    return connect_socket(link, &link->events, endpoint);
}

luna_err luna_link_send_bytes(luna_link *link, const void *data, size_t len)
{
    if (link->control && zmq_send(link->control, data, len, ZMQ_DONTWAIT) >= 0)
        return LUNA_OK;
    return luna_error(LUNA_BUSY, "the control socket takes nothing now");
}

luna_err luna_link_send(luna_link *link, luna_msg_type type, const void *msg)
{
    void *data;
    size_t len;
    LUNA_TRY(luna_msg_pack(type, msg, &data, &len));
    const luna_err err = luna_link_send_bytes(link, data, len);
    free(data);
    return err;
}

//  Called in libzmq's I/O thread.
static void release_body(void *data, void *body)
{
    (void)data;
    LUNA_TAKE_OVER(body);
    luna_buffer_release(body);
}

luna_err luna_link_push(luna_link *link, luna_buffer *body, size_t len)
{
    zmq_msg_t msg;
    if (!link->intake) return luna_error(LUNA_BUSY, "the intake is not connected");
    luna_buffer_hold(body);
    LUNA_HAND_OVER(body);
    if (zmq_msg_init_data(&msg, body->data, len, release_body, body) != 0) {
        luna_buffer_release(body);
        return luna_error(LUNA_NO_MEMORY, "out of memory");
    }
    if (zmq_msg_send(&msg, link->intake, ZMQ_DONTWAIT) >= 0) return LUNA_OK;
    zmq_msg_close(&msg);
    return luna_error(LUNA_BUSY, "the intake takes nothing now");
}

bool luna_link_receive(void *socket, zmq_msg_t *frame)
{
    if (!socket) return false;
    zmq_msg_init(frame);
    for (;;) {
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0) {
            if (errno == EINTR) continue;
            zmq_msg_close(frame);
            return false;
        }
        if (!zmq_msg_more(frame)) return true;
    }
}
