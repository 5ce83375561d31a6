//  The link against a stand-in for the broker: registration, work, epochs, cancels,
//  orders and the end.

#include "kit.h"

#include <czmq.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/signalfd.h>

#include "common/home.h"
#include "decoder/image/encode.h"
#include "decoder/sink/files.h"
#include "decoder/worker/link.h"

#define PING_MS 200  //  a busy machine must not be silent for three of them

typedef struct rig {
    char here[2048];
    char control[LUNA_ENDPOINT_BYTES];
    luna_address broker;
    char slot[4096];
    zsock_t *router;
    zsock_t *push;
    zframe_t *peer;   //  the routing id of the latest hello
    zframe_t *frame;  //  of the latest message, for its texts
    luna_packet *packet;
    luna_id epoch;
    const char *order;
    bool mute;  //  pings are not answered

    luna_registry *registry;
    luna_models *models;
    luna_attempts *attempts;
    luna_sink *sink;
    luna_pipeline *pipeline;
    int signals[2];
    pthread_t thread;
    luna_err err;
    luna_link_end end;
} rig;

//  ---- the decoder's side ------------------------------------------------------------

static void *serve(void *context)
{
    rig *self = context;
    const luna_msg_vae vaes[] = {{TEXT("flux")}};
    const luna_link_options options = {.control = self->control,
                                       .broker = &self->broker,
                                       .name = "test",
                                       .device = "cpu",
                                       .vaes = vaes,
                                       .vae_count = 1,
                                       .credit_jobs = 2,
                                       .credit_bytes = 1000,
                                       .stop_ms = DEADLINE_MS,
                                       .signal_fd = self->signals[0],
                                       .attempts = self->attempts,
                                       .pipeline = self->pipeline};
    self->err = luna_link_run(&options, &self->end);
    return NULL;
}

