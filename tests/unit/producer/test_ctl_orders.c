//  lunactl's orders: what goes over the wire, what is said, and the exit codes.

#include "producer/ctl.h"

static const char other_id[] = "0192f1c2-a5b0-7c3d-8e4f-ffffffffffff";

static luna_msg_answer refused(const char *error, const char *detail)
{
    return (luna_msg_answer){.error = luna_text_of(error),
                             .detail = luna_text_of(detail)};
}

static void assert_is(const luna_id *id, const char *text)
{
    char found[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, found);
    assert_string_equal(found, text);
}

static void cancel_and_retry_take_several_jobs(void **state)
{
    (void)state;
    static const struct {
        const char *command;
        luna_msg_type type;
    } commands[] = {{"cancel", LUNA_MSG_CANCEL}, {"retry", LUNA_MSG_RETRY}};
    char expected[100];
    snprintf(expected, sizeof expected, "%s\n%s\n", some_id, other_id);
    for (size_t i = 0; i < 2; i++) {
        stand_in broker;
        running child = start(&broker, LINE(commands[i].command, some_id, other_id));
        luna_msg_order order =
            answer_order(&broker, commands[i].type, (luna_msg_answer){0});
        assert_is(&order.id, some_id);
        assert_false(order.failed);
        order = answer_order(&broker, commands[i].type, (luna_msg_answer){0});
        assert_is(&order.id, other_id);
        end(&child);
        stand_in_close(&broker);
        assert_int_equal(child.code, 0);
        assert_string_equal(child.out_text, expected);
        assert_string_equal(child.err_text, "");
    }
}

//  The rest goes on, and the exit code is the first failure's.
static void one_job_that_fails_is_told(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("cancel", some_id, "nonsense", other_id));
    answer_order(&broker, LUNA_MSG_CANCEL, refused("exists", "it has ended"));
    answer_order(&broker, LUNA_MSG_CANCEL, (luna_msg_answer){0});
    end(&child);
    stand_in_close(&broker);
    assert_int_equal(child.code, 73);
    assert_memory_equal(child.out_text, other_id, 36);
    assert_string_equal(
        child.err_text,
        "lunactl: 0192f1c2-a5b0-7c3d-8e4f-5061728394a5: it has ended\n"
        "lunactl: 'nonsense' is not a job id: a UUID, or at least 8 characters of its "
        "beginning or end\n");
}

static void one_job_that_fails_is_told_as_json(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("--json", "cancel", other_id, some_id));
    answer_order(&broker, LUNA_MSG_CANCEL, (luna_msg_answer){0});
    answer_order(&broker, LUNA_MSG_CANCEL, refused("not_found", "no such job"));
    end(&child);
    stand_in_close(&broker);
    assert_json_error(&child, 66, "not_found", "no such job");
    assert_non_null(strstr(child.err_text, some_id));
    json_t *done = json_loads(child.out_text, 0, NULL);
    const json_t *jobs = json_object_get(done, "jobs");
    assert_int_equal(json_array_size(jobs), 1);
    assert_string_equal(json_string_value(json_array_get(jobs, 0)), other_id);
    json_decref(done);
}

static void retry_failed_is_one_order(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("retry", "--failed"));
    luna_msg_order order =
        answer_order(&broker, LUNA_MSG_RETRY, (luna_msg_answer){.changed = 12345});
    assert_true(order.failed);
    assert_said(&child, "12345 jobs put back in the queue\n");
    stand_in_close(&broker);
    child = start(&broker, LINE("retry", "--failed", "--json"));
    answer_order(&broker, LUNA_MSG_RETRY, (luna_msg_answer){.changed = 1});
    json_t *done = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(number_in(done, "changed"), 1);
    json_decref(done);
}

