//  Questions, orders, waiting for a job and events, against a stand-in broker.

#include "producer/stand_in.h"

#include <pthread.h>
#include <stdatomic.h>

static const char some_id[] = "0192f1c2-a5b0-7c3d-8e4f-5061728394a5";

static luna_id parsed(const char *text)
{
    luna_id id;
    assert_int_equal(luna_id_parse(text, &id), LUNA_OK);
    return id;
}

//  A call of the library in a thread of its own, so that the test can play the broker.
typedef struct call {
    luna_client *client;
    int (*run)(struct call *call);
    int rc;
    char error[256];
    luna_answer *answer;
    size_t images, changes;
    char last_path[64];
    pthread_t thread;
} call;

static void *call_run(void *arg)
{
    call *c = arg;
    c->rc = c->run(c);
    snprintf(c->error, sizeof c->error, "%s", luna_last_error());
    return NULL;
}

static void call_begin(call *c, luna_client *client, int (*run)(call *))
{
    *c = (call){.client = client, .run = run};
    assert_int_equal(pthread_create(&c->thread, NULL, call_run, c), 0);
}

static int call_end(call *c)
{
    pthread_join(c->thread, NULL);
    return c->rc;
}

static luna_msg_query take_query(stand_in *broker, const char *what)
{
    taken message;
    luna_msg_query query;
    take_control(broker, LUNA_MSG_QUERY, &message);
    assert_int_equal(luna_packet_read(message.packet, &query), LUNA_OK);
    assert_true(luna_text_is(query.what, what));
    query.what = query.state = (luna_text){0};  //  they go with the message
    release(&message);
    return query;
}

static int ask_status(call *c)
{
    return luna_query_status(c->client, TAKE_MS, &c->answer);
}

static int ask_jobs(call *c)
{
    return luna_query_jobs(c->client, "failed", 7, TAKE_MS, &c->answer);
}

static int ask_job(call *c)
{
    return luna_query_job(c->client, some_id, TAKE_MS, &c->answer);
}

static int ask_decoders(call *c)
{
    return luna_query_decoders(c->client, TAKE_MS, &c->answer);
}

