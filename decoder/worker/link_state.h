//  link_state.h - what the link knows, shared by its three files

#ifndef LUNA_WORKER_LINK_STATE_H
#define LUNA_WORKER_LINK_STATE_H

#include <czmq.h>

#include "decoder/worker/link.h"

typedef struct luna_link {
    const luna_link_options *options;
    luna_id instance;
    char host[80];
    zsock_t *control;
    zsock_t *slot;  //  NULL before the first welcome
    bool up;        //  welcomed on this socket
    bool waiting_logged;
    luna_id epoch;
    bool maps_payload;
    int64_t ping_ms;
    int64_t pinged_ms;
    int64_t heard_ms;  //  of the broker; while away: of the latest hello
    uint64_t credit_told;
    bool draining;
    bool stopping;
    bool hurried;
    bool hung;  //  a decode makes no steps
    int64_t stop_at_ms;
    uint64_t ticks;    //  of the attempts, when they last grew or nothing was decoded
    int64_t ticks_ms;  //  and that time
} luna_link;

//  ---- link_send.c ----

//  Says hello on a fresh socket, on which there are no old messages.
LUNA_MUST_USE luna_err luna_link_greet(luna_link *link);

//  The link is broken: says hello again, and logs why, once.
void luna_link_lose(luna_link *link, const char *why);

//  Sends when the link is up; what cannot be sent breaks it.
void luna_link_send(luna_link *link, luna_msg_type type, const void *message);
void luna_link_reports(luna_link *link);
void luna_link_ping(luna_link *link, int64_t now_ms);

//  The credit as it is now, and the message that tells it when it has changed.
luna_msg_ready luna_link_credit_now(const luna_link *link);
void luna_link_credit(luna_link *link);

//  ---- link_receive.c ----

//  Takes what has come, a bounded number of messages.
void luna_link_receive(luna_link *link);

//  ---- link.c ----

//  Nothing new is taken; the image in hand is finished.
void luna_link_stop(luna_link *link, const char *why);

#endif