static void priority_and_next_reorder(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("priority", some_id, "9"));
    luna_msg_order order =
        answer_order(&broker, LUNA_MSG_PRIORITISE, (luna_msg_answer){.changed = 1});
    assert_is(&order.id, some_id);
    assert_int_equal(order.priority, 9);
    assert_false(order.next);
    assert_said(&child, some_id);
    stand_in_close(&broker);
    child = start(&broker, LINE("next", some_id, "--json"));
    order = answer_order(&broker, LUNA_MSG_PRIORITISE, (luna_msg_answer){.changed = 1});
    assert_is(&order.id, some_id);
    assert_true(order.next);
    json_t *done = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(json_array_size(json_object_get(done, "jobs")), 1);
    json_decref(done);
    child = start(&broker, LINE("next", some_id));
    answer_order(&broker, LUNA_MSG_PRIORITISE, refused("exists", "the job runs already"));
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 73, "the job runs already");
}

static void pause_and_resume(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("pause"));
    answer_order(&broker, LUNA_MSG_PAUSE, (luna_msg_answer){0});
    assert_said(&child, "paused");
    stand_in_close(&broker);
    child = start(&broker, LINE("--json", "pause"));
    answer_order(&broker, LUNA_MSG_PAUSE, (luna_msg_answer){0});
    json_t *done = json_of(&child);
    stand_in_close(&broker);
    assert_true(json_is_true(json_object_get(done, "paused")));
    json_decref(done);
    child = start(&broker, LINE("resume"));
    answer_order(&broker, LUNA_MSG_RESUME, (luna_msg_answer){.changed = 2});
    assert_said(&child, "2 decoders");
    stand_in_close(&broker);
    child = start(&broker, LINE("resume", "gpu1", "--json"));
    answer_order(&broker, LUNA_MSG_RESUME, (luna_msg_answer){.changed = 1});
    done = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(number_in(done, "changed"), 1);
    json_decref(done);
    child = start(&broker, LINE("resume", "gpu9"));
    answer_order(&broker, LUNA_MSG_RESUME, refused("not_found", "no decoder gpu9"));
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 66, "no decoder gpu9");
}

static luna_msg_decoder_info decoder_in(const char *name, const char *state,
                                        uint64_t held)
{
    return (luna_msg_decoder_info){
        .name = luna_text_of(name), .state = luna_text_of(state), .running = held};
}

static void answer_look(stand_in *broker, const luna_msg_decoder_info *decoders,
                        size_t count, uint64_t uptime_ms)
{
    const luna_msg_status status = {.uptime_ms = uptime_ms};
    answer_query(broker, "decoders", (luna_msg_answer){.decoders = {decoders, count}});
    answer_query(broker, "status", (luna_msg_answer){.status = &status});
}

static void drain_names_one_or_all(void **state)
{
    (void)state;
    stand_in broker;
    taken message;
    luna_msg_order order;
    running child = start(&broker, LINE("drain", "gpu1"));
    take_control(&broker, LUNA_MSG_DRAIN, &message);
    assert_int_equal(luna_packet_read(message.packet, &order), LUNA_OK);
    assert_true(luna_text_is(order.decoder, "gpu1"));
    send_control(&broker, LUNA_MSG_ANSWER,
                 &(luna_msg_answer){.re = order.re, .changed = 1});
    release(&message);
    assert_said(&child, "1 decoder draining\n");
    stand_in_close(&broker);
    child = start(&broker, LINE("drain", "--json"));
    answer_order(&broker, LUNA_MSG_DRAIN, (luna_msg_answer){.changed = 3});
    json_t *done = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(number_in(done, "changed"), 3);
    json_decref(done);
}

//  Who came after the order is not waited for, who is lost holds nothing.
static void drain_waits_until_nothing_is_held(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("drain", "--wait"));
    answer_order(&broker, LUNA_MSG_DRAIN, (luna_msg_answer){.changed = 2});
    luna_msg_decoder_info decoders[3] = {decoder_in("a", "draining", 2),
                                         decoder_in("b", "draining", 1),
                                         decoder_in("new", "busy", 1)};
    answer_look(&broker, decoders, 3, 100);
    decoders[0] = decoder_in("a", "lost", 2);
    answer_look(&broker, decoders, 3, 200);
    decoders[1] = decoder_in("b", "draining", 0);
    answer_look(&broker, decoders, 3, 300);
    assert_said(&child, "2 decoders drained\n");
    stand_in_close(&broker);
}

