//  link.h - the client's three sockets, owned by its background thread
//
//  control  DEALER: hello, receipts, pings, questions; made anew for each hello, so that
//           nothing old waits in it
//  intake   PUSH: jobs; made anew when the broker is, so that nothing sent to the former
//           one is believed to be under way
//  events   SUB: only when somebody watches
//
//  Thin: no state machine here. A socket that is not open is NULL.

#ifndef LUNA_PRODUCER_LINK_H
#define LUNA_PRODUCER_LINK_H

#include "common/address.h"
#include "producer/luna/buffer.h"
#include "proto/codec.h"

#include <zmq.h>

typedef struct luna_link {
    void *context;
    void *control;
    void *intake;
    void *events;
    luna_id id;  //  routing id of the control socket
    const luna_address *broker;
} luna_link;

//  A private context; LUNA_UNAVAILABLE when the process has no descriptors left. `broker`
//  is borrowed.
LUNA_MUST_USE luna_err luna_link_init(luna_link *link, const luna_id *id,
                                      const luna_address *broker);

//  Closes all sockets and waits until libzmq has let go of every message. May be
//  called from any thread once the one that used them has ended.
void luna_link_term(luna_link *link);

//  Closes the events socket, if it is open.
void luna_link_events_close(luna_link *link);

//  (Re)opens a socket towards the broker, the others to its `endpoint`. LUNA_CONFIG when
//  the endpoint is malformed, LUNA_UNAVAILABLE when no socket is to be had; it is closed
//  then.
LUNA_MUST_USE luna_err luna_link_control(luna_link *link);
LUNA_MUST_USE luna_err luna_link_intake(luna_link *link, luna_text endpoint);
LUNA_MUST_USE luna_err luna_link_events(luna_link *link, const char *endpoint);

//  Sends one message on the control socket. LUNA_BUSY when it takes none now.
LUNA_MUST_USE luna_err luna_link_send(luna_link *link, luna_msg_type type,
                                      const void *msg);
LUNA_MUST_USE luna_err luna_link_send_bytes(luna_link *link, const void *data,
                                            size_t len);

//  Hands `len` bytes of the buffer to the intake without copying; libzmq holds a
//  reference until it has written them. LUNA_BUSY when the pipe is full or away.
LUNA_MUST_USE luna_err luna_link_push(luna_link *link, luna_buffer *body, size_t len);

//  Receives the last frame of the next message; false when there is none now. The
//  caller closes *frame.
bool luna_link_receive(void *socket, zmq_msg_t *frame);

#endif
