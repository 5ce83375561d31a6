//  stand_in.h - a broker's sockets, and nothing of a broker behind them
//
//  ROUTER and PULL on inproc; keeps every job as it came and answers as told.

#ifndef LUNA_TESTS_STAND_IN_H
#define LUNA_TESTS_STAND_IN_H

#include "common/clock.h"
#include "proto/codec.h"

#include <czmq.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define KEEP_JOBS 256

typedef enum stand_in_mode {
    ACCEPT,
    SAY_BUSY,
    REFUSE,
    SILENT,
    PAUSED,
    SWAP
} stand_in_mode;

typedef struct stand_in {
    char control[64];
    char intake[64];
    atomic_int mode;
    atomic_int no_decoders;
    int stop_fd;
    zsock_t *router;
    zsock_t *pull;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    int agreed;  //  mode the thread goes by; under the lock, as all below
    size_t count;
    struct {
        void *bytes;
        size_t len;
    } jobs[KEEP_JOBS];
    luna_msg_query query;  //  the latest
    char query_what[32];
    char query_state[32];
    luna_msg_type order;
    luna_msg_query held;
    char held_what[32];
    zframe_t *held_to;
} stand_in;

static inline void stand_in_send(stand_in *s, const void *to, size_t to_len,
                                 luna_msg_type type, const void *msg)
{
    void *bytes;
    size_t len;
    if (luna_msg_pack(type, msg, &bytes, &len) != LUNA_OK) abort();
    void *socket = zsock_resolve(s->router);
    if (zmq_send(socket, to, to_len, ZMQ_SNDMORE) < 0 ||
        zmq_send(socket, bytes, len, 0) < 0)
        abort();
    free(bytes);
}

static inline luna_msg_receipt stand_in_receipt(const stand_in *s,
                                                const luna_msg_job *job)
{
    luna_msg_receipt receipt = {.id = job->id};
    if (s->mode == ACCEPT) {
        receipt.status = luna_text_of("accepted");
        receipt.position = 7;
        for (size_t i = 0; i < job->inputs.count; i++)
            receipt.images += job->inputs.items[i].shape.at[0];
    } else if (s->mode == SAY_BUSY) {
        receipt.status = luna_text_of("busy");
        receipt.error = luna_text_of("busy");
        receipt.detail = luna_text_of("the queue is full");
        receipt.retry_ms = 2500;
    } else {
        receipt.status = luna_text_of("refused");
        receipt.error = luna_text_of("unknown_vae");
        receipt.detail = luna_text_of("no VAE is named 'x'");
    }
    return receipt;
}

static inline void stand_in_keep(stand_in *s, const void *data, size_t len)
{
    pthread_mutex_lock(&s->lock);
    if (s->count == KEEP_JOBS) abort();
    void *copy = malloc(len);
    if (!copy) abort();
    memcpy(copy, data, len);
    s->jobs[s->count].bytes = copy;
    s->jobs[s->count++].len = len;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
}

static inline void stand_in_job(stand_in *s)
{
    zmsg_t *msg = zmsg_recv(s->pull);
    zframe_t *frame = zmsg_first(msg);
    luna_packet *packet;
    luna_msg_job job;
    if (zmsg_size(msg) != 1) abort();
    if (luna_packet_open(zframe_data(frame), zframe_size(frame), &packet) != LUNA_OK)
        abort();
    if (luna_packet_read(packet, &job) != LUNA_OK) abort();
    stand_in_keep(s, zframe_data(frame), zframe_size(frame));
    const luna_msg_receipt receipt = stand_in_receipt(s, &job);
    if (s->mode != SILENT)
        stand_in_send(s, job.client.byte, LUNA_ID_BYTES, LUNA_MSG_RECEIPT, &receipt);
    luna_packet_close(&packet);
    zmsg_destroy(&msg);
}

static const luna_id known_job = {{1, 0x92, 0xf1, 0xc2, 0xa5, 0xb0, 0x7c, 0x3d, 0x8e,
                                   0x4f, 0x50, 0x61, 0x72, 0x83, 0x94, 0xa5}};
#define KNOWN_JOB "0192f1c2-a5b0-7c3d-8e4f-5061728394a5"