static void drain_of_one_waits_for_it_only(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("drain", "--wait", "b", "--json"));
    answer_order(&broker, LUNA_MSG_DRAIN, (luna_msg_answer){.changed = 1});
    const luna_msg_decoder_info decoders[2] = {decoder_in("a", "busy", 2),
                                               decoder_in("b", "draining", 1)};
    answer_look(&broker, decoders, 2, 1);
    answer_look(&broker, decoders, 1, 2);
    json_t *done = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(number_in(done, "changed"), 1);
    json_decref(done);
}

//  Neither would ever be empty, or be known to be.
static void drain_ends_when_it_cannot_be_kept(void **state)
{
    (void)state;
    stand_in broker;
    luna_msg_decoder_info decoder = decoder_in("a", "draining", 1);
    running child = start(&broker, LINE("drain", "--wait"));
    answer_order(&broker, LUNA_MSG_DRAIN, (luna_msg_answer){.changed = 1});
    answer_look(&broker, &decoder, 1, 1);
    decoder = decoder_in("a", "busy", 1);
    answer_look(&broker, &decoder, 1, 2);
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 75, "resumed");
    child = start(&broker, LINE("drain", "--wait"));
    answer_order(&broker, LUNA_MSG_DRAIN, (luna_msg_answer){.changed = 1});
    decoder = decoder_in("a", "draining", 1);
    answer_look(&broker, &decoder, 1, 1000);
    answer_look(&broker, NULL, 0, 10);
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 75, "anew");
}

//  ---- shortened ids ---------------------------------------------------------------

static void answer_list(stand_in *broker)
{
    luna_msg_job_info jobs[2] = {job_in("failed", NULL, 0), job_in("pending", NULL, 0)};
    assert_int_equal(luna_id_parse(other_id, &jobs[1].id), LUNA_OK);
    answer_query(broker, "jobs", (luna_msg_answer){.jobs = {jobs, 2}});
}

static void ids_may_be_shortened(void **state)
{
    (void)state;
    stand_in broker;
    //  The list is asked for once.
    running child =
        start(&broker, LINE("cancel", "FFFFFFFF", "0192f1c2-a5b0-7c3d-8e4f-5", other_id));
    answer_list(&broker);
    luna_msg_order order = answer_order(&broker, LUNA_MSG_CANCEL, (luna_msg_answer){0});
    assert_is(&order.id, other_id);
    order = answer_order(&broker, LUNA_MSG_CANCEL, (luna_msg_answer){0});
    assert_is(&order.id, some_id);
    order = answer_order(&broker, LUNA_MSG_CANCEL, (luna_msg_answer){0});
    assert_is(&order.id, other_id);
    assert_said(&child, some_id);
    stand_in_close(&broker);
}

static void a_short_id_that_fits_several_or_none(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("priority", "0192f1c2", "3"));
    answer_list(&broker);
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 64, some_id);
    assert_non_null(strstr(child.err_text, other_id));
    child = start(&broker, LINE("show", "00000000"));
    answer_list(&broker);
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 66, "00000000");
    child = start(&broker, LINE("wait", "0192f1c"));
    end(&child);
    stand_in_close(&broker);
    assert_failed(&child, 64, "at least 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancel_and_retry_take_several_jobs),
        cmocka_unit_test(one_job_that_fails_is_told),
        cmocka_unit_test(one_job_that_fails_is_told_as_json),
        cmocka_unit_test(retry_failed_is_one_order),
        cmocka_unit_test(priority_and_next_reorder),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(drain_names_one_or_all),
        cmocka_unit_test(drain_waits_until_nothing_is_held),
        cmocka_unit_test(drain_of_one_waits_for_it_only),
        cmocka_unit_test(drain_ends_when_it_cannot_be_kept),
        cmocka_unit_test(ids_may_be_shortened),
        cmocka_unit_test(a_short_id_that_fits_several_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
