//  What lunactl shows: status, jobs, show, decoders, metrics and top, for people and as
//  JSON.

#include "producer/ctl.h"

static const luna_msg_status quiet = {.completed = 40,
                                      .decoders = 2,
                                      .accepting = {"yes", 3},
                                      .version = {"1.2.3", 5},
                                      .images = 123,
                                      .free_bytes = 5ULL << 30,
                                      .uptime_ms = 3 * 3600000 + 12 * 60000};

static luna_msg_status troubled(void)
{
    luna_msg_status status = quiet;
    status.pending = 3;
    status.queued_bytes = 12U << 20;
    status.oldest_ms = 61000;
    status.failed = 4;
    status.paused = true;
    status.accepting = luna_text_of("the disk is full");
    status.alarm = luna_text_of("an fsync failed");
    return status;
}

static void assert_shows(const char *text, const char *words)
{
    if (!strstr(text, words)) fail_msg("'%s' does not show '%s'", text, words);
}

static void status_shows_what_needs_a_person_first(void **state)
{
    (void)state;
    stand_in broker;
    const luna_msg_status status = troubled();
    running child = start(&broker, LINE("status"));
    answer_query(&broker, "status", (luna_msg_answer){.status = &status});
    assert_said(&child, "accepting     no: the disk is full\n");
    stand_in_close(&broker);
    assert_memory_equal(child.out_text, "ALARM         an fsync failed\nPAUSED  ", 38);
    assert_shows(child.out_text, "pending       3, 12.0 MiB, oldest 1 min 1 s\n");
    assert_shows(child.out_text, "free space    5.0 GiB\n");
    assert_shows(child.out_text, "up            3 h 12 min\n");
    assert_shows(child.out_text, "images        123 saved since the start\n");
    assert_null(strchr(child.out_text, '\033'));

    child = start(&broker, LINE("status"));
    answer_query(&broker, "status", (luna_msg_answer){.status = &quiet});
    assert_said(&child, "accepting     yes\n");
    stand_in_close(&broker);
    assert_null(strstr(child.out_text, "ALARM"));
    assert_null(strstr(child.out_text, "PAUSED"));
    assert_shows(child.out_text, "pending       0\n");
}

