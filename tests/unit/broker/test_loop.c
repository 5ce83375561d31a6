//  The whole broker in one process, with a producer and a decoder made of sockets.

#define _XOPEN_SOURCE 700  //  nftw
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
//  cmocka wants the four before it
#include "broker/broker.h"
#include "common/clock.h"
#include "common/log.h"
#include "proto/codec.h"
#include "proto/job.h"

#include <cmocka.h>
#include <czmq.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

//  ---- the broker in its thread --------------------------------------------------

typedef struct house {
    luna_settings settings;
    pthread_t thread;
    int stop_fd;
    luna_err result;
    char control[LUNA_SETTING_BYTES];
} house;

static void *serve(void *argument)
{
    house *h = argument;
    const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
    //  ZeroMQ gives an inproc name back some time after its socket was closed.
    do {
        h->result = luna_broker_run(&h->settings, NULL, h->stop_fd);
    } while (h->result == LUNA_BUSY && luna_now_ms() < end_ms);
    return NULL;
}

static void open_house(house *h)
{
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(h->stop_fd >= 0);
    assert_int_equal(luna_settings_load(NULL, &h->settings), LUNA_OK);
    snprintf(h->control, sizeof h->control, "%s", h->settings.control);
    assert_int_equal(pthread_create(&h->thread, NULL, serve, h), 0);
}

