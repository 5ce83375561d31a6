//  Back-pressure: a broker without room is asked before a job's bytes move.

#include "producer/stand_in.h"

static uint8_t latent[65536];

typedef struct scene {
    stand_in broker;
    luna_client *client;
    luna_submission job;
} scene;

//  A client that has been welcomed. The broker wants offers, or not.
static scene begin(bool offer_first, const luna_options *options)
{
    scene s = {.job = submission_of(latent, sizeof latent)};
    stand_in_name(&s.broker);
    s.broker.offer_first = offer_first;
    stand_in_open(&s.broker);
    s.client = client_of(&s.broker, options);
    welcome_up(&s.broker, s.client);
    return s;
}

static void end(scene *s)
{
    assert_int_equal(luna_client_destroy(&s->client, 0), 0);
    stand_in_close(&s->broker);
}

static void submit(scene *s, int count, char ids[][LUNA_JOB_ID_BYTES])
{
    for (int i = 0; i < count; i++) assert_ok(luna_submit(s->client, &s->job, ids[i]));
}

static void expect_offer(scene *s, const char *id, const char *status, const char *error)
{
    const luna_id got = answer_offer(&s->broker, status, error);
    assert_same_id(id, &got);
}

static void expect_job(scene *s, const char *id, const char *status, const char *error)
{
    const luna_id got = answer_job(&s->broker, status, error);
    assert_same_id(id, &got);
}

static void an_offer_comes_before_the_bytes(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    taken message;
    luna_msg_offer offer;
    char ids[2][LUNA_JOB_ID_BYTES];
    s.job.priority = 7;
    submit(&s, 2, ids);
    take_control(&s.broker, LUNA_MSG_OFFER, &message);
    assert_int_equal(luna_packet_read(message.packet, &offer), LUNA_OK);
    assert_same_id(ids[0], &offer.id);
    assert_memory_equal(&offer.client, &s.broker.client, sizeof offer.client);
    assert_int_equal(offer.priority, 7);
    assert_nothing_on(s.broker.intake);
    assert_nothing_on(s.broker.control);  //  one offer at a time
    const luna_id id = offer.id;
    const uint64_t bytes = offer.bytes;
    release(&message);
    send_receipt(&s.broker, &id, "send", NULL);
    const luna_msg_job job = take_job(&s.broker, &message);
    assert_same_id(ids[0], &job.id);
    assert_int_equal(zmq_msg_size(&message.frame), bytes);
    release(&message);
    //  The first one has no receipt yet, and does not hold up the next one's offer.
    expect_offer(&s, ids[1], "send", NULL);
    expect_job(&s, ids[1], "accepted", NULL);
    send_receipt(&s.broker, &id, "accepted", NULL);
    for (int i = 0; i < 2; i++)
        assert_ok(luna_wait_receipt(s.client, ids[i], TAKE_MS, NULL));
    end(&s);
}