static inline void stand_in_answer(stand_in *s, zframe_t *to, const luna_msg_query *query)
{
    const luna_msg_image image = {.path = luna_text_of("/out/caf\xc3\xa9.png"),
                                  .bytes = 1234,
                                  .sha256 = luna_text_of("ab"),
                                  .width = 512,
                                  .height = 256,
                                  .decode_ms = 1.5};
    const luna_msg_job_info job = {.id = known_job,
                                   .state = luna_text_of("completed"),
                                   .priority = 5,
                                   .images = 1,
                                   .files = {&image, 1}};
    const luna_msg_vae vae = {.name = luna_text_of("taef2")};
    const luna_msg_decoder_info decoder = {.name = luna_text_of("gpu1"),
                                           .state = luna_text_of("ready"),
                                           .jobs_done = 9,
                                           .vaes = {&vae, 1},
                                           .formats = luna_text_of("png webp heic jxl")};
    const luna_msg_status status = {.pending = 3,
                                    .in_progress = 1,
                                    .completed = 12,
                                    .failed = 2,
                                    .cancelled = 4,
                                    .oldest_ms = 4500,
                                    .decoders = s->no_decoders ? 0 : 1,
                                    .accepting = luna_text_of("yes")};
    luna_msg_answer answer = {.re = query->re};
    if (luna_text_is(query->what, "status")) answer.status = &status;
    if (luna_text_is(query->what, "metrics")) answer.text = luna_text_of("luna_x 1\n");
    if (luna_text_is(query->what, "decoders")) {
        answer.decoders.items = &decoder;
        answer.decoders.count = 1;
    }
    if (luna_text_is(query->what, "jobs") ||
        (luna_text_is(query->what, "job") &&
         luna_id_compare(&query->id, &known_job) == 0)) {
        answer.jobs.items = &job;
        answer.jobs.count = 1;
    } else if (luna_text_is(query->what, "job")) {
        answer.error = luna_text_of("not_found");
        answer.detail = luna_text_of("no such job");
    }
    stand_in_send(s, zframe_data(to), zframe_size(to), LUNA_MSG_ANSWER, &answer);
}

//  SWAP: the first query is answered after the second.
static inline void stand_in_hold(stand_in *s, zframe_t *to, const luna_msg_query *query)
{
    pthread_mutex_lock(&s->lock);
    s->held = *query;
    s->held.what = luna_text_of(s->held_what);
    luna_text_copy(query->what, s->held_what, sizeof s->held_what);
    s->held.what.len = query->what.len;
    s->held_to = zframe_dup(to);
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
}

static inline void stand_in_query(stand_in *s, zframe_t *to, luna_packet *packet)
{
    luna_msg_query query;
    if (luna_packet_read(packet, &query) != LUNA_OK) abort();
    pthread_mutex_lock(&s->lock);
    s->query = query;
    luna_text_copy(query.what, s->query_what, sizeof s->query_what);
    luna_text_copy(query.state, s->query_state, sizeof s->query_state);
    pthread_mutex_unlock(&s->lock);
    if (s->mode == SWAP && !s->held_to) {
        stand_in_hold(s, to, &query);
        return;
    }
    if (s->mode != SILENT) stand_in_answer(s, to, &query);
    if (s->mode == SWAP) stand_in_answer(s, s->held_to, &s->held);
}

static inline void stand_in_order(stand_in *s, zframe_t *to, luna_packet *packet)
{
    luna_msg_order order;
    if (luna_packet_read(packet, &order) != LUNA_OK) abort();
    pthread_mutex_lock(&s->lock);
    s->order = luna_packet_type(packet);
    pthread_mutex_unlock(&s->lock);
    luna_msg_answer answer = {.re = order.re};
    if (luna_id_compare(&order.id, &known_job) != 0) {
        answer.error = luna_text_of("not_found");
        answer.detail = luna_text_of("no such job");
    }
    stand_in_send(s, zframe_data(to), zframe_size(to), LUNA_MSG_ANSWER, &answer);
}

static inline void stand_in_control(stand_in *s)
{
    zmsg_t *msg = zmsg_recv(s->router);
    zframe_t *to = zmsg_first(msg);
    zframe_t *frame = zmsg_next(msg);
    luna_packet *packet;
    if (zmsg_size(msg) != 2) abort();
    if (luna_packet_open(zframe_data(frame), zframe_size(frame), &packet) != LUNA_OK)
        abort();
    const luna_msg_type type = luna_packet_type(packet);
    const luna_msg_welcome welcome = {.epoch = known_job, .ping_ms = 20};
    const luna_msg_pong pong = {.epoch = known_job, .order = luna_text_of("run")};
    if (type == LUNA_MSG_HELLO)
        stand_in_send(s, zframe_data(to), zframe_size(to), LUNA_MSG_WELCOME, &welcome);
    else if (type == LUNA_MSG_PING)
        stand_in_send(s, zframe_data(to), zframe_size(to), LUNA_MSG_PONG, &pong);
    else if (type == LUNA_MSG_QUERY)
        stand_in_query(s, to, packet);
    else if (type == LUNA_MSG_CANCEL || type == LUNA_MSG_RETRY)
        stand_in_order(s, to, packet);
    else
        abort();
    luna_packet_close(&packet);
    zmsg_destroy(&msg);
}

