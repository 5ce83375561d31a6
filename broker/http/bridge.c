#include "broker/http/bridge.h"

#include "broker/http/thread.h"
#include "common/clock.h"
#include "common/handover.h"
#include "common/home.h"
#include "common/log.h"

#include <czmq.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct luna_bridge {
    luna_id client;
    uint32_t answer_ms;
    char *version;
    atomic_uint_fast64_t re;
    zsock_t *control;   //  DEALER; the thread's, as all up to `lock`
    zsock_t *intake;    //  PUSH
    luna_ask *waiting;  //  sent, oldest first
    bool welcomed;      //  the broker knows us
    int unheard;        //  beats since its last message
    uint64_t beat_ms;
    int64_t next_beat_ms;
    pthread_mutex_t lock;
    luna_ask *asked;       //  under the lock: not sent yet, oldest first
    luna_ask **asked_end;  //  under the lock
    bool stopping;         //  under the lock
    bool running;          //  the thread is there; start's and stop's
    int wake_fd;
    pthread_t thread;
};

void luna_ask_clear(luna_ask *ask)
{
    luna_packet_close(&ask->answer);
    free(ask->answer_bytes);
    luna_parcel_free(ask->message);
    *ask = (luna_ask){0};
}

static void finish(luna_ask *ask, luna_err err, const char *detail)
{
    ask->err = err;
    ask->detail = detail;
    ask->done(ask);
}

//  ---- what comes back ----------------------------------------------------------------

static luna_ask **find_receipt(luna_bridge *bridge, const luna_id *id)
{
    for (luna_ask **at = &bridge->waiting; *at; at = &(*at)->next)
        if ((*at)->type == LUNA_MSG_JOB && luna_id_compare(&(*at)->id, id) == 0)
            return at;
    return NULL;
}

static luna_ask **find_answer(luna_bridge *bridge, uint64_t re)
{
    for (luna_ask **at = &bridge->waiting; *at; at = &(*at)->next)
        if ((*at)->type != LUNA_MSG_JOB && (*at)->re == re) return at;
    return NULL;
}

static void take_welcome(luna_bridge *bridge, luna_packet *packet)
{
    luna_msg_welcome welcome;
    if (luna_packet_read(packet, &welcome) != LUNA_OK) return;
    bridge->welcomed = true;
    if (welcome.ping_ms >= 10 && welcome.ping_ms <= 3600000)
        bridge->beat_ms = welcome.ping_ms;
}

//  The ask a packet belongs to; NULL for one that timed out, and for types that
//  concern nobody here.
static luna_ask **find_ask(luna_bridge *bridge, luna_packet *packet)
{
    luna_msg_receipt receipt;
    luna_msg_answer answer;
    switch (luna_packet_type(packet)) {
        case LUNA_MSG_WELCOME:
            take_welcome(bridge, packet);
            return NULL;
        case LUNA_MSG_RECEIPT:
            if (luna_packet_read(packet, &receipt) != LUNA_OK) return NULL;
            return find_receipt(bridge, &receipt.id);
        case LUNA_MSG_ANSWER:
            if (luna_packet_read(packet, &answer) != LUNA_OK) return NULL;
            return find_answer(bridge, answer.re);
        default:
            return NULL;
    }
}

static void take_message(luna_bridge *bridge, zframe_t *frame)
{
    const size_t len = zframe_size(frame);
    void *bytes = malloc(len ? len : 1);
    luna_packet *packet = NULL;
    if (!bytes) return;
    LUNA_TAKE_OVER(zframe_data(frame));
    memcpy(bytes, zframe_data(frame), len);
    if (luna_packet_open(bytes, len, &packet) != LUNA_OK)
        luna_log(LUNA_LOG_WARNING, "http_bridge", "a message from the broker: %s",
                 luna_error_text());
    luna_ask **at = packet ? find_ask(bridge, packet) : NULL;
    if (!at) {
        luna_packet_close(&packet);
        free(bytes);
        return;
    }
    luna_ask *ask = *at;
    *at = ask->next;
    ask->answer = packet;
    ask->answer_bytes = bytes;
    finish(ask, LUNA_OK, "");
}

//  A bounded number at a time, so that a busy broker never keeps new asks waiting.
static void receive(luna_bridge *bridge)
{
    for (int i = 0; i < 64 && (zsock_events(bridge->control) & ZMQ_POLLIN); i++) {
        zmsg_t *msg = zmsg_recv(bridge->control);
        if (!msg) return;
        bridge->unheard = 0;
        zframe_t *frame = zmsg_last(msg);
        if (frame) take_message(bridge, frame);
        zmsg_destroy(&msg);
    }
}