static void close_house(house *h)
{
    const uint64_t one = 1;
    assert_int_equal(write(h->stop_fd, &one, sizeof one), sizeof one);
    pthread_join(h->thread, NULL);
    close(h->stop_fd);
    assert_int_equal(h->result, LUNA_OK);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

//  The socket paths must be short, so the home is not below the working folder.
static int setup(void **state)
{
    static char home[] = "/tmp/luna-loop-XXXXXX";
    memcpy(home + sizeof home - 7, "XXXXXX", 6);
    if (!mkdtemp(home)) return -1;
    setenv("LUNA_HOME", home, 1);
    setenv("LUNA_HTTP_LISTEN", "off", 1);
    setenv("LUNA_STORE_RESERVE", "0", 1);
    setenv("LUNA_LEASE_BACKOFF", "10ms", 1);
    setenv("LUNA_LEASE_PING", "500ms", 1);
    setenv("LUNA_BROKER_STOP_GRACE", "0", 1);
    house *h = calloc(1, sizeof *h);
    if (!h) return -1;
    open_house(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    house *h = *state;
    close_house(h);
    free(h);
    return nftw(getenv("LUNA_HOME"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

//  ---- peers ---------------------------------------------------------------------

typedef struct peer {
    luna_id id;
    zsock_t *control;
    zsock_t *bulk;  //  PUSH of a producer, PULL of a decoder
    char *bytes;    //  of the packet in hand
    luna_packet *packet;
} peer;

static void say(peer *p, zsock_t *to, luna_msg_type type, const void *message)
{
    void *bytes;
    size_t len;
    assert_int_equal(luna_msg_pack(type, message, &bytes, &len), LUNA_OK);
    (void)p;
    assert_int_equal(zmq_send(zsock_resolve(to), bytes, len, 0), len);
    free(bytes);
}

static void drop_packet(peer *p)
{
    luna_packet_close(&p->packet);
    free(p->bytes);
    p->bytes = NULL;
}

//  The next message of this type; others are passed over.
static void hear(peer *p, zsock_t *from, luna_msg_type type, void *message)
{
    const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
    zmq_pollitem_t item = {.socket = zsock_resolve(from), .events = ZMQ_POLLIN};
    while (luna_now_ms() < end_ms) {
        if (zmq_poll(&item, 1, 100) < 1) continue;
        drop_packet(p);
        zframe_t *frame = zframe_recv(from);
        const size_t len = zframe_size(frame);
        p->bytes = malloc(len);
        assert_non_null(p->bytes);
        memcpy(p->bytes, zframe_data(frame), len);
        zframe_destroy(&frame);
        assert_int_equal(luna_packet_open(p->bytes, len, &p->packet), LUNA_OK);
        if (luna_packet_type(p->packet) != type) continue;
        assert_int_equal(luna_packet_read(p->packet, message), LUNA_OK);
        return;
    }
    fail_msg("no message of type %d in time", (int)type);
}

static peer new_peer(const house *h, const char *role, luna_msg_welcome *welcome)
{
    peer p = {.id = luna_id_new(), .control = zsock_new(ZMQ_DEALER)};
    zmq_setsockopt(zsock_resolve(p.control), ZMQ_ROUTING_ID, p.id.byte, LUNA_ID_BYTES);
    zsock_set_linger(p.control, 0);
    assert_int_equal(zmq_connect(zsock_resolve(p.control), h->control), 0);
    say(&p, p.control, LUNA_MSG_HELLO,
        &(luna_msg_hello){
            .role = luna_text_of(role), .name = luna_text_of(role), .instance = p.id});
    hear(&p, p.control, LUNA_MSG_WELCOME, welcome);
    return p;
}

static void attach(peer *p, int type, luna_text endpoint)
{
    char text[512];
    luna_text_copy(endpoint, text, sizeof text);
    p->bulk = zsock_new(type);
    zsock_set_linger(p->bulk, 0);
    assert_int_equal(zmq_connect(zsock_resolve(p->bulk), text), 0);
}

static peer new_producer(const house *h)
{
    luna_msg_welcome welcome;
    peer p = new_peer(h, "producer", &welcome);
    assert_null(welcome.slot.data);
    attach(&p, ZMQ_PUSH, welcome.intake);
    return p;
}

static peer new_decoder(const house *h)
{
    luna_msg_welcome welcome;
    peer p = new_peer(h, "decoder", &welcome);
    attach(&p, ZMQ_PULL, welcome.slot);
    say(&p, p.control, LUNA_MSG_READY,
        &(luna_msg_ready){.credit_jobs = 1, .credit_bytes = 1 << 20});
    return p;
}

static void close_peer(peer *p)
{
    drop_packet(p);
    zsock_destroy(&p->control);
    zsock_destroy(&p->bulk);
}

static luna_msg_receipt submit_until(peer *p, const luna_id *id, size_t latent_bytes,
                                     uint64_t deadline_ms)
{
    static const uint8_t latent[2 * 4 * 4 * 4 * 2];
    luna_msg_input input = luna_msg_input_default();
    luna_msg_job job = luna_msg_job_default();
    input.dtype = luna_text_of("float16");
    input.shape = (luna_dims){.at = {2, 4, 4, 4}, .count = 4};
    input.latent = (luna_blob){latent, latent_bytes};
    job.id = *id;
    job.client = p->id;
    job.created_ms = 1;
    job.deadline_ms = deadline_ms;
    job.inputs.items = &input;
    job.inputs.count = 1;
    luna_msg_receipt receipt;
    say(p, p->bulk, LUNA_MSG_JOB, &job);
    hear(p, p->control, LUNA_MSG_RECEIPT, &receipt);
    assert_memory_equal(&receipt.id, id, sizeof *id);
    return receipt;
}

static luna_msg_receipt submit(peer *p, const luna_id *id, size_t latent_bytes)
{
    return submit_until(p, id, latent_bytes, 0);
}

enum { LATENT_BYTES = 2 * 4 * 4 * 4 * 2 };

static luna_msg_job_info ask_job(peer *p, const luna_id *id)
{
    luna_msg_answer answer;
    say(p, p->control, LUNA_MSG_QUERY,
        &(luna_msg_query){.re = 1, .what = luna_text_of("job"), .id = *id});
    hear(p, p->control, LUNA_MSG_ANSWER, &answer);
    assert_null(answer.error.data);
    assert_int_equal(answer.jobs.count, 1);
    return answer.jobs.items[0];
}

static void wait_for_state(peer *p, const luna_id *id, const char *state)
{
    const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
    while (luna_now_ms() < end_ms)
        if (luna_text_is(ask_job(p, id).state, state)) return;
    fail_msg("the job never became %s", state);
}

static luna_msg_image image_at(uint64_t index)
{
    return (luna_msg_image){
        .index = index,
        .path = luna_text_of(index ? "/out/b.png" : "/out/a.png"),
        .bytes = 9,
        .sha256 = luna_text_of(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        .width = 32,
        .height = 32};
}

static void report_done(peer *d, const luna_msg_work *work, size_t count)
{
    const luna_msg_image images[2] = {image_at(0), image_at(1)};
    luna_msg_done message = {
        .id = work->id, .attempt = work->attempt, .epoch = work->epoch};
    message.images.items = images;
    message.images.count = count;
    say(d, d->control, LUNA_MSG_DONE, &message);
}

//  ---- tests ---------------------------------------------------------------------

static void a_job_goes_all_the_way(void **state)
{
    peer p = new_producer(*state);
    const luna_id id = luna_id_new();
    luna_msg_receipt receipt = submit(&p, &id, LATENT_BYTES);
    assert_true(luna_text_is(receipt.status, "accepted"));
    assert_int_equal(receipt.images, 2);
    assert_false(receipt.duplicate);
    receipt = submit(&p, &id, LATENT_BYTES);
    assert_true(luna_text_is(receipt.status, "accepted"));
    assert_true(receipt.duplicate);
    peer d = new_decoder(*state);
    luna_msg_work work;
    hear(&d, d.bulk, LUNA_MSG_WORK, &work);
    assert_int_equal(work.attempt, 1);
    assert_int_equal(work.payload.len, work.payload_bytes);
    report_done(&d, &work, 2);
    wait_for_state(&p, &id, "completed");
    const luna_msg_job_info info = ask_job(&p, &id);
    assert_int_equal(info.files.count, 2);
    assert_true(luna_text_is(info.files.items[1].path, "/out/b.png"));
    receipt = submit(&p, &id, LATENT_BYTES);
    assert_true(receipt.duplicate);
    close_peer(&p);
    close_peer(&d);
}

static void a_dead_decoders_job_goes_to_the_next(void **state)
{
    peer p = new_producer(*state), first = new_decoder(*state);
    const luna_id id = luna_id_new();
    submit(&p, &id, LATENT_BYTES);
    luna_msg_work work;
    hear(&first, first.bulk, LUNA_MSG_WORK, &work);
    const luna_msg_image image = image_at(1);
    luna_msg_progress progress = {
        .id = id, .attempt = 1, .epoch = work.epoch, .stage = luna_text_of("saved")};
    progress.images.items = &image;
    progress.images.count = 1;
    say(&first, first.control, LUNA_MSG_PROGRESS, &progress);
    while (ask_job(&p, &id).images_done < 1) {
    }
    close_peer(&first);
    peer second = new_decoder(*state);
    hear(&second, second.bulk, LUNA_MSG_WORK, &work);
    assert_int_equal(work.attempt, 2);
    assert_int_equal(work.done.count, 1);
    assert_int_equal(work.done.items[0].index, 1);
    report_done(&second, &work, 2);
    wait_for_state(&p, &id, "completed");
    assert_int_equal(ask_job(&p, &id).lost, 1);
    close_peer(&second);
    close_peer(&p);
}

static void a_restart_keeps_jobs_and_adopts_attempts(void **state)
{
    house *h = *state;
    peer p = new_producer(h), d = new_decoder(h);
    const luna_id id = luna_id_new(), waiting = luna_id_new();
    submit(&p, &id, LATENT_BYTES);
    luna_msg_work work;
    hear(&d, d.bulk, LUNA_MSG_WORK, &work);
    submit(&p, &waiting, LATENT_BYTES);
    close_house(h);
    open_house(h);
    const luna_msg_job_key running = {.id = id, .attempt = 1};
    luna_msg_hello again = {.role = luna_text_of("decoder"), .instance = d.id};
    again.running.items = &running;
    again.running.count = 1;
    luna_msg_welcome welcome;
    say(&d, d.control, LUNA_MSG_HELLO, &again);
    hear(&d, d.control, LUNA_MSG_WELCOME, &welcome);
    assert_memory_not_equal(&welcome.epoch, &work.epoch, sizeof welcome.epoch);
    report_done(&d, &(luna_msg_work){.id = id, .attempt = 1, .epoch = welcome.epoch}, 2);
    wait_for_state(&p, &id, "completed");
    assert_int_equal(ask_job(&p, &id).attempts, 1);
    wait_for_state(&p, &waiting, "pending");
    close_peer(&p);
    close_peer(&d);
}

static void refusals_are_answers(void **state)
{
    peer p = new_producer(*state);
    luna_id id = luna_id_new();
    luna_msg_receipt receipt = submit(&p, &id, LATENT_BYTES - 2);
    assert_true(luna_text_is(receipt.status, "refused"));
    assert_true(luna_text_is(receipt.error, "bad_latent"));
    assert_true(receipt.detail.len > 0);
    static const char *const junk[] = {"", "\xc1", "\x81\xa4luna", "hello",
                                       "\xdf\xff\xff\xff\xff"};
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        zmq_send(zsock_resolve(p.bulk), junk[i], strlen(junk[i]), 0);
        zmq_send(zsock_resolve(p.control), junk[i], strlen(junk[i]), 0);
    }
    luna_msg_answer answer;
    hear(&p, p.control, LUNA_MSG_ANSWER, &answer);
    assert_true(luna_text_is(answer.error, "protocol"));
    receipt = submit(&p, &id, LATENT_BYTES);  //  it lives
    assert_true(luna_text_is(receipt.status, "accepted"));
    close_peer(&p);
}

static void orders_are_carried_out(void **state)
{
    peer p = new_producer(*state), d = new_decoder(*state);
    const luna_id id = luna_id_new();
    luna_msg_work work;
    luna_msg_answer answer;
    submit(&p, &id, LATENT_BYTES);
    hear(&d, d.bulk, LUNA_MSG_WORK, &work);
    say(&d, d.control, LUNA_MSG_FAILED,
        &(luna_msg_failed){.id = id,
                           .attempt = 1,
                           .epoch = work.epoch,
                           .error = luna_text_of("bad_model"),
                           .detail = luna_text_of("no")});
    wait_for_state(&p, &id, "failed");
    assert_int_equal(ask_job(&p, &id).refused, 1);
    say(&p, p.control, LUNA_MSG_RETRY, &(luna_msg_order){.re = 5, .id = id});
    hear(&p, p.control, LUNA_MSG_ANSWER, &answer);
    assert_null(answer.error.data);
    hear(&d, d.bulk, LUNA_MSG_WORK, &work);
    say(&p, p.control, LUNA_MSG_CANCEL, &(luna_msg_order){.re = 6, .id = id});
    hear(&p, p.control, LUNA_MSG_ANSWER, &answer);
    assert_int_equal(answer.re, 6);
    assert_null(answer.error.data);
    luna_msg_order stop;
    hear(&d, d.control, LUNA_MSG_CANCEL, &stop);
    assert_memory_equal(&stop.id, &id, sizeof id);
    assert_int_equal(stop.attempt, work.attempt);
    wait_for_state(&p, &id, "cancelled");
    say(&p, p.control, LUNA_MSG_CANCEL, &(luna_msg_order){.re = 7, .id = id});
    hear(&p, p.control, LUNA_MSG_ANSWER, &answer);
    assert_true(luna_text_is(answer.error, "exists"));
    close_peer(&p);
    close_peer(&d);
}

//  Killed between its hello and its slot's connection, a decoder leaves no connection
//  that could break: its silence tells.
static void a_decoder_that_never_came_holds_nothing(void **state)
{
    house *h = *state;
    luna_msg_welcome welcome;
    luna_msg_work work;
    peer dead = new_peer(h, "decoder", &welcome);
    say(&dead, dead.control, LUNA_MSG_READY,
        &(luna_msg_ready){.credit_jobs = 1, .credit_bytes = 1 << 20});
    peer p = new_producer(h);
    const luna_id id = luna_id_new();
    submit(&p, &id, LATENT_BYTES);
    wait_for_state(&p, &id, "in_progress");
    close_peer(&dead);
    peer d = new_decoder(h);
    hear(&d, d.bulk, LUNA_MSG_WORK, &work);
    assert_memory_equal(&work.id, &id, sizeof id);
    assert_int_equal(work.attempt, 2);
    close_peer(&d);
    close_peer(&p);
}

//  A snapshot first, then what happens.
static void watchers_see_snapshot_and_events(void **state)
{
    house *h = *state;
    peer p = new_producer(h);
    const luna_id id = luna_id_new();
    char topic[64] = "job/";
    luna_id_text(&id, topic + 4);
    zsock_t *sub = zsock_new(ZMQ_SUB);
    zsock_set_subscribe(sub, topic);
    zsock_set_subscribe(sub, "status");
    assert_int_equal(zmq_connect(zsock_resolve(sub), h->settings.events), 0);
    peer watcher = {0};
    luna_msg_event event;
    char *name = zstr_recv(sub);
    while (name && strcmp(name, "status") != 0) {  //  the job's own snapshot is empty
        hear(&watcher, sub, LUNA_MSG_EVENT, &event);
        zstr_free(&name);
        name = zstr_recv(sub);
    }
    zstr_free(&name);
    hear(&watcher, sub, LUNA_MSG_EVENT, &event);
    assert_true(luna_text_is(event.kind, "snapshot"));
    assert_non_null(event.status);
    uint64_t seq = event.seq;
    submit(&p, &id, LATENT_BYTES);
    bool accepted = false;
    while (!accepted) {
        name = zstr_recv(sub);
        hear(&watcher, sub, LUNA_MSG_EVENT, &event);
        accepted = luna_text_is(event.kind, "accepted");
        if (accepted) assert_string_equal(name, topic);
        if (!luna_text_is(event.kind, "snapshot")) {
            assert_true(event.seq > seq);
            seq = event.seq;
        }
        zstr_free(&name);
    }
    assert_memory_equal(&event.jobs.items[0].id, &id, sizeof id);
    close_peer(&watcher);
    zsock_destroy(&sub);
    close_peer(&p);
}

//  A deadline beyond every clock is none, and not one that has passed.
static void far_deadlines_do_not_come(void **state)
{
    static const uint64_t far_ms[] = {INT64_MAX, UINT64_MAX, UINT64_MAX - 1};
    luna_id ids[3], soon = luna_id_new();
    peer p = new_producer(*state);
    for (size_t i = 0; i < 3; i++) {
        ids[i] = luna_id_new();
        submit_until(&p, &ids[i], LATENT_BYTES, far_ms[i]);
    }
    submit_until(&p, &soon, LATENT_BYTES, 1);
    wait_for_state(&p, &soon, "failed");
    for (size_t i = 0; i < 3; i++)
        assert_true(luna_text_is(ask_job(&p, &ids[i]).state, "pending"));
    close_peer(&p);
}

static void on_signal(int number)
{
    (void)number;
}

//  A signal that happens to reach the loop's thread ends a wait, not the broker.
static void a_signal_does_not_end_it(void **state)
{
    house *h = *state;
    peer p = new_producer(h);
    const struct sigaction act = {.sa_handler = on_signal};
    struct sigaction old;
    sigaction(SIGUSR1, &act, &old);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pthread_kill(h->thread, SIGUSR1), 0);
        const luna_id id = luna_id_new();
        assert_true(luna_text_is(submit(&p, &id, LATENT_BYTES).status, "accepted"));
    }
    sigaction(SIGUSR1, &old, NULL);
    close_peer(&p);
}

static void a_second_broker_is_refused(void **state)
{
    house *h = *state;
    peer p = new_producer(h);
    assert_int_equal(luna_broker_run(&h->settings, NULL, h->stop_fd), LUNA_BUSY);
    assert_true(strlen(luna_error_text()) > 0);
    const luna_id id = luna_id_new();
    assert_true(luna_text_is(submit(&p, &id, LATENT_BYTES).status, "accepted"));
    close_peer(&p);
}

int main(void)
{
    luna_log_start("test_loop", LUNA_LOG_ERROR);
    zsys_handler_set(NULL);
    zsys_init();
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_job_goes_all_the_way),
        TEST(a_dead_decoders_job_goes_to_the_next),
        TEST(a_restart_keeps_jobs_and_adopts_attempts),
        TEST(refusals_are_answers),
        TEST(orders_are_carried_out),
        TEST(a_decoder_that_never_came_holds_nothing),
        TEST(watchers_see_snapshot_and_events),
        TEST(far_deadlines_do_not_come),
        TEST(a_signal_does_not_end_it),
        TEST(a_second_broker_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
