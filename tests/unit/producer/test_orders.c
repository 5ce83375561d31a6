//  Orders and the answers of questions, field by field, against a stand-in broker.

#include "producer/stand_in.h"

#include <pthread.h>

static const char some_id[] = "0192f1c2-a5b0-7c3d-8e4f-5061728394a5";

//  A call of the library in a thread of its own, so that the test can play the broker.
typedef struct call {
    stand_in broker;
    luna_client *client;
    int (*run)(struct call *call);
    int rc;
    uint64_t changed;
    luna_answer *answer;
    char error[256];
    pthread_t thread;
} call;

static void *call_run(void *arg)
{
    call *c = arg;
    c->rc = c->run(c);
    snprintf(c->error, sizeof c->error, "%s", luna_last_error());
    return NULL;
}

static void open_call(call *c)
{
    *c = (call){0};
    stand_in_name(&c->broker);
    stand_in_open(&c->broker);
    c->client = client_of(&c->broker, NULL);
    welcome(&c->broker);
}

static void begin(call *c, int (*run)(call *))
{
    c->run = run;
    assert_int_equal(pthread_create(&c->thread, NULL, call_run, c), 0);
}

static void close_call(call *c)
{
    assert_int_equal(luna_client_destroy(&c->client, 0), 0);
    stand_in_close(&c->broker);
}

//  The next order of that type; its texts stay valid until release.
static luna_msg_order take_order(call *c, luna_msg_type type, taken *message)
{
    luna_msg_order order;
    take_control(&c->broker, type, message);
    assert_int_equal(luna_packet_read(message->packet, &order), LUNA_OK);
    return order;
}

static void finish(call *c, taken *message, const luna_msg_order *order,
                   luna_msg_answer answer)
{
    answer.re = order->re;
    release(message);
    send_control(&c->broker, LUNA_MSG_ANSWER, &answer);
    pthread_join(c->thread, NULL);
}

static int prioritise_it(call *c)
{
    return luna_prioritise(c->client, some_id, 0, TAKE_MS);
}

static int run_it_next(call *c)
{
    return luna_run_next(c->client, some_id, TAKE_MS);
}

static void a_job_gets_another_place(void **state)
{
    (void)state;
    call c;
    taken message;
    luna_id id;
    assert_int_equal(luna_id_parse(some_id, &id), LUNA_OK);
    open_call(&c);
    begin(&c, prioritise_it);
    luna_msg_order order = take_order(&c, LUNA_MSG_PRIORITISE, &message);
    assert_int_equal(luna_id_compare(&order.id, &id), 0);
    assert_int_equal(order.priority, 0);
    assert_false(order.next);
    finish(&c, &message, &order, (luna_msg_answer){.changed = 1});
    assert_int_equal(c.rc, LUNA_RC_OK);
    begin(&c, run_it_next);
    order = take_order(&c, LUNA_MSG_PRIORITISE, &message);
    assert_int_equal(luna_id_compare(&order.id, &id), 0);
    assert_true(order.next);
    finish(&c, &message, &order,
           (luna_msg_answer){.error = luna_text_of("exists"),
                             .detail = luna_text_of("the job runs already")});
    assert_int_equal(c.rc, LUNA_RC_EXISTS);
    assert_string_equal(c.error, "the job runs already");
    assert_int_equal(luna_prioritise(c.client, some_id, 10, 0), LUNA_RC_USAGE);
    assert_int_equal(luna_prioritise(c.client, "12", 1, 0), LUNA_RC_USAGE);
    assert_int_equal(luna_run_next(NULL, some_id, 0), LUNA_RC_USAGE);
    close_call(&c);
}

static char submitted_id[LUNA_JOB_ID_BYTES];

static int prioritise_submitted(call *c)
{
    return luna_prioritise(c->client, submitted_id, 9, TAKE_MS);
}

//  The order is sent after the receipt, since it could overtake the job.
static void a_job_under_way_gets_its_place_after_the_receipt(void **state)
{
    (void)state;
    static const uint8_t latent[640];
    call c;
    taken job_message, message;
    open_call(&c);
    const luna_submission submission = submission_of(latent, sizeof latent);
    assert_ok(luna_submit(c.client, &submission, submitted_id));
    const luna_msg_job job = take_job(&c.broker, &job_message);
    begin(&c, prioritise_submitted);
    int control_waits = zmq_poll(
        &(zmq_pollitem_t){.socket = c.broker.control, .events = ZMQ_POLLIN}, 1, 50);
    assert_int_equal(control_waits, 0);
    send_receipt(&c.broker, &job.id, "accepted", NULL);
    release(&job_message);
    const luna_msg_order order = take_order(&c, LUNA_MSG_PRIORITISE, &message);
    assert_int_equal(order.priority, 9);
    finish(&c, &message, &order, (luna_msg_answer){.changed = 1});
    assert_int_equal(c.rc, LUNA_RC_OK);
    close_call(&c);
}