static void status_as_json(void **state)
{
    (void)state;
    stand_in broker;
    const luna_msg_status status = troubled();
    running child = start(&broker, LINE("status", "--json"));
    answer_query(&broker, "status", (luna_msg_answer){.status = &status});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    static const char *const numbers[] = {
        "pending",   "in_progress",  "completed", "failed",     "cancelled",
        "oldest_ms", "queued_bytes", "decoders",  "free_bytes", "uptime_ms"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        number_in(shown, numbers[i]);
    assert_int_equal(number_in(shown, "images"), 123);
    assert_string_equal(text_in(shown, "alarm"), "an fsync failed");
    assert_string_equal(text_in(shown, "accepting"), "the disk is full");
    assert_string_equal(text_in(shown, "version"), "1.2.3");
    assert_true(json_is_true(json_object_get(shown, "paused")));
    json_decref(shown);
}

static void jobs_are_a_table(void **state)
{
    (void)state;
    stand_in broker;
    luna_msg_job_info jobs[2] = {job_in("failed", NULL, 0), job_in("pending", NULL, 0)};
    jobs[0].error = luna_text_of("no_space");
    jobs[0].vae = luna_text_of("/models/vae/flux.safetensors");
    jobs[1].next = true;
    jobs[1].decoder = luna_text_of("gpu\x1b[2J");
    running child = start(&broker, LINE("jobs", "--state", "failed", "--limit", "7"));
    taken message;
    luna_msg_query query;
    take_control(&broker, LUNA_MSG_QUERY, &message);
    assert_int_equal(luna_packet_read(message.packet, &query), LUNA_OK);
    assert_true(luna_text_is(query.state, "failed"));
    assert_int_equal(query.limit, 7);
    send_control(&broker, LUNA_MSG_ANSWER,
                 &(luna_msg_answer){.re = query.re, .jobs = {jobs, 2}});
    release(&message);
    assert_said(
        &child,
        "JOB                                   STATE    IMAGES  AGE   PRI  TRIES  "
        "VAE               DECODER OR ERROR\n"
        "0192f1c2-a5b0-7c3d-8e4f-5061728394a5  failed      0/2          0      0  "
        "flux.safetensors  no_space\n"
        "0192f1c2-a5b0-7c3d-8e4f-5061728394a5  pending     0/2       next      0  "
        "                  gpu?[2J\n");
    stand_in_close(&broker);
    child = start(&broker, LINE("jobs", "--json"));
    answer_query(&broker, "jobs", (luna_msg_answer){.jobs = {jobs, 2}});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(json_array_size(shown), 2);
    assert_true(json_is_true(json_object_get(json_array_get(shown, 1), "next")));
    json_decref(shown);
    child = start(&broker, LINE("jobs", "--json"));
    answer_query(&broker, "jobs", (luna_msg_answer){0});
    shown = json_of(&child);
    stand_in_close(&broker);
    assert_true(json_is_array(shown) && json_array_size(shown) == 0);
    json_decref(shown);
}

static luna_msg_job_info whole_job(const luna_msg_image *files, size_t count)
{
    luna_msg_job_info job = job_in("pending", files, count);
    job.priority = 7;
    job.next = true;
    job.position = 4;
    job.deadline_ms = (uint64_t)luna_wall_ms() + 90000;
    job.attempts = 3;
    job.lost = 1;
    job.refused = 2;
    job.bytes = 3U << 20;
    job.created_ms = job.accepted_ms = 1700000000000;
    job.vae = luna_text_of("auto");
    job.vae_name = luna_text_of("flux");
    job.vae_path = luna_text_of("/m/ae.safetensors");
    job.vae_sha256 = luna_text_of("afc8e282");
    return job;
}

static void show_has_every_field(void **state)
{
    (void)state;
    const luna_msg_image file = {.path = luna_text_of("/o/\"0\".png"),
                                 .sha256 = luna_text_of("00"),
                                 .bytes = 2048,
                                 .width = 64,
                                 .height = 32,
                                 .decode_ms = 12.25};
    stand_in broker;
    luna_msg_job_info job = whole_job(&file, 1);
    running child = start(&broker, LINE("show", some_id));
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    assert_said(&child, "priority      7, goes before all others\nahead         4\n");
    stand_in_close(&broker);
    assert_shows(child.out_text, "attempts      3 (1 lost, 2 refused)\n");
    assert_shows(child.out_text, "payload       3.0 MiB\n");
    assert_shows(child.out_text,
                 "vae           auto\ndecoded with  flux\n"
                 "vae file      /m/ae.safetensors\n"
                 "vae sha256    afc8e282\n");
    assert_shows(child.out_text, "deadline      20");
    assert_shows(child.out_text, ", in 1 min ");
    assert_shows(
        child.out_text,
        "    0      0   64x32  2.0 KiB  12.2 ms  0.0 ms  0.0 ms  /o/\"0\".png\n");
    child = start(&broker, LINE("show", some_id, "--json"));
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    assert_string_equal(text_in(shown, "id"), some_id);
    assert_int_equal(number_in(shown, "images"), 2);
    assert_int_equal(number_in(shown, "deadline_ms"), job.deadline_ms);
    assert_int_equal(number_in(shown, "priority"), 7);
    assert_int_equal(number_in(shown, "lost"), 1);
    assert_int_equal(number_in(shown, "refused"), 2);
    assert_string_equal(text_in(shown, "vae"), "auto");
    assert_string_equal(text_in(shown, "vae_name"), "flux");
    assert_string_equal(text_in(shown, "vae_path"), "/m/ae.safetensors");
    assert_string_equal(text_in(shown, "vae_sha256"), "afc8e282");
    const json_t *image = json_array_get(json_object_get(shown, "files"), 0);
    assert_string_equal(text_in(image, "path"), "/o/\"0\".png");
    assert_int_equal(number_in(image, "width"), 64);
    json_decref(shown);
}

static void decoders_are_a_table(void **state)
{
    (void)state;
    stand_in broker;
    const luna_msg_vae vaes[2] = {{luna_text_of("flux")}, {luna_text_of("sdxl")}};
    const luna_msg_decoder_info decoder = {.name = luna_text_of("gpu1"),
                                           .state = luna_text_of("draining"),
                                           .device = luna_text_of("cuda:1"),
                                           .pid = 7,
                                           .running = 1,
                                           .credit_jobs = 2,
                                           .images_done = 42,
                                           .seen_ms = 61000,
                                           .vaes = {vaes, 2},
                                           .vae = luna_text_of("sdxl"),
                                           .formats = luna_text_of("png webp avif")};
    running child = start(&broker, LINE("decoders"));
    answer_query(&broker, "decoders", (luna_msg_answer){.decoders = {&decoder, 1}});
    assert_said(
        &child,
        "DECODER  STATE     DEVICE  JOBS  IMAGES  DONE  FAILED   SEEN  VAE   FORMATS"
        "        OFFERS\n"
        "gpu1     draining  cuda:1   1/2      42     0       0  1m01s  sdxl  png webp "
        "avif  flux sdxl\n");
    stand_in_close(&broker);
    child = start(&broker, LINE("decoders", "--json"));
    answer_query(&broker, "decoders", (luna_msg_answer){.decoders = {&decoder, 1}});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    const json_t *first = json_array_get(shown, 0);
    assert_int_equal(number_in(first, "pid"), 7);
    assert_string_equal(text_in(first, "vae"), "sdxl");
    assert_string_equal(text_in(first, "state"), "draining");
    assert_int_equal(json_array_size(json_object_get(first, "vaes")), 2);
    const json_t *formats = json_object_get(first, "formats");
    assert_int_equal(json_array_size(formats), 3);
    assert_string_equal(json_string_value(json_array_get(formats, 0)), "png");
    assert_string_equal(json_string_value(json_array_get(formats, 2)), "avif");
    json_decref(shown);
    child = start(&broker, LINE("decoders"));
    answer_query(&broker, "decoders", (luna_msg_answer){0});
    assert_said(&child, "no decoder is connected\n");
    stand_in_close(&broker);
}

static void metrics_are_printed_as_they_are(void **state)
{
    (void)state;
    static const char text[] = "# HELP luna_x \"x\"\nluna_x{a=\"b\"} 1\n";
    stand_in broker;
    running child = start(&broker, LINE("metrics"));
    answer_query(&broker, "metrics", (luna_msg_answer){.text = luna_text_of(text)});
    end(&child);
    stand_in_close(&broker);
    assert_int_equal(child.code, 0);
    assert_string_equal(child.out_text, text);
    child = start(&broker, LINE("metrics", "--json"));
    answer_query(&broker, "metrics", (luna_msg_answer){.text = luna_text_of(text)});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    assert_string_equal(text_in(shown, "text"), text);
    json_decref(shown);
}

static void answer_top(stand_in *broker)
{
    const luna_msg_status status = troubled();
    const luna_msg_decoder_info decoder = {
        .name = luna_text_of("gpu1"), .state = luna_text_of("busy"), .running = 1};
    luna_msg_job_info running_job = job_in("in_progress", NULL, 0);
    luna_msg_job_info waiting[3] = {job_in("pending", NULL, 0),
                                    job_in("pending", NULL, 0),
                                    job_in("pending", NULL, 0)};
    running_job.images_done = 1;
    running_job.decoder = luna_text_of("gpu1");
    for (uint8_t i = 0; i < 3; i++) {
        waiting[i].id.byte[15] = i;
        waiting[i].priority = i;
        waiting[i].next = i == 1;
    }
    answer_query(broker, "status", (luna_msg_answer){.status = &status});
    answer_query(broker, "decoders", (luna_msg_answer){.decoders = {&decoder, 1}});
    answer_query(broker, "jobs", (luna_msg_answer){.jobs = {&running_job, 1}});
    answer_query(broker, "jobs", (luna_msg_answer){.jobs = {waiting, 3}});
}

//  Standard output is a file here: one page, no control sequence.
static void top_without_a_terminal_is_one_page(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("top"));
    answer_top(&broker);
    assert_said(&child, "ALARM: an fsync failed\nPAUSED");
    stand_in_close(&broker);
    assert_shows(child.out_text, "accepting no jobs: the disk is full\n");
    assert_shows(child.out_text, "[##########..........]");
    const char *next = strstr(child.out_text, "8e4f-506172839401");
    const char *urgent = strstr(child.out_text, "8e4f-506172839402");
    const char *least = strstr(child.out_text, "8e4f-506172839400");
    assert_true(next && urgent && least && next < urgent && urgent < least);
    assert_null(strchr(child.out_text, '\033'));
}

