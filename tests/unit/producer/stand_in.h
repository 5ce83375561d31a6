//  stand_in.h - a broker's sockets in the hand of a test
//
//  ROUTER, PULL and PUB on ipc in the test's own folder. Nothing happens by itself: the
//  test takes each message and decides what to answer, so every order of events can be
//  played. Each take fails the test after 20 s.

#ifndef LUNA_TESTS_STAND_IN_H
#define LUNA_TESTS_STAND_IN_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/clock.h"
#include "producer/luna/luna.h"
#include "proto/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define TAKE_MS 20000

#ifdef __SANITIZE_THREAD__
//  libzmq is not built for the thread sanitizer, which therefore does not see how it
//  hands memory from thread to thread: its own, and ours by way of release_body.
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libzmq.so.5\n";
}
#endif

typedef struct stand_in {
    void *context, *control, *intake, *events;
    char control_at[128], intake_at[128], events_at[128];
    luna_id epoch;
    luna_id client;  //  routing id of the latest message
    uint64_t ping_ms;
    uint64_t max_job_bytes;
    bool offer_first;  //  in its welcome, receipts and grants
} stand_in;

//  One received message and its decoded form.
typedef struct taken {
    zmq_msg_t frame;
    luna_packet *packet;
    luna_msg_type type;
} taken;

static inline void *bind_socket(stand_in *broker, int type, const char *endpoint)
{
    void *socket = zmq_socket(broker->context, type);
    const int zero = 0, limit_ms = TAKE_MS, handover = 1;
    assert_non_null(socket);
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &limit_ms, sizeof limit_ms);
    if (type == ZMQ_ROUTER)
        zmq_setsockopt(socket, ZMQ_ROUTER_HANDOVER, &handover, sizeof handover);
    assert_int_equal(zmq_bind(socket, endpoint), 0);
    return socket;
}

//  The endpoints; nobody is there yet.
static inline void stand_in_name(stand_in *broker)
{
    char here[64];
    assert_non_null(getcwd(here, sizeof here));
    *broker = (stand_in){.ping_ms = 60000};
    snprintf(broker->control_at, sizeof broker->control_at, "ipc://%s/c", here);
    snprintf(broker->intake_at, sizeof broker->intake_at, "ipc://%s/i", here);
    snprintf(broker->events_at, sizeof broker->events_at, "ipc://%s/e", here);
}

static inline void stand_in_open(stand_in *broker)
{
    broker->epoch = luna_id_new();
    broker->context = zmq_ctx_new();
    broker->control = bind_socket(broker, ZMQ_ROUTER, broker->control_at);
    broker->intake = bind_socket(broker, ZMQ_PULL, broker->intake_at);
    broker->events = bind_socket(broker, ZMQ_XPUB, broker->events_at);
}

static inline void stand_in_close(stand_in *broker)
{
    zmq_close(broker->control);
    zmq_close(broker->intake);
    zmq_close(broker->events);
    zmq_ctx_term(broker->context);
    unlink(broker->control_at + strlen("ipc://"));
    unlink(broker->intake_at + strlen("ipc://"));
    unlink(broker->events_at + strlen("ipc://"));
}

static inline void release(taken *message)
{
    luna_packet_close(&message->packet);
    zmq_msg_close(&message->frame);
}

static inline void take_frame(void *socket, taken *message)
{
    zmq_msg_init(&message->frame);
    assert_true(zmq_msg_recv(&message->frame, socket, 0) >= 0);
    assert_int_equal(luna_packet_open(zmq_msg_data(&message->frame),
                                      zmq_msg_size(&message->frame), &message->packet),
                     LUNA_OK);
    message->type = luna_packet_type(message->packet);
}

//  The next message on the control socket. False: it came from a connection that the
//  client has left, under another routing id, and is nobody's.
static inline bool take_any(stand_in *broker, taken *message)
{
    uint8_t id[256];
    const int len = zmq_recv(broker->control, id, sizeof id, 0);
    assert_true(len > 0);
    take_frame(broker->control, message);
    if (len != (int)sizeof broker->client) return false;
    memcpy(&broker->client, id, sizeof broker->client);
    return true;
}

//  The next message of that type; others are passed over.
static inline void take_control(stand_in *broker, luna_msg_type type, taken *message)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (luna_now_ms() < limit_ms) {
        if (take_any(broker, message) && message->type == type) return;
        release(message);
    }
    fail_msg("no message of type %d came", (int)type);
}

static inline void send_control(stand_in *broker, luna_msg_type type, const void *msg)
{
    void *data;
    size_t len;
    assert_int_equal(luna_msg_pack(type, msg, &data, &len), LUNA_OK);
    zmq_send(broker->control, &broker->client, sizeof broker->client, ZMQ_SNDMORE);
    assert_int_equal(zmq_send(broker->control, data, len, 0), len);
    free(data);
}