static int pause_it(call *c)
{
    return luna_pause(c->client, TAKE_MS);
}

static int resume_all(call *c)
{
    return luna_resume(c->client, NULL, TAKE_MS, &c->changed);
}

static int drain_one(call *c)
{
    return luna_drain(c->client, "gpu1", TAKE_MS, &c->changed);
}

static int drain_all(call *c)
{
    return luna_drain(c->client, NULL, TAKE_MS, NULL);
}

static int retry_failed(call *c)
{
    return luna_retry_failed(c->client, TAKE_MS, &c->changed);
}

static void the_broker_is_steered(void **state)
{
    (void)state;
    call c;
    taken message;
    open_call(&c);
    begin(&c, pause_it);
    luna_msg_order order = take_order(&c, LUNA_MSG_PAUSE, &message);
    finish(&c, &message, &order, (luna_msg_answer){0});
    assert_int_equal(c.rc, LUNA_RC_OK);
    begin(&c, resume_all);
    order = take_order(&c, LUNA_MSG_RESUME, &message);
    assert_null(order.decoder.data);
    finish(&c, &message, &order, (luna_msg_answer){.changed = 2});
    assert_int_equal(c.changed, 2);
    begin(&c, drain_one);
    order = take_order(&c, LUNA_MSG_DRAIN, &message);
    assert_true(luna_text_is(order.decoder, "gpu1"));
    finish(&c, &message, &order, (luna_msg_answer){.changed = 1});
    assert_int_equal(c.changed, 1);
    begin(&c, drain_all);
    order = take_order(&c, LUNA_MSG_DRAIN, &message);
    assert_null(order.decoder.data);
    finish(&c, &message, &order, (luna_msg_answer){.changed = 2});
    assert_int_equal(c.rc, LUNA_RC_OK);
    begin(&c, retry_failed);
    order = take_order(&c, LUNA_MSG_RETRY, &message);
    assert_true(order.failed);
    finish(&c, &message, &order, (luna_msg_answer){.changed = 7});
    assert_int_equal(c.changed, 7);
    close_call(&c);
}

//  `changed` stays as it was, and the broker's sentence is the error's.
static void an_unknown_decoder_is_told(void **state)
{
    (void)state;
    call c;
    taken message;
    open_call(&c);
    c.changed = 99;
    begin(&c, drain_one);
    const luna_msg_order order = take_order(&c, LUNA_MSG_DRAIN, &message);
    finish(&c, &message, &order,
           (luna_msg_answer){.error = luna_text_of("not_found"),
                             .detail = luna_text_of("there is no decoder gpu1"),
                             .changed = 3});
    assert_int_equal(c.rc, LUNA_RC_NOT_FOUND);
    assert_string_equal(c.error, "there is no decoder gpu1");
    assert_int_equal(c.changed, 99);
    assert_int_equal(luna_drain(NULL, NULL, 0, NULL), LUNA_RC_USAGE);
    assert_int_equal(luna_pause(c.client, 0), LUNA_RC_TIMEOUT);
    close_call(&c);
}

static int ask_metrics(call *c)
{
    return luna_query_metrics(c->client, TAKE_MS, &c->answer);
}

static int ask_status(call *c)
{
    return luna_query_status(c->client, TAKE_MS, &c->answer);
}

static luna_msg_query take_query(call *c, const char *what, taken *message)
{
    luna_msg_query query;
    take_control(&c->broker, LUNA_MSG_QUERY, message);
    assert_int_equal(luna_packet_read(message->packet, &query), LUNA_OK);
    assert_true(luna_text_is(query.what, what));
    return query;
}

static void answer_query(call *c, const char *what, luna_msg_answer answer)
{
    taken message;
    answer.re = take_query(c, what, &message).re;
    release(&message);
    send_control(&c->broker, LUNA_MSG_ANSWER, &answer);
    pthread_join(c->thread, NULL);
    assert_int_equal(c->rc, LUNA_RC_OK);
}