static void top_as_json(void **state)
{
    (void)state;
    stand_in broker;
    running child = start(&broker, LINE("top", "--json", "--once"));
    answer_top(&broker);
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    assert_ptr_equal(strchr(child.out_text, '\n'), strrchr(child.out_text, '\n'));
    assert_int_equal(number_in(json_object_get(shown, "status"), "pending"), 3);
    assert_true(json_is_null(json_object_get(shown, "jobs_per_second")));
    assert_int_equal(json_array_size(json_object_get(shown, "decoders")), 1);
    const json_t *jobs = json_object_get(shown, "jobs");
    assert_int_equal(json_array_size(jobs), 4);
    assert_string_equal(text_in(json_array_get(jobs, 0), "state"), "in_progress");
    assert_true(json_is_true(json_object_get(json_array_get(jobs, 1), "next")));
    json_decref(shown);
}

//  An object a line; the end of the broker ends it.
static void top_as_json_goes_on(void **state)
{
    (void)state;
    stand_in broker;
    taken unanswered;
    running child = start(&broker, LINE("top", "--json"));
    answer_top(&broker);
    answer_top(&broker);
    take_control(&broker, LUNA_MSG_QUERY, &unanswered);
    release(&unanswered);
    end(&child);
    stand_in_close(&broker);
    assert_json_error(&child, 75, "timeout", "did not answer");
    const char *second = strchr(child.out_text, '\n') + 1;
    assert_memory_equal(second, "{\"time_ms\":", 11);
    assert_ptr_equal(strchr(second, '\n') + 1, child.out_text + strlen(child.out_text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_shows_what_needs_a_person_first),
        cmocka_unit_test(status_as_json),
        cmocka_unit_test(jobs_are_a_table),
        cmocka_unit_test(show_has_every_field),
        cmocka_unit_test(decoders_are_a_table),
        cmocka_unit_test(metrics_are_printed_as_they_are),
        cmocka_unit_test(top_without_a_terminal_is_one_page),
        cmocka_unit_test(top_as_json),
        cmocka_unit_test(top_as_json_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