static inline void answer_hello(stand_in *broker, taken *hello)
{
    luna_msg_hello said;
    assert_int_equal(luna_packet_read(hello->packet, &said), LUNA_OK);
    assert_true(luna_text_is(said.role, "producer"));
    assert_memory_equal(&said.instance, &broker->client, sizeof broker->client);
    assert_int_not_equal(broker->client.byte[0], 0);
    const luna_msg_welcome answer = {.epoch = broker->epoch,
                                     .version = luna_text_of("stand-in"),
                                     .intake = luna_text_of(broker->intake_at),
                                     .events = luna_text_of(broker->events_at),
                                     .ping_ms = broker->ping_ms,
                                     .max_job_bytes = broker->max_job_bytes,
                                     .offer_first = broker->offer_first};
    send_control(broker, LUNA_MSG_WELCOME, &answer);
}

static inline void welcome(stand_in *broker)
{
    taken hello;
    take_control(broker, LUNA_MSG_HELLO, &hello);
    answer_hello(broker, &hello);
    release(&hello);
}

//  Answers a hello if one comes soon.
static inline void welcome_any(stand_in *broker)
{
    taken message;
    zmq_pollitem_t item = {.socket = broker->control, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, 10) <= 0) return;
    if (take_any(broker, &message) && message.type == LUNA_MSG_HELLO)
        answer_hello(broker, &message);
    release(&message);
}

//  Answers hellos until the client has heard: an answer that crosses the client's next
//  hello is lost.
static inline void welcome_up(stand_in *broker, luna_client *client)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (!luna_available(client) && luna_now_ms() < limit_ms) welcome_any(broker);
    assert_true(luna_available(client));
}

//  The next job on the intake: its message and its fields.
static inline luna_msg_job take_job(stand_in *broker, taken *message)
{
    luna_msg_job job;
    take_frame(broker->intake, message);
    assert_int_equal(message->type, LUNA_MSG_JOB);
    assert_int_equal(luna_packet_read(message->packet, &job), LUNA_OK);
    return job;
}

static inline void send_receipt(stand_in *broker, const luna_id *id, const char *status,
                                const char *error)
{
    const luna_msg_receipt receipt = {.id = *id,
                                      .status = luna_text_of(status),
                                      .error = luna_text_of(error),
                                      .detail = luna_text_of(error ? "the reason" : NULL),
                                      .retry_ms = 20,
                                      .position = error ? 0 : 3,
                                      .images = error ? 0 : 1,
                                      .offer_first = broker->offer_first};
    send_control(broker, LUNA_MSG_RECEIPT, &receipt);
}

//  Takes the next job and answers it; returns its id.
static inline luna_id answer_job(stand_in *broker, const char *status, const char *error)
{
    taken message;
    const luna_msg_job job = take_job(broker, &message);
    const luna_id id = job.id;
    release(&message);
    send_receipt(broker, &id, status, error);
    return id;
}

//  Takes the next offer and answers it; returns its id.
static inline luna_id answer_offer(stand_in *broker, const char *status,
                                   const char *error)
{
    taken message;
    luna_msg_offer offer;
    take_control(broker, LUNA_MSG_OFFER, &message);
    assert_int_equal(luna_packet_read(message.packet, &offer), LUNA_OK);
    assert_memory_equal(&offer.client, &broker->client, sizeof offer.client);
    const luna_id id = offer.id;
    release(&message);
    send_receipt(broker, &id, status, error);
    return id;
}

static inline void send_grant(stand_in *broker)
{
    const luna_msg_grant grant = {.offer_first = broker->offer_first};
    send_control(broker, LUNA_MSG_GRANT, &grant);
}

//  Fails when a message is there, or comes very soon.
static inline void assert_nothing_on(void *socket)
{
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 30), 0);
}

//  ---- the client's side ------------------------------------------------------------

//  A float16 latent [1, 4, height, width] of `bytes` bytes, a multiple of 64.
static inline luna_submission submission_of(const void *data, size_t bytes)
{
    luna_submission job;
    luna_submission_init(&job);
    job.input_count = 1;
    job.inputs[0].data = data;
    job.inputs[0].bytes = bytes;
    job.inputs[0].dtype = "float16";
    job.inputs[0].dims = 4;
    job.inputs[0].shape[0] = 1;
    job.inputs[0].shape[1] = 4;
    job.inputs[0].shape[2] = 8;
    job.inputs[0].shape[3] = bytes / 64;
    return job;
}

static inline luna_client *client_of(const stand_in *broker, const luna_options *options)
{
    luna_client *client = NULL;
    if (luna_client_new(broker->control_at, options, &client) != LUNA_RC_OK)
        fail_msg("%s", luna_last_error());
    return client;
}

static inline void assert_same_id(const char *text, const luna_id *id)
{
    char other[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, other);
    assert_string_equal(text, other);
}

static inline void assert_ok(int rc)
{
    if (rc != LUNA_RC_OK) fail_msg("%s: %s", luna_rc_name(rc), luna_last_error());
}

#endif