static inline void stand_in_agree(stand_in *s)
{
    pthread_mutex_lock(&s->lock);
    s->agreed = s->mode;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
}

static inline void *stand_in_run(void *context)
{
    stand_in *s = context;
    for (;;) {
        zmq_pollitem_t items[] = {
            {.fd = s->stop_fd, .events = ZMQ_POLLIN},
            {.socket = zsock_resolve(s->router), .events = ZMQ_POLLIN},
            {.socket = zsock_resolve(s->pull), .events = ZMQ_POLLIN}};
        const int watched = s->mode == PAUSED ? 1 : 3;
        if (zmq_poll(items, watched, -1) < 0) continue;
        if (items[0].revents) {
            uint64_t value;
            if (read(s->stop_fd, &value, sizeof value) < 0) abort();
            if (value >= 1000) return NULL;
            stand_in_agree(s);
            continue;
        }
        if (watched == 3 && items[1].revents) stand_in_control(s);
        if (watched == 3 && items[2].revents) stand_in_job(s);
    }
}

static inline void stand_in_wake(stand_in *s, uint64_t value)
{
    if (write(s->stop_fd, &value, sizeof value) < 0) abort();
}

//  Returns when the thread goes by the new mode.
static inline void stand_in_set(stand_in *s, stand_in_mode mode)
{
    s->mode = (int)mode;
    stand_in_wake(s, 1);
    pthread_mutex_lock(&s->lock);
    while (s->agreed != (int)mode) pthread_cond_wait(&s->more, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static inline void stand_in_start(stand_in *s)
{
    static int number;
    memset(s, 0, sizeof *s);
    snprintf(s->control, sizeof s->control, "inproc://test-control-%d", ++number);
    snprintf(s->intake, sizeof s->intake, "inproc://test-intake-%d", number);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    s->router = zsock_new(ZMQ_ROUTER);
    s->pull = zsock_new(ZMQ_PULL);
    zsock_set_linger(s->router, 0);
    if (zsock_bind(s->router, "%s", s->control) < 0) abort();
    if (zsock_bind(s->pull, "%s", s->intake) < 0) abort();
    if (pthread_create(&s->thread, NULL, stand_in_run, s) != 0) abort();
}

static inline void stand_in_stop(stand_in *s)
{
    stand_in_wake(s, 1000);
    pthread_join(s->thread, NULL);
    zsock_destroy(&s->router);
    zsock_destroy(&s->pull);
    zframe_destroy(&s->held_to);
    for (size_t i = 0; i < s->count; i++) free(s->jobs[i].bytes);
    pthread_cond_destroy(&s->more);
    pthread_mutex_destroy(&s->lock);
    close(s->stop_fd);
}

//  libzmq hands messages over by atomics in code that the thread sanitizer does not see:
//  what was done before a send is visible after a receive. Told to it here, so that it
//  still finds the races that are ours.
#ifdef __SANITIZE_THREAD__
#include <dlfcn.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);

static char handed_over;

static inline void libzmq_function(const char *name, void *out)
{
    void *found = dlsym(dlopen("libzmq.so.5", RTLD_LAZY), name);
    if (!found) abort();
    memcpy(out, &found, sizeof found);
}

__attribute__((visibility("default"))) int zmq_msg_send(zmq_msg_t *msg, void *socket,
                                                        int flags)
{
    int (*real)(zmq_msg_t *, void *, int);
    libzmq_function("zmq_msg_send", &real);
    __tsan_release(&handed_over);
    return real(msg, socket, flags);
}

__attribute__((visibility("default"))) int zmq_send(void *socket, const void *data,
                                                    size_t len, int flags)
{
    int (*real)(void *, const void *, size_t, int);
    libzmq_function("zmq_send", &real);
    __tsan_release(&handed_over);
    return real(socket, data, len, flags);
}

__attribute__((visibility("default"))) int zmq_msg_recv(zmq_msg_t *msg, void *socket,
                                                        int flags)
{
    int (*real)(zmq_msg_t *, void *, int);
    libzmq_function("zmq_msg_recv", &real);
    const int got = real(msg, socket, flags);
    __tsan_acquire(&handed_over);
    return got;
}

__attribute__((visibility("default"))) int zmq_recvmsg(void *socket, zmq_msg_t *msg,
                                                       int flags)
{
    return zmq_msg_recv(msg, socket, flags);
}

//  What is left lies inside libzmq, or in its freeing of messages that nobody read.
const char *__tsan_default_suppressions(void)
{
    return "race:libzmq.so\n";
}
#endif

#endif