//  ---- what goes out ------------------------------------------------------------------

static const char *send_trouble(luna_err err)
{
    if (err == LUNA_BUSY) return "the broker does not keep up; try again later";
    return "the broker cannot be reached; try again later";
}

static void send_one(luna_bridge *bridge, luna_ask *ask)
{
    zsock_t *to = ask->type == LUNA_MSG_JOB ? bridge->intake : bridge->control;
    const luna_err err = luna_parcel_send(&ask->message, zsock_resolve(to));
    if (err != LUNA_OK) {
        finish(ask, err, send_trouble(err));
        return;
    }
    luna_ask **end = &bridge->waiting;
    while (*end) end = &(*end)->next;
    ask->next = NULL;
    ask->deadline_ms = luna_now_ms() + bridge->answer_ms;
    *end = ask;
}

static luna_ask *take_asked(luna_bridge *bridge, bool *stopping)
{
    pthread_mutex_lock(&bridge->lock);
    luna_ask *list = bridge->asked;
    bridge->asked = NULL;
    bridge->asked_end = &bridge->asked;
    *stopping = bridge->stopping;
    pthread_mutex_unlock(&bridge->lock);
    return list;
}

static void send_asked(luna_bridge *bridge, luna_ask *list)
{
    while (list) {
        luna_ask *next = list->next;
        send_one(bridge, list);
        list = next;
    }
}

static void give_up(luna_ask *list)
{
    while (list) {
        luna_ask *next = list->next;
        finish(list, LUNA_UNAVAILABLE, "the broker is stopping; try again later");
        list = next;
    }
}

//  Asks wait in the order of their deadlines: all have the same time.
static void expire(luna_bridge *bridge)
{
    const int64_t now_ms = luna_now_ms();
    while (bridge->waiting && bridge->waiting->deadline_ms <= now_ms) {
        luna_ask *ask = bridge->waiting;
        bridge->waiting = ask->next;
        finish(
            ask, LUNA_TIMEOUT,
            ask->type == LUNA_MSG_JOB
                ? "the broker gave no receipt in time; the job may have been accepted: "
                  "send it again with the same id, it is never run twice"
                : "the broker gave no answer in time; try again");
    }
}

//  ---- the thread ----------------------------------------------------------------------

static long wait_ms(const luna_bridge *bridge)
{
    int64_t until = bridge->next_beat_ms;
    if (bridge->waiting && bridge->waiting->deadline_ms < until)
        until = bridge->waiting->deadline_ms;
    const int64_t left = until - luna_now_ms();
    return left < 0 ? 0 : (long)left;
}

static void drain_wake(const luna_bridge *bridge)
{
    uint64_t count;
    if (read(bridge->wake_fd, &count, sizeof count) < 0) return;  //  nobody woke us
}

static void send_small(luna_bridge *bridge, luna_msg_type type, const void *msg)
{
    void *bytes;
    size_t len;
    if (luna_msg_pack(type, msg, &bytes, &len) != LUNA_OK) return;
    if (zmq_send(zsock_resolve(bridge->control), bytes, len, ZMQ_DONTWAIT) < 0)
        luna_log(LUNA_LOG_DEBUG, "http_bridge", "not sent: %s",
                 zmq_strerror(zmq_errno()));
    free(bytes);
}

static void say_hello(luna_bridge *bridge)
{
    char host[80];
    luna_home_host(host);
    const luna_msg_hello hello = {.role = luna_text_of("producer"),
                                  .name = luna_text_of("http"),
                                  .instance = bridge->client,
                                  .host = luna_text_of(host),
                                  .pid = (uint64_t)getpid(),
                                  .version = luna_text_of(bridge->version)};
    send_small(bridge, LUNA_MSG_HELLO, &hello);
}

//  The wire's rule 3: a ping now and then, and hello again after three unheard.
static void beat(luna_bridge *bridge)
{
    const int64_t now_ms = luna_now_ms();
    if (now_ms < bridge->next_beat_ms) return;
    bridge->next_beat_ms = now_ms + (int64_t)bridge->beat_ms;
    if (bridge->unheard++ >= 3) bridge->welcomed = false;
    if (bridge->welcomed)
        send_small(bridge, LUNA_MSG_PING, &(luna_msg_ping){0});
    else
        say_hello(bridge);
}