static void start_decoder(rig *self)
{
    char out[4096];
    const char *const roots[] = {out};
    snprintf(out, sizeof out, "%s/out", self->here);
    const luna_files_options files = {.roots = roots, .count = 1};
    const luna_models_options models = {.device = "cpu", .count_max = 1};
    self->registry = luna_registry_new();
    assert_int_equal(luna_registry_roots(self->registry, ""), LUNA_OK);
    assert_int_equal(luna_files_open(&files, &self->sink), LUNA_OK);
    assert_int_equal(luna_attempts_new(&self->attempts), LUNA_OK);
    assert_int_equal(luna_models_new(&models, &self->models), LUNA_OK);
    const luna_pipeline_options pipeline = {.attempts = self->attempts,
                                            .registry = self->registry,
                                            .models = self->models,
                                            .sink = self->sink,
                                            .encode_threads = 1,
                                            .pixels_max = 1 << 20};
    assert_int_equal(luna_pipeline_start(&pipeline, &self->pipeline), LUNA_OK);
    assert_int_equal(pipe(self->signals), 0);
    assert_int_equal(fcntl(self->signals[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(pthread_create(&self->thread, NULL, serve, self), 0);
}

static void send_signal(rig *self)
{
    const struct signalfd_siginfo info = {.ssi_signo = SIGTERM};
    assert_int_equal(write(self->signals[1], &info, sizeof info), sizeof info);
}

//  ---- the broker's side -------------------------------------------------------------

static void drop_message(rig *self)
{
    luna_packet_close(&self->packet);
    zframe_destroy(&self->frame);
}

static void send_message(rig *self, luna_msg_type type, const void *message)
{
    void *data = NULL;
    size_t len = 0;
    assert_int_equal(luna_msg_pack(type, message, &data, &len), LUNA_OK);
    zframe_t *peer = zframe_dup(self->peer), *frame = zframe_new(data, len);
    assert_int_equal(zframe_send(&peer, self->router, ZFRAME_MORE), 0);
    assert_int_equal(zframe_send(&frame, self->router, 0), 0);
    free(data);
}

static void send_work(rig *self, const luna_msg_work *work)
{
    void *data = NULL;
    size_t len = 0;
    assert_int_equal(luna_msg_pack(LUNA_MSG_WORK, work, &data, &len), LUNA_OK);
    zframe_t *frame = zframe_new(data, len);
    assert_int_equal(zframe_send(&frame, self->push, 0), 0);
    free(data);
}

static luna_msg_type receive(rig *self)
{
    zmq_pollitem_t item = {zsock_resolve(self->router), 0, ZMQ_POLLIN, 0};
    drop_message(self);
    assert_int_equal(zmq_poll(&item, 1, DEADLINE_MS), 1);
    zframe_t *peer = zframe_recv(self->router);
    self->frame = zframe_recv(self->router);
    assert_int_equal(luna_packet_open(zframe_data(self->frame), zframe_size(self->frame),
                                      &self->packet),
                     LUNA_OK);
    zframe_destroy(&self->peer);
    self->peer = peer;
    return luna_packet_type(self->packet);
}

//  Waits for a message of this type; pings in between are answered, unless they are
//  what is waited for, and credits are passed over.
static void expect(rig *self, luna_msg_type wanted, void *out)
{
    for (;;) {
        const luna_msg_type type = receive(self);
        if (type == LUNA_MSG_PING && !self->mute) {
            const luna_msg_pong pong = {self->epoch, TEXT(self->order)};
            send_message(self, LUNA_MSG_PONG, &pong);
        }
        if (type == wanted) break;
        if (type != LUNA_MSG_PING && type != LUNA_MSG_CREDIT)
            fail_msg("message %d came instead of %d", (int)type, (int)wanted);
    }
    assert_int_equal(luna_packet_read(self->packet, out), LUNA_OK);
}

static void welcome(rig *self, const char *host, const char *spool)
{
    const luna_msg_welcome message = {.epoch = self->epoch,
                                      .slot = TEXT(self->slot),
                                      .spool_dir = TEXT(spool),
                                      .host = TEXT(host),
                                      .lease_ms = 60000,
                                      .ping_ms = PING_MS};
    send_message(self, LUNA_MSG_WELCOME, &message);
}

static void register_decoder(rig *self)
{
    luna_msg_hello hello;
    luna_msg_ready ready;
    expect(self, LUNA_MSG_HELLO, &hello);
    welcome(self, "elsewhere", "/");
    expect(self, LUNA_MSG_READY, &ready);
    assert_int_equal(ready.credit_jobs, 2);
    assert_int_equal(ready.credit_bytes, 1000);
    assert_false(ready.maps_payload);
}

static luna_msg_work work_for(const rig *self, uint8_t id, uint64_t attempt)
{
    luna_msg_work work = work_fields(id_of(id), attempt);
    work.epoch = self->epoch;
    return work;
}

//  The payload is nowhere, so the attempt fails with not_found: enough to see it run.
static void expect_attempt(rig *self, uint8_t id, uint64_t attempt)
{
    const luna_id wanted = id_of(id);
    luna_msg_progress progress;
    luna_msg_failed failed;
    for (;;) {
        const luna_msg_type type = receive(self);
        if (type == LUNA_MSG_FAILED) break;
        if (type == LUNA_MSG_PING) {
            const luna_msg_pong pong = {self->epoch, TEXT(self->order)};
            send_message(self, LUNA_MSG_PONG, &pong);
        }
        if (type != LUNA_MSG_PROGRESS) continue;
        assert_int_equal(luna_packet_read(self->packet, &progress), LUNA_OK);
        assert_int_equal(luna_id_compare(&progress.id, &wanted), 0);
    }
    assert_int_equal(luna_packet_read(self->packet, &failed), LUNA_OK);
    assert_int_equal(luna_id_compare(&failed.id, &wanted), 0);
    assert_int_equal(luna_id_compare(&failed.epoch, &self->epoch), 0);
    assert_int_equal(failed.attempt, attempt);
    assert_true(luna_text_is(failed.error, "io"));
}

static int setup(void **state)
{
    rig *self = calloc(1, sizeof *self);
    assert_non_null(self);
    assert_non_null(getcwd(self->here, sizeof self->here));
    const int len =
        snprintf(self->control, sizeof self->control, "ipc://%s/control", self->here);
    assert_true(len > 0 && (size_t)len < sizeof self->control);
    assert_int_equal(luna_address_parse(self->control, &self->broker), LUNA_OK);
    snprintf(self->slot, sizeof self->slot, "ipc://%s/slot", self->here);
    self->epoch = id_of(100);
    self->order = "run";
    self->router = zsock_new(ZMQ_ROUTER);
    zsock_set_router_handover(self->router, 1);
    assert_int_not_equal(zsock_bind(self->router, "%s", self->control), -1);
    self->push = zsock_new(ZMQ_PUSH);
    zsock_set_linger(self->push, 0);
    assert_int_not_equal(zsock_bind(self->push, "%s", self->slot), -1);
    start_decoder(self);
    *state = self;
    return 0;
}

static void expect_bye(rig *self)
{
    luna_msg_bye bye;
    expect(self, LUNA_MSG_BYE, &bye);
    assert_int_equal(pthread_join(self->thread, NULL), 0);
    assert_int_equal(self->err, LUNA_OK);
    assert_int_equal(self->end, LUNA_LINK_STOPPED);
    self->thread = 0;
}

static int teardown(void **state)
{
    rig *self = *state;
    if (self->thread) {
        send_signal(self);
        pthread_join(self->thread, NULL);
    }
    luna_attempts_stop(self->attempts);
    luna_pipeline_stop(&self->pipeline);
    luna_models_free(&self->models);
    luna_attempts_free(&self->attempts);
    luna_sink_close(&self->sink);
    luna_registry_free(&self->registry);
    drop_message(self);
    zframe_destroy(&self->peer);
    zsock_destroy(&self->router);
    zsock_destroy(&self->push);
    close(self->signals[0]);
    close(self->signals[1]);
    free(self);
    remove_tree("out");
    remove_tree("control");
    remove_tree("slot");
    return 0;
}

//  ---- tests -----------------------------------------------------------------------

static void it_says_who_it_is_and_maps_on_the_same_host(void **state)
{
    rig *self = *state;
    luna_msg_hello hello;
    luna_msg_ready ready;
    char host[80];
    luna_home_host(host);
    expect(self, LUNA_MSG_HELLO, &hello);
    assert_true(luna_text_is(hello.role, "decoder"));
    assert_true(luna_text_is(hello.name, "test"));
    assert_true(luna_text_is(hello.host, host));
    assert_int_equal(hello.pid, getpid());
    assert_int_equal(hello.vaes.count, 1);
    assert_int_equal(hello.running.count, 0);
    assert_int_not_equal(hello.instance.byte[0], 0);
    assert_int_equal(zframe_size(self->peer), LUNA_ID_BYTES);
    assert_memory_equal(zframe_data(self->peer), hello.instance.byte, LUNA_ID_BYTES);
    welcome(self, host, self->here);
    expect(self, LUNA_MSG_READY, &ready);
    assert_true(ready.maps_payload);
}

static void work_is_taken_and_reported(void **state)
{
    rig *self = *state;
    register_decoder(self);
    const luna_msg_work work = work_for(self, 1, 4);
    send_work(self, &work);
    expect_attempt(self, 1, 4);
    send_signal(self);
    expect_bye(self);
}

static void work_of_another_epoch_is_dropped(void **state)
{
    rig *self = *state;
    register_decoder(self);
    luna_msg_work work = work_for(self, 1, 1);
    work.epoch = id_of(99);
    send_work(self, &work);
    work = work_for(self, 2, 1);
    send_work(self, &work);
    expect_attempt(self, 2, 1);
}

static void wait_for_credit(rig *self, uint64_t jobs)
{
    luna_msg_ready credit;
    do expect(self, LUNA_MSG_CREDIT, &credit);
    while (credit.credit_jobs != jobs);
}

static void a_cancel_overtakes_its_work(void **state)
{
    rig *self = *state;
    register_decoder(self);
    const luna_msg_order cancel = {.id = id_of(1)};
    send_message(self, LUNA_MSG_CANCEL, &cancel);
    //  A drain that is obeyed proves that what was sent before it has been read.
    self->order = "drain";
    wait_for_credit(self, 0);
    self->order = "run";
    wait_for_credit(self, 2);
    luna_msg_work work = work_for(self, 1, 1);
    send_work(self, &work);
    work = work_for(self, 2, 1);
    send_work(self, &work);
    expect_attempt(self, 2, 1);
}

static bool lists(const luna_msg_hello *hello, uint8_t id, uint64_t attempt)
{
    const luna_id wanted = id_of(id);
    for (size_t i = 0; i < hello->running.count; i++)
        if (luna_id_compare(&hello->running.items[i].id, &wanted) == 0)
            return hello->running.items[i].attempt == attempt;
    return false;
}

//  The broker dies before it read the report, or before it wrote it down: the report
//  comes again, under the new epoch.
static void a_new_epoch_hears_everything_again(void **state)
{
    rig *self = *state;
    luna_msg_hello hello;
    luna_msg_ready ready;
    register_decoder(self);
    self->mute = true;
    const luna_msg_work work = work_for(self, 1, 2);
    send_work(self, &work);
    for (luna_msg_type type; (type = receive(self)) != LUNA_MSG_FAILED;)
        assert_int_not_equal(type, LUNA_MSG_HELLO);
    self->epoch = id_of(101);
    const luna_msg_pong pong = {self->epoch, TEXT("run")};
    send_message(self, LUNA_MSG_PONG, &pong);
    expect(self, LUNA_MSG_HELLO, &hello);
    assert_true(lists(&hello, 1, 2));
    welcome(self, "elsewhere", "/");
    expect(self, LUNA_MSG_READY, &ready);
    self->mute = false;
    expect_attempt(self, 1, 2);
}

static void silence_brings_a_new_hello(void **state)
{
    rig *self = *state;
    luna_msg_hello hello;
    register_decoder(self);
    self->mute = true;
    expect(self, LUNA_MSG_HELLO, &hello);
    self->mute = false;
    welcome(self, "elsewhere", "/");
    luna_msg_ready ready;
    expect(self, LUNA_MSG_READY, &ready);
    const luna_msg_work work = work_for(self, 3, 1);
    send_work(self, &work);
    expect_attempt(self, 3, 1);
}

static void drain_and_run_and_stop(void **state)
{
    rig *self = *state;
    register_decoder(self);
    self->order = "drain";
    wait_for_credit(self, 0);
    self->order = "run";
    wait_for_credit(self, 2);
    self->order = "stop";
    expect_bye(self);
}

static void an_error_answer_brings_a_new_hello(void **state)
{
    rig *self = *state;
    luna_msg_hello hello;
    register_decoder(self);
    const luna_msg_answer answer = {.error = TEXT("not_found"),
                                    .detail = TEXT("say hello first")};
    send_message(self, LUNA_MSG_ANSWER, &answer);
    expect(self, LUNA_MSG_HELLO, &hello);
}

static void noise_is_dropped(void **state)
{
    rig *self = *state;
    register_decoder(self);
    zframe_t *peer = zframe_dup(self->peer), *frame = zframe_new("\xc1noise", 6);
    assert_int_equal(zframe_send(&peer, self->router, ZFRAME_MORE), 0);
    assert_int_equal(zframe_send(&frame, self->router, 0), 0);
    frame = zframe_new("\x81", 1);
    assert_int_equal(zframe_send(&frame, self->push, 0), 0);
    const luna_msg_work work = work_for(self, 1, 1);
    send_work(self, &work);
    expect_attempt(self, 1, 1);
}

static int start_images(void **state)
{
    (void)state;
    zsys_handler_set(NULL);
    return luna_image_start() == LUNA_OK ? 0 : -1;
}

static int stop_images(void **state)
{
    (void)state;
    luna_image_stop();
    zsys_shutdown();
    return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(it_says_who_it_is_and_maps_on_the_same_host),
                                       T(work_is_taken_and_reported),
                                       T(work_of_another_epoch_is_dropped),
                                       T(a_cancel_overtakes_its_work),
                                       T(a_new_epoch_hears_everything_again),
                                       T(silence_brings_a_new_hello),
                                       T(drain_and_run_and_stop),
                                       T(an_error_answer_brings_a_new_hello),
                                       T(noise_is_dropped)};
    return cmocka_run_group_tests(tests, start_images, stop_images);
}