static void metrics_are_a_text(void **state)
{
    (void)state;
    call c;
    open_call(&c);
    begin(&c, ask_metrics);
    answer_query(&c, "metrics",
                 (luna_msg_answer){.text = luna_text_of("luna_jobs 3\nluna_x 1\n")});
    assert_string_equal(c.answer->text, "luna_jobs 3\nluna_x 1\n");
    assert_null(c.answer->status);
    luna_answer_free(&c.answer);
    begin(&c, ask_metrics);
    answer_query(&c, "metrics", (luna_msg_answer){0});
    assert_string_equal(c.answer->text, "");
    luna_answer_free(&c.answer);
    close_call(&c);
}

static void status_has_every_field(void **state)
{
    (void)state;
    call c;
    open_call(&c);
    const luna_msg_status status = {.accepting = luna_text_of("the disk is full"),
                                    .paused = true,
                                    .images = 1ULL << 40,
                                    .free_bytes = 2,
                                    .uptime_ms = 3,
                                    .alarm = luna_text_of("look at the disk")};
    begin(&c, ask_status);
    answer_query(&c, "status", (luna_msg_answer){.status = &status});
    assert_int_equal(c.answer->status->paused, 1);
    assert_true(c.answer->status->images == 1ULL << 40);
    assert_int_equal(c.answer->status->free_bytes, 2);
    assert_int_equal(c.answer->status->uptime_ms, 3);
    assert_string_equal(c.answer->status->alarm, "look at the disk");
    assert_string_equal(c.answer->status->accepting, "the disk is full");
    luna_answer_free(&c.answer);
    close_call(&c);
}

static int ask_job(call *c)
{
    return luna_query_job(c->client, some_id, TAKE_MS, &c->answer);
}

static int ask_decoders(call *c)
{
    return luna_query_decoders(c->client, TAKE_MS, &c->answer);
}

static void jobs_and_decoders_have_every_field(void **state)
{
    (void)state;
    call c;
    luna_msg_job_info job = {
        .state = luna_text_of("pending"), .deadline_ms = 1700000000000, .next = true};
    const luna_msg_decoder_info decoder = {.name = luna_text_of("gpu1"),
                                           .state = luna_text_of("draining"),
                                           .vae = luna_text_of("flux"),
                                           .formats = luna_text_of("png jxl")};
    assert_int_equal(luna_id_parse(some_id, &job.id), LUNA_OK);
    open_call(&c);
    begin(&c, ask_job);
    answer_query(&c, "job", (luna_msg_answer){.jobs = {&job, 1}});
    assert_true(c.answer->jobs[0].deadline_ms == 1700000000000);
    assert_int_equal(c.answer->jobs[0].next, 1);
    luna_answer_free(&c.answer);
    begin(&c, ask_decoders);
    answer_query(&c, "decoders", (luna_msg_answer){.decoders = {&decoder, 1}});
    assert_string_equal(c.answer->decoders[0].vae, "flux");
    assert_string_equal(c.answer->decoders[0].formats, "png jxl");
    luna_answer_free(&c.answer);
    close_call(&c);
}

static void a_deadline_travels_with_the_job(void **state)
{
    (void)state;
    static const uint8_t latent[640];
    call c;
    taken message;
    char id[LUNA_JOB_ID_BYTES];
    open_call(&c);
    luna_submission submission = submission_of(latent, sizeof latent);
    assert_int_equal(submission.deadline_ms, 0);
    submission.deadline_ms = 90000;
    assert_ok(luna_submit(c.client, &submission, id));
    const luna_msg_job job = take_job(&c.broker, &message);
    assert_int_equal(job.deadline_ms, 90000);
    send_receipt(&c.broker, &job.id, "accepted", NULL);
    release(&message);
    assert_ok(luna_wait_receipt(c.client, id, TAKE_MS, NULL));
    close_call(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_gets_another_place),
        cmocka_unit_test(a_job_under_way_gets_its_place_after_the_receipt),
        cmocka_unit_test(the_broker_is_steered),
        cmocka_unit_test(an_unknown_decoder_is_told),
        cmocka_unit_test(metrics_are_a_text),
        cmocka_unit_test(status_has_every_field),
        cmocka_unit_test(jobs_and_decoders_have_every_field),
        cmocka_unit_test(a_deadline_travels_with_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