static void *run(void *context)
{
    luna_bridge *bridge = context;
    bool stopping = false;
    while (!stopping) {
        beat(bridge);
        zmq_pollitem_t items[] = {
            {.socket = zsock_resolve(bridge->control), .events = ZMQ_POLLIN},
            {.fd = bridge->wake_fd, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, 2, wait_ms(bridge)) < 0 && zmq_errno() != EINTR) break;
        drain_wake(bridge);
        send_asked(bridge, take_asked(bridge, &stopping));
        receive(bridge);
        expire(bridge);
    }
    pthread_mutex_lock(&bridge->lock);
    bridge->stopping = true;  //  also when polling failed: nobody must wait for ever
    pthread_mutex_unlock(&bridge->lock);
    give_up(take_asked(bridge, &stopping));
    give_up(bridge->waiting);
    bridge->waiting = NULL;
    return NULL;
}

static void wake(luna_bridge *bridge)
{
    const uint64_t one = 1;
    if (write(bridge->wake_fd, &one, sizeof one) < 0) return;  //  full: awake already
}

void luna_bridge_ask(luna_bridge *bridge, luna_ask *ask)
{
    ask->next = NULL;
    pthread_mutex_lock(&bridge->lock);
    const bool stopping = bridge->stopping;
    if (!stopping) {
        *bridge->asked_end = ask;
        bridge->asked_end = &ask->next;
    }
    pthread_mutex_unlock(&bridge->lock);
    if (stopping)
        give_up(ask);
    else
        wake(bridge);
}

//  ---- start and stop --------------------------------------------------------------

static luna_err open_socket(int type, const char *endpoint, const luna_id *id,
                            zsock_t **out)
{
    zsock_t *socket = zsock_new(type);
    if (!socket) return luna_error(LUNA_UNAVAILABLE, "no ZeroMQ socket can be made");
    *out = socket;
    zsock_set_linger(socket, 0);
    if (id && zmq_setsockopt(zsock_resolve(socket), ZMQ_ROUTING_ID, id->byte,
                             LUNA_ID_BYTES) != 0)
        return luna_error(LUNA_INTERNAL, "the socket takes no routing id");
    if (zsock_connect(socket, "%s", endpoint) == 0) return LUNA_OK;
    return luna_error(LUNA_UNAVAILABLE, "cannot connect to %s: %s", endpoint,
                      zmq_strerror(zmq_errno()));
}

static luna_err open_all(luna_bridge *bridge, const luna_http_options *options)
{
    bridge->version = strdup(options->version ? options->version : "");
    if (!bridge->version) return luna_error(LUNA_NO_MEMORY, "no memory for the bridge");
    bridge->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bridge->wake_fd < 0)
        return luna_error_errno(LUNA_UNAVAILABLE, "no event descriptor");
    LUNA_TRY(
        open_socket(ZMQ_DEALER, options->control, &bridge->client, &bridge->control));
    return open_socket(ZMQ_PUSH, options->intake, NULL, &bridge->intake);
}

luna_err luna_bridge_start(const luna_http_options *options, luna_bridge **out)
{
    luna_bridge *bridge = calloc(1, sizeof *bridge);
    if (!bridge) return luna_error(LUNA_NO_MEMORY, "no memory for the bridge");
    pthread_mutex_init(&bridge->lock, NULL);
    bridge->client = luna_id_new();
    bridge->answer_ms = options->answer_ms;
    bridge->beat_ms = 1000;
    bridge->asked_end = &bridge->asked;
    bridge->wake_fd = -1;
    luna_err err = open_all(bridge, options);
    if (err == LUNA_OK) err = luna_http_thread(run, bridge, &bridge->thread);
    bridge->running = err == LUNA_OK;
    if (err == LUNA_OK)
        *out = bridge;
    else
        luna_bridge_free(bridge);
    return err;
}

luna_id luna_bridge_client(const luna_bridge *bridge)
{
    return bridge->client;
}

uint64_t luna_bridge_re(luna_bridge *bridge)
{
    return atomic_fetch_add(&bridge->re, 1) + 1;
}

void luna_bridge_stop(luna_bridge *bridge)
{
    if (!bridge->running) return;
    pthread_mutex_lock(&bridge->lock);
    bridge->stopping = true;
    pthread_mutex_unlock(&bridge->lock);
    wake(bridge);
    pthread_join(bridge->thread, NULL);
    bridge->running = false;
}

void luna_bridge_free(luna_bridge *bridge)
{
    if (!bridge) return;
    luna_bridge_stop(bridge);
    zsock_destroy(&bridge->control);
    zsock_destroy(&bridge->intake);
    if (bridge->wake_fd >= 0) close(bridge->wake_fd);
    pthread_mutex_destroy(&bridge->lock);
    free(bridge->version);
    free(bridge);
}
