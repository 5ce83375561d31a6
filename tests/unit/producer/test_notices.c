//  What the caller is told: once when a trouble begins, once when it ends.

#include "producer/notices.h"

#include <stdatomic.h>

static uint8_t latent[640];

static void send_busy(stand_in *broker, const luna_id *id, const char *error,
                      const char *detail)
{
    const luna_msg_receipt receipt = {.id = *id,
                                      .status = luna_text_of("busy"),
                                      .error = luna_text_of(error),
                                      .detail = luna_text_of(detail),
                                      .retry_ms = 50};
    send_control(broker, LUNA_MSG_RECEIPT, &receipt);
}

static luna_id take_offer_id(stand_in *broker)
{
    taken message;
    luna_msg_offer offer;
    take_control(broker, LUNA_MSG_OFFER, &message);
    assert_int_equal(luna_packet_read(message.packet, &offer), LUNA_OK);
    const luna_id id = offer.id;
    release(&message);
    return id;
}

static void a_busy_broker_is_told_once(void **state)
{
    (void)state;
    stand_in broker;
    notices all;
    char id[LUNA_JOB_ID_BYTES];
    notices_init(&all);
    stand_in_name(&broker);
    broker.offer_first = true;
    stand_in_open(&broker);
    luna_client *client = client_of(&broker, NULL);
    assert_ok(luna_notices(client, note, &all));
    welcome(&broker);
    const luna_submission job = submission_of(latent, sizeof latent);
    assert_ok(luna_submit(client, &job, id));
    for (int i = 0; i < 3; i++) {
        const luna_id offered = take_offer_id(&broker);
        send_busy(&broker, &offered, "busy", "the queue is full");
    }
    const told busy = expect_notice(&all, "busy");
    assert_string_equal(busy.reason, "the queue is full");
    assert_int_equal(busy.retry_ms, 50);
    assert_int_equal(busy.jobs, 1);
    //  Another reason is another notice.
    const luna_id offered = take_offer_id(&broker);
    send_busy(&broker, &offered, "no_space", "the disk is full");
    assert_string_equal(expect_notice(&all, "busy").reason, "the disk is full");
    answer_offer(&broker, "send", NULL);
    expect_notice(&all, "clear");
    answer_job(&broker, "accepted", NULL);
    assert_ok(luna_wait_receipt(client, id, TAKE_MS, NULL));
    assert_no_more_notices(&all);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

//  Answers hellos until somebody is told, see welcome_up.
static void welcome_told(stand_in *broker, notices *all)
{
    const size_t before = notices_count(all);
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (notices_count(all) == before && luna_now_ms() < limit_ms) welcome_any(broker);
}

static void a_broker_that_goes_is_told_once(void **state)
{
    (void)state;
    stand_in broker;
    notices all;
    notices_init(&all);
    stand_in_name(&broker);
    luna_client *client = client_of(&broker, NULL);
    assert_ok(luna_notices(client, note, &all));
    const told away = expect_notice(&all, "away");
    assert_non_null(strstr(away.reason, broker.control_at));
    broker.ping_ms = 20;
    stand_in_open(&broker);
    welcome_told(&broker, &all);
    expect_notice(&all, "back");
    //  It answers no ping from here on.
    expect_notice(&all, "away");
    broker.ping_ms = 60000;
    welcome_told(&broker, &all);
    expect_notice(&all, "back");
    assert_no_more_notices(&all);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

//  Who comes late hears what lasts, and a callback that was removed nothing.
static void a_new_callback_is_told_what_lasts(void **state)
{
    (void)state;
    stand_in broker;
    notices first, second;
    notices_init(&first);
    notices_init(&second);
    stand_in_name(&broker);
    luna_client *client = client_of(&broker, NULL);
    assert_ok(luna_notices(client, note, &first));
    expect_notice(&first, "away");
    assert_ok(luna_notices(client, note, &second));
    expect_notice(&second, "away");
    assert_ok(luna_notices(client, NULL, NULL));
    stand_in_open(&broker);
    welcome_up(&broker, client);
    assert_no_more_notices(&first);
    assert_no_more_notices(&second);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    stand_in_close(&broker);
}

//  The callback may ask the client, and remove itself.
typedef struct leaver {
    luna_client *client;
    atomic_int calls;
} leaver;

static void ask_and_leave(void *context, const luna_notice *notice)
{
    leaver *it = context;
    size_t jobs;
    luna_unsettled(it->client, &jobs, NULL);
    assert_int_equal(notice->jobs, jobs);
    assert_false(luna_available(it->client));
    assert_ok(luna_notices(it->client, NULL, NULL));
    atomic_fetch_add(&it->calls, 1);
}

static void a_callback_may_remove_itself(void **state)
{
    (void)state;
    stand_in broker;
    leaver it = {0};
    stand_in_name(&broker);
    it.client = client_of(&broker, NULL);
    luna_client *client = it.client;
    assert_ok(luna_notices(client, ask_and_leave, &it));
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (atomic_load(&it.calls) == 0 && luna_now_ms() < limit_ms) usleep(1000);
    stand_in_open(&broker);
    welcome_up(&broker, client);
    assert_int_equal(luna_client_destroy(&client, 0), 0);
    assert_int_equal(atomic_load(&it.calls), 1);
    stand_in_close(&broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_busy_broker_is_told_once),
        cmocka_unit_test(a_broker_that_goes_is_told_once),
        cmocka_unit_test(a_new_callback_is_told_what_lasts),
        cmocka_unit_test(a_callback_may_remove_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