static void questions_bring_plain_structs(void **state)
{
    (void)state;
    stand_in broker;
    call c;
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    welcome(&broker);

    call_begin(&c, client, ask_status);
    const luna_msg_status status = {.pending = 3, .accepting = luna_text_of("yes")};
    luna_msg_answer answer = {.re = take_query(&broker, "status").re, .status = &status};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    assert_int_equal(c.answer->status->pending, 3);
    assert_string_equal(c.answer->status->accepting, "yes");
    assert_string_equal(c.answer->status->version, "");
    luna_answer_free(&c.answer);
    assert_null(c.answer);
    luna_answer_free(&c.answer);

    call_begin(&c, client, ask_jobs);
    const luna_msg_query query = take_query(&broker, "jobs");
    assert_int_equal(query.limit, 7);
    const luna_msg_image image = {.index = 2,
                                  .path = luna_text_of("/o/a.png"),
                                  .sha256 = luna_text_of("00"),
                                  .decode_ms = 1.5};
    const luna_msg_job_info jobs[2] = {
        {.id = parsed(some_id), .state = luna_text_of("failed"), .attempts = 4},
        {.id = luna_id_new(), .state = luna_text_of("failed"), .files = {&image, 1}}};
    answer = (luna_msg_answer){.re = query.re, .jobs = {jobs, 2}};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    assert_null(c.answer->status);
    assert_int_equal(c.answer->job_count, 2);
    assert_string_equal(c.answer->jobs[0].id, some_id);
    assert_int_equal(c.answer->jobs[0].attempts, 4);
    assert_int_equal(c.answer->jobs[1].file_count, 1);
    assert_string_equal(c.answer->jobs[1].files[0].path, "/o/a.png");
    assert_int_equal(c.answer->jobs[1].files[0].index, 2);
    assert_true(c.answer->jobs[1].files[0].decode_ms > 1.4);
    luna_answer_free(&c.answer);

    call_begin(&c, client, ask_decoders);
    const luna_msg_vae vae = {.name = luna_text_of("taef2")};
    const luna_msg_decoder_info decoder = {
        .name = luna_text_of("gpu1"), .state = luna_text_of("ready"), .vaes = {&vae, 1}};
    answer = (luna_msg_answer){.re = take_query(&broker, "decoders").re,
                               .decoders = {&decoder, 1}};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    assert_int_equal(c.answer->decoder_count, 1);
    assert_string_equal(c.answer->decoders[0].name, "gpu1");
    assert_int_equal(c.answer->decoders[0].vae_count, 1);
    assert_string_equal(c.answer->decoders[0].vaes[0], "taef2");
    luna_answer_free(&c.answer);

    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

static void errors_in_answers_are_returned(void **state)
{
    (void)state;
    stand_in broker;
    call c;
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    welcome(&broker);
    call_begin(&c, client, ask_job);
    const luna_msg_query query = take_query(&broker, "job");
    const luna_id id = parsed(some_id);
    assert_memory_equal(&query.id, &id, sizeof id);
    luna_msg_answer answer = {.re = query.re,
                              .error = luna_text_of("not_found"),
                              .detail = luna_text_of("no such job")};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_int_equal(call_end(&c), LUNA_RC_NOT_FOUND);
    assert_non_null(strstr(c.error, some_id));
    assert_null(c.answer);
    //  An answer that holds nothing is no answer to these.
    call_begin(&c, client, ask_job);
    answer = (luna_msg_answer){.re = take_query(&broker, "job").re};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_int_equal(call_end(&c), LUNA_RC_NOT_FOUND);
    call_begin(&c, client, ask_status);
    answer = (luna_msg_answer){.re = take_query(&broker, "status").re};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_int_equal(call_end(&c), LUNA_RC_PROTOCOL);
    luna_answer *none = NULL;
    assert_int_equal(luna_query_job(client, "x", 0, &none), LUNA_RC_USAGE);
    assert_int_equal(luna_query_job(client, some_id, 5, &none), LUNA_RC_TIMEOUT);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

static void without_a_broker_questions_say_so(void **state)
{
    (void)state;
    stand_in broker;
    luna_answer *none = NULL;
    stand_in_name(&broker);
    luna_client *client = client_of(&broker, NULL);
    assert_int_equal(luna_query_status(client, 5, &none), LUNA_RC_UNAVAILABLE);
    assert_non_null(strstr(luna_last_error(), "luna-broker"));
    assert_int_equal(luna_wait_job(client, some_id, 5, NULL, NULL), LUNA_RC_UNAVAILABLE);
    assert_int_equal(luna_cancel(client, some_id, 5), LUNA_RC_UNAVAILABLE);
    assert_null(none);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
}

//  A question that the former broker swallowed is put to the next one.
static void questions_survive_a_restart(void **state)
{
    (void)state;
    stand_in broker;
    call c;
    stand_in_name(&broker);
    broker.ping_ms = 20;
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    welcome(&broker);
    call_begin(&c, client, ask_status);
    take_query(&broker, "status");
    stand_in_close(&broker);
    stand_in_open(&broker);
    broker.ping_ms = 60000;
    welcome(&broker);
    const luna_msg_status status = {.pending = 1};
    const luna_msg_answer answer = {.re = take_query(&broker, "status").re,
                                    .status = &status};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    luna_answer_free(&c.answer);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

static int cancel_it(call *c)
{
    return luna_cancel(c->client, some_id, TAKE_MS);
}

static int retry_it(call *c)
{
    return luna_retry(c->client, some_id, TAKE_MS);
}

static luna_msg_order take_order(stand_in *broker, luna_msg_type type)
{
    taken message;
    luna_msg_order order;
    take_control(broker, type, &message);
    assert_int_equal(luna_packet_read(message.packet, &order), LUNA_OK);
    release(&message);
    const luna_id id = parsed(some_id);
    assert_memory_equal(&order.id, &id, sizeof id);
    return order;
}

//  The order could overtake the job on the other socket, so it waits for the receipt.
static void a_cancel_waits_for_the_receipt(void **state)
{
    (void)state;
    stand_in broker;
    taken message;
    call c;
    uint8_t latent[640] = {0};
    char id[LUNA_JOB_ID_BYTES];
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    luna_submission job = submission_of(latent, sizeof latent);
    job.job_id = some_id;
    assert_ok(luna_submit(client, &job, id));
    welcome(&broker);
    const luna_msg_job got = take_job(&broker, &message);
    call_begin(&c, client, cancel_it);
    send_receipt(&broker, &got.id, "accepted", NULL);
    release(&message);
    luna_msg_answer answer = {.re = take_order(&broker, LUNA_MSG_CANCEL).re};
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    call_begin(&c, client, retry_it);
    answer.re = take_order(&broker, LUNA_MSG_RETRY).re;
    send_control(&broker, LUNA_MSG_ANSWER, &answer);
    assert_ok(call_end(&c));
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

static void count_news(void *context, const luna_job *job, const luna_image *image)
{
    call *c = context;
    assert_string_equal(job->id, some_id);
    if (!image) {
        c->changes++;
        return;
    }
    c->images++;
    snprintf(c->last_path, sizeof c->last_path, "%s", image->path);
}

static int wait_it(call *c)
{
    return luna_wait_job(c->client, some_id, TAKE_MS, count_news, c);
}

static void take_subscription(stand_in *broker, const char *topic)
{
    char frame[64] = "";
    const int len = zmq_recv(broker->events, frame, sizeof frame - 1, 0);
    assert_true(len > 0);
    assert_int_equal(frame[0], 1);
    assert_string_equal(frame + 1, topic);
}

static void publish(stand_in *broker, const char *topic, const luna_msg_event *event)
{
    void *data;
    size_t len;
    assert_int_equal(luna_msg_pack(LUNA_MSG_EVENT, event, &data, &len), LUNA_OK);
    zmq_send(broker->events, topic, strlen(topic), ZMQ_SNDMORE);
    assert_int_equal(zmq_send(broker->events, data, len, 0), len);
    free(data);
}

static void answer_job_query(stand_in *broker, const char *job_state, size_t files,
                             const char *error)
{
    static const luna_msg_image images[2] = {
        {.index = 0, .path = {"/o/0.png", 8}, .sha256 = {"00", 2}},
        {.index = 1, .path = {"/o/1.png", 8}, .sha256 = {"00", 2}}};
    const luna_msg_job_info job = {.id = parsed(some_id),
                                   .state = luna_text_of(job_state),
                                   .images = 2,
                                   .images_done = files,
                                   .error = luna_text_of(error),
                                   .detail = luna_text_of(error ? "it broke" : NULL),
                                   .files = {images, files}};
    const luna_msg_answer answer = {.re = take_query(broker, "job").re,
                                    .jobs = {&job, 1}};
    send_control(broker, LUNA_MSG_ANSWER, &answer);
}

static void publish_job(stand_in *broker, const char *kind, const char *job_state)
{
    static uint64_t seq = 0;
    char topic[64];
    const luna_msg_job_info job = {.id = parsed(some_id),
                                   .state = luna_text_of(job_state)};
    const luna_msg_event event = {.epoch = broker->epoch,
                                  .seq = ++seq,
                                  .time_ms = 1,
                                  .kind = luna_text_of(kind),
                                  .jobs = {&job, 1}};
    snprintf(topic, sizeof topic, "job/%s", some_id);
    publish(broker, topic, &event);
}

static void waiting_reports_each_image_once(void **state)
{
    (void)state;
    stand_in broker;
    call c;
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    welcome(&broker);
    call_begin(&c, client, wait_it);
    take_subscription(&broker, "job/0192f1c2-a5b0-7c3d-8e4f-5061728394a5");
    answer_job_query(&broker, "pending", 0, NULL);
    publish_job(&broker, "image", "in_progress");
    answer_job_query(&broker, "in_progress", 1, NULL);
    publish_job(&broker, "completed", "completed");
    answer_job_query(&broker, "completed", 2, NULL);
    assert_ok(call_end(&c));
    assert_int_equal(c.images, 2);
    assert_int_equal(c.changes, 3);
    assert_string_equal(c.last_path, "/o/1.png");
    //  The former watcher's subscription ends with it.
    char frame[64] = "";
    assert_true(zmq_recv(broker.events, frame, sizeof frame - 1, 0) > 0);
    assert_int_equal(frame[0], 0);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

//  Nothing is published: the job's end is found all the same.
static void waiting_needs_no_events(void **state)
{
    (void)state;
    stand_in broker;
    call c;
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    welcome(&broker);
    call_begin(&c, client, wait_it);
    answer_job_query(&broker, "in_progress", 0, NULL);
    answer_job_query(&broker, "failed", 1, "no_space");
    assert_int_equal(call_end(&c), LUNA_RC_NO_SPACE);
    assert_non_null(strstr(c.error, "it broke"));
    assert_int_equal(c.images, 1);
    call_begin(&c, client, wait_it);
    answer_job_query(&broker, "cancelled", 0, NULL);
    assert_int_equal(call_end(&c), LUNA_RC_CANCELLED);
    assert_int_equal(luna_wait_job(client, some_id, 5, NULL, NULL), LUNA_RC_TIMEOUT);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

static void note_event(void *context, const luna_event *event)
{
    atomic_int *pending = context;
    if (event->content->status && strcmp(event->kind, "snapshot") == 0)
        atomic_store(pending, (int)event->content->status->pending);
}

static void wait_value(atomic_int *value, int wanted)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (atomic_load(value) != wanted && luna_now_ms() < limit_ms) usleep(1000);
    assert_int_equal(atomic_load(value), wanted);
}

static void events_come_to_the_callback(void **state)
{
    (void)state;
    stand_in broker;
    atomic_int pending = 0;
    stand_in_name(&broker);
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    assert_ok(luna_events(client, note_event, &pending));
    welcome(&broker);
    take_subscription(&broker, "job/");
    take_subscription(&broker, "decoder/");
    take_subscription(&broker, "status");
    const luna_msg_status status = {.pending = 9};
    const luna_msg_event event = {.epoch = broker.epoch,
                                  .seq = 1,
                                  .time_ms = 1,
                                  .kind = luna_text_of("snapshot"),
                                  .status = &status};
    zmq_send(broker.events, "status", 6, ZMQ_SNDMORE);
    zmq_send(broker.events, "garbage", 7, 0);
    publish(&broker, "status", &event);
    wait_value(&pending, 9);
    assert_ok(luna_events(client, NULL, NULL));
    char frame[64] = "";
    assert_true(zmq_recv(broker.events, frame, sizeof frame - 1, 0) > 0);
    assert_int_equal(frame[0], 0);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_bring_plain_structs),
        cmocka_unit_test(errors_in_answers_are_returned),
        cmocka_unit_test(without_a_broker_questions_say_so),
        cmocka_unit_test(questions_survive_a_restart),
        cmocka_unit_test(a_cancel_waits_for_the_receipt),
        cmocka_unit_test(waiting_reports_each_image_once),
        cmocka_unit_test(waiting_needs_no_events),
        cmocka_unit_test(events_come_to_the_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
