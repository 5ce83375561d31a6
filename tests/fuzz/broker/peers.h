//  peers.h - a whole broker in a thread, peers made of sockets, and what they hear

#ifndef LUNA_TESTS_FUZZ_PEERS_H
#define LUNA_TESTS_FUZZ_PEERS_H

#include "broker/broker.h"
#include "common/clock.h"
#include "fuzz/proto/maker.h"
#include "fuzz/quiet_log.h"
#include "proto/job.h"

#include <czmq.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

enum {
    PEERS = 4,
    JOBS = 8,
    FRAMES = 24,
    ROUND = 256,
    PATIENCE_MS = 20000,
    PATH_BYTES = 300
};

//  ---- the broker -------------------------------------------------------------------

static char home[PATH_BYTES / 2];
static luna_settings settings;
static pthread_t thread;
static int stop_fd = -1;
static luna_err result;
static char why[1024];
static unsigned starts;
static atomic_bool stopped;  //  the thread has ended; result and why are set
static uint64_t inputs;      //  since the program's start

//  The fuzzer's alarm is not for this thread.
static void *serve(void *argument)
{
    sigset_t all;
    (void)argument;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
    stopped = false;
    //  ZeroMQ gives an inproc name back some time after its socket was closed.
    do {
        starts++;
        result = luna_broker_run(&settings, NULL, stop_fd);
        snprintf(why, sizeof why, "%s", luna_error_text());
    } while (result == LUNA_BUSY && zmq_poll(NULL, 0, 1) == 0);
    stopped = true;
    return NULL;
}

//  Waited for too long: has it ended, and why?
static void check_patience(int64_t end_ms)
{
    if (luna_now_ms() < end_ms) return;
    fprintf(stderr, "the broker: %u starts, %s, latest error %d \"%s\"\n", starts,
            stopped ? "ended" : "runs", (int)result, why);
    CHECK(!stopped);
    CHECK(luna_now_ms() < end_ms);
}

static void start_broker(void)
{
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(stop_fd >= 0 && luna_settings_load(NULL, &settings) == LUNA_OK);
    CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);
}

static void stop_broker(void)
{
    const uint64_t one = 1;
    CHECK(write(stop_fd, &one, sizeof one) == sizeof one);
    CHECK(pthread_join(thread, NULL) == 0 && result == LUNA_OK);
    close(stop_fd);
}

static void remove_home(void)
{
    char command[PATH_BYTES];
    snprintf(command, sizeof command, "rm -rf '%s'", home);
    (void)!system(command);
}

//  ---- peers -------------------------------------------------------------------------

typedef struct peer {
    luna_id id;
    zsock_t *control;
    zsock_t *intake;
    zsock_t *slot;  //  NULL unless it is a decoder
    luna_id epoch;
} peer;

static peer peers[PEERS];
static peer observer;

static luna_id peer_id(uint8_t number)
{
    return (luna_id){{0x4c, 0x55, [15] = number}};
}

static void connect_one(zsock_t **socket, int type, const char *endpoint,
                        const luna_id *id)
{
    *socket = zsock_new(type);
    CHECK(*socket);
    zsock_set_linger(*socket, 0);
    if (id)
        zmq_setsockopt(zsock_resolve(*socket), ZMQ_ROUTING_ID, id->byte, LUNA_ID_BYTES);
    CHECK(zmq_connect(zsock_resolve(*socket), endpoint) == 0);
}

static void open_peer(peer *p, uint8_t number)
{
    *p = (peer){.id = peer_id(number)};
    connect_one(&p->control, ZMQ_DEALER, "inproc://luna-control", &p->id);
    connect_one(&p->intake, ZMQ_PUSH, "inproc://luna-intake", NULL);
}

static void close_peer(peer *p)
{
    zsock_destroy(&p->control);
    zsock_destroy(&p->intake);
    zsock_destroy(&p->slot);
}

static bool send_bytes(zsock_t *to, const void *data, size_t len, int flags)
{
    return zmq_send(zsock_resolve(to), data, len, ZMQ_DONTWAIT | flags) >= 0;
}

static void say(zsock_t *to, luna_msg_type type, const void *message)
{
    void *bytes = NULL;
    size_t len;
    CHECK(luna_msg_pack(type, message, &bytes, &len) == LUNA_OK);
    (void)send_bytes(to, bytes, len, 0);
    free(bytes);
}

//  ---- what the broker says ------------------------------------------------------------

typedef struct heard {
    zframe_t *frame;
    luna_packet *packet;
    luna_msg_type type;
    any_message message;
} heard;

static void forget(heard *h)
{
    luna_packet_close(&h->packet);
    zframe_destroy(&h->frame);
}

//  The next message from there, which must be one; false when there is none.
static bool hear(zsock_t *from, heard *h)
{
    *h = (heard){0};
    if (!(zsock_events(from) & ZMQ_POLLIN)) return false;
    h->frame = zframe_recv(from);
    CHECK(h->frame && !zsock_rcvmore(from));
    CHECK(luna_packet_open(zframe_data(h->frame), zframe_size(h->frame), &h->packet) ==
          LUNA_OK);
    h->type = luna_packet_type(h->packet);
    CHECK(luna_packet_read(h->packet, &h->message) == LUNA_OK);
    return true;
}

//  What was accepted under which id: the numbers of the pool.
static bool accepted[JOBS];
static luna_id pool[JOBS];

static void note_receipt(const luna_msg_receipt *receipt)
{
    CHECK(luna_text_is(receipt->status, "accepted") ||
          luna_text_is(receipt->status, "busy") ||
          luna_text_is(receipt->status, "refused") ||
          luna_text_is(receipt->status, "send"));
    if (!luna_text_is(receipt->status, "accepted")) return;
    for (size_t i = 0; i < JOBS; i++)
        if (luna_id_compare(&pool[i], &receipt->id) == 0) accepted[i] = true;
}

static void take_welcome(peer *p, const luna_msg_welcome *welcome)
{
    char endpoint[PATH_BYTES];
    p->epoch = welcome->epoch;
    if (!welcome->slot.data) return;
    luna_text_copy(welcome->slot, endpoint, sizeof endpoint);
    zsock_destroy(&p->slot);
    connect_one(&p->slot, ZMQ_PULL, endpoint, NULL);
}

//  Reads all there is; notes what is needed to go on.
static void listen_to(peer *p)
{
    heard h;
    while (hear(p->control, &h)) {
        if (h.type == LUNA_MSG_RECEIPT) note_receipt(&h.message.RECEIPT);
        if (h.type == LUNA_MSG_WELCOME) take_welcome(p, &h.message.WELCOME);
        forget(&h);
    }
    while (p->slot && hear(p->slot, &h)) {
        CHECK(h.type == LUNA_MSG_WORK && h.message.WORK.attempt >= 1);
        forget(&h);
    }
}

//  Waits for a message of this type for the observer.
static heard wait_for(luna_msg_type type)
{
    const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
    zmq_pollitem_t item = {.socket = zsock_resolve(observer.control),
                           .events = ZMQ_POLLIN};
    heard h;
    for (;;) {
        check_patience(end_ms);
        if (!hear(observer.control, &h)) {
            (void)zmq_poll(&item, 1, 100);
            continue;
        }
        if (h.type == type) return h;
        if (h.type == LUNA_MSG_RECEIPT) note_receipt(&h.message.RECEIPT);
        forget(&h);
    }
}

#endif