static void credit_that_is_back_ends_the_offers(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    char ids[2][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    expect_offer(&s, ids[0], "send", NULL);
    s.broker.offer_first = false;
    expect_job(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    submit(&s, 1, &ids[1]);
    expect_job(&s, ids[1], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    assert_nothing_on(s.broker.control);
    end(&s);
}

static void a_receipt_may_begin_the_offers(void **state)
{
    (void)state;
    scene s = begin(false, NULL);
    char ids[2][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    s.broker.offer_first = true;
    expect_job(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    submit(&s, 1, &ids[1]);
    expect_offer(&s, ids[1], "send", NULL);
    expect_job(&s, ids[1], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    end(&s);
}

//  What the broker knows, or does not want, is settled without its bytes.
static void an_offer_may_be_answered_for_good(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    char ids[2][LUNA_JOB_ID_BYTES];
    submit(&s, 2, ids);
    expect_offer(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    expect_offer(&s, ids[1], "refused", "too_large");
    assert_int_equal(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL),
                     LUNA_RC_TOO_LARGE);
    assert_nothing_on(s.broker.intake);
    end(&s);
}

//  Asked to come back, the client does, with the same job first.
static void a_busy_answer_is_offered_again(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    char ids[2][LUNA_JOB_ID_BYTES];
    submit(&s, 2, ids);
    for (int i = 0; i < 3; i++) expect_offer(&s, ids[0], "busy", "busy");
    assert_nothing_on(s.broker.intake);
    for (int i = 0; i < 2; i++) {
        expect_offer(&s, ids[i], "send", NULL);
        expect_job(&s, ids[i], "accepted", NULL);
        assert_ok(luna_wait_receipt(s.client, ids[i], TAKE_MS, NULL));
    }
    end(&s);
}

static void send_busy(scene *s, const luna_id *id, uint64_t retry_ms)
{
    const luna_msg_receipt receipt = {.id = *id,
                                      .status = luna_text_of("busy"),
                                      .error = luna_text_of("busy"),
                                      .detail = luna_text_of("the queue is full"),
                                      .retry_ms = retry_ms};
    send_control(&s->broker, LUNA_MSG_RECEIPT, &receipt);
}

//  The broker said to wait for an hour: only its grant can bring the next offer.
static void a_grant_ends_the_wait(void **state)
{
    (void)state;
    scene s = begin(false, NULL);
    taken message;
    char ids[1][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    const luna_msg_job job = take_job(&s.broker, &message);
    const luna_id id = job.id;
    release(&message);
    send_busy(&s, &id, 3600000);
    assert_nothing_on(s.broker.control);
    send_grant(&s.broker);
    expect_offer(&s, ids[0], "send", NULL);
    expect_job(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    end(&s);
}

static void an_offer_without_answer_is_repeated(void **state)
{
    (void)state;
    luna_options options;
    luna_options_init(&options);
    options.receipt_timeout_ms = 30;
    scene s = begin(true, &options);
    taken message;
    char ids[1][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    for (int i = 0; i < 3; i++) {
        take_control(&s.broker, LUNA_MSG_OFFER, &message);
        release(&message);
    }
    expect_offer(&s, ids[0], "send", NULL);
    expect_job(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    end(&s);
}

//  "send" for a job that is settled or was never offered changes nothing.
static void a_stray_send_is_passed_over(void **state)
{
    (void)state;
    scene s = begin(false, NULL);
    char ids[2][LUNA_JOB_ID_BYTES];
    const luna_id unknown = luna_id_new();
    submit(&s, 1, ids);
    const luna_id first = answer_job(&s.broker, "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    send_receipt(&s.broker, &first, "send", NULL);
    send_receipt(&s.broker, &unknown, "send", NULL);
    submit(&s, 1, &ids[1]);
    expect_job(&s, ids[1], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    assert_nothing_on(s.broker.intake);
    end(&s);
}

//  The grant of a former broker is worth nothing to the next one.
static void a_new_broker_is_asked_anew(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    taken message;
    char ids[1][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    take_control(&s.broker, LUNA_MSG_OFFER, &message);
    release(&message);
    s.broker.epoch = luna_id_new();
    const luna_msg_pong pong = {.epoch = s.broker.epoch, .order = luna_text_of("run")};
    send_control(&s.broker, LUNA_MSG_PONG, &pong);
    welcome(&s.broker);
    expect_offer(&s, ids[0], "send", NULL);
    expect_job(&s, ids[0], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    end(&s);
}

static void an_offered_job_can_be_cancelled(void **state)
{
    (void)state;
    scene s = begin(true, NULL);
    taken message;
    char ids[2][LUNA_JOB_ID_BYTES];
    submit(&s, 1, ids);
    take_control(&s.broker, LUNA_MSG_OFFER, &message);
    luna_msg_offer offer;
    assert_int_equal(luna_packet_read(message.packet, &offer), LUNA_OK);
    const luna_id first = offer.id;
    release(&message);
    assert_ok(luna_cancel(s.client, ids[0], TAKE_MS));
    submit(&s, 1, &ids[1]);
    send_receipt(&s.broker, &first, "send", NULL);
    expect_offer(&s, ids[1], "send", NULL);
    expect_job(&s, ids[1], "accepted", NULL);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offer_comes_before_the_bytes),
        cmocka_unit_test(credit_that_is_back_ends_the_offers),
        cmocka_unit_test(a_receipt_may_begin_the_offers),
        cmocka_unit_test(an_offer_may_be_answered_for_good),
        cmocka_unit_test(a_busy_answer_is_offered_again),
        cmocka_unit_test(a_grant_ends_the_wait),
        cmocka_unit_test(an_offer_without_answer_is_repeated),
        cmocka_unit_test(a_stray_send_is_passed_over),
        cmocka_unit_test(a_new_broker_is_asked_anew),
        cmocka_unit_test(an_offered_job_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
