//  lunactl: submitting, waiting, and command lines that are wrong.

#include "producer/ctl.h"

//  A safetensors file with ComfyUI's metadata and one float32 tensor [1, 4, 1, 2].
static void write_latents(const char *path)
{
    static const char header[] =
        "{\"__metadata__\":{\"prompt\":\"{\\\"seed\\\": 18446744073709551615}\","
        "\"workflow\":\"{}\"},"
        "\"latent_tensor\":{\"dtype\":\"F32\",\"shape\":[1,4,1,2],"
        "\"data_offsets\":[0,32]},"
        "\"latent_format_version_0\":{\"dtype\":\"F32\",\"shape\":[0],"
        "\"data_offsets\":[32,32]}}";
    const uint64_t len = sizeof header - 1;
    const uint8_t values[32] = {1, 2, 3};
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&len, sizeof len, 1, file);
    fwrite(header, len, 1, file);
    fwrite(values, sizeof values, 1, file);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void submit_prints_the_id(void **state)
{
    (void)state;
    stand_in broker;
    taken message;
    char here[64], expected[128], id[LUNA_ID_TEXT_BYTES];
    write_latents("a.latent");
    stand_in_name(&broker);
    running child = begin(&broker, LINE("submit", "--latents", "a.latent", "--vae", "x",
                                        "--output-dir", "out", "--affix", "A"));
    stand_in_open(&broker);
    welcome(&broker);
    const luna_msg_job job = take_job(&broker, &message);
    assert_true(luna_text_is(job.vae, "x"));
    assert_non_null(getcwd(here, sizeof here));
    snprintf(expected, sizeof expected, "%s/out", here);
    assert_true(luna_text_is(job.output_dir, expected));
    static const char prompt[] = "{\"seed\": 18446744073709551615}";
    assert_int_equal(job.prompt.len, sizeof prompt - 1);
    assert_memory_equal(job.prompt.data, prompt, sizeof prompt - 1);
    assert_int_equal(job.workflow.len, 2);
    assert_int_equal(job.inputs.count, 1);
    assert_true(luna_text_is(job.inputs.items[0].dtype, "float32"));
    assert_true(luna_text_is(job.inputs.items[0].affix, "A"));
    assert_int_equal(job.inputs.items[0].latent.len, 32);
    assert_int_equal(((const uint8_t *)job.inputs.items[0].latent.data)[2], 3);
    luna_id_text(&job.id, id);
    send_receipt(&broker, &job.id, "accepted", NULL);
    release(&message);
    end(&child);
    stand_in_close(&broker);
    unlink("a.latent");
    assert_string_equal(child.err_text, "");
    assert_int_equal(child.code, 0);
    snprintf(expected, sizeof expected, "%s\n", id);
    assert_string_equal(child.out_text, expected);
}

static void named_files_win_and_stay_as_they_are(void **state)
{
    (void)state;
    static const char text[] = " { \"seed\" : 18446744073709551615, \"x\":[1.0 ] }\n";
    stand_in broker;
    taken message;
    write_latents("a.latent");
    write_text("p.json", text);
    stand_in_name(&broker);
    running child = begin(&broker, LINE("--json", "submit", "--latents", "a.latent",
                                        "--prompt", "p.json", "--metadata", "p.json"));
    stand_in_open(&broker);
    welcome(&broker);
    const luna_msg_job job = take_job(&broker, &message);
    assert_int_equal(job.prompt.len, sizeof text - 1);
    assert_memory_equal(job.prompt.data, text, sizeof text - 1);
    assert_int_equal(job.metadata.len, sizeof text - 1);
    assert_int_equal(job.workflow.len, 2);
    assert_null(job.output_dir.data);
    send_receipt(&broker, &job.id, "refused", "forbidden");
    release(&message);
    end(&child);
    stand_in_close(&broker);
    unlink("a.latent");
    unlink("p.json");
    assert_int_equal(child.code, 73);
    assert_non_null(strstr(child.err_text, "the reason"));
}

static void wait_prints_paths_and_the_jobs_error(void **state)
{
    (void)state;
    const luna_msg_image files[2] = {
        {.index = 0, .path = luna_text_of("/o/0.png"), .sha256 = luna_text_of("00")},
        {.index = 1, .path = luna_text_of("/o/1\x1b.png"), .sha256 = luna_text_of("00")}};
    stand_in broker;
    stand_in_name(&broker);
    running child = begin(&broker, LINE("wait", some_id));
    stand_in_open(&broker);
    welcome(&broker);
    luna_msg_job_info job = job_in("in_progress", files, 1);
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    job = job_in("failed", files, 2);
    job.error = luna_text_of("bad_latent");
    job.detail = luna_text_of("NaN in image 1");
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    end(&child);
    stand_in_close(&broker);
    assert_int_equal(child.code, 65);
    assert_string_equal(child.out_text, "/o/0.png\n/o/1?.png\n");
    assert_non_null(strstr(child.err_text, "(bad_latent): NaN in image 1"));
    assert_null(strchr(child.err_text, '\r'));
}

//  A line for each file and each change; the last one is the whole job.
static void wait_tells_in_lines_of_json(void **state)
{
    (void)state;
    const luna_msg_image files[2] = {
        {.index = 0, .path = luna_text_of("/o/0.png"), .sha256 = luna_text_of("00")},
        {.index = 1, .path = luna_text_of("/o/1.png"), .sha256 = luna_text_of("00")}};
    stand_in broker;
    running child = start(&broker, LINE("--json", "wait", some_id));
    luna_msg_job_info job = job_in("in_progress", files, 1);
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    job = job_in("completed", files, 2);
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    end(&child);
    stand_in_close(&broker);
    assert_int_equal(child.code, 0);
    static const char *const kinds[] = {"image", "job", "image", "job"};
    json_t *line = NULL;
    const char *at = child.out_text;
    for (size_t i = 0; i < 4; i++) {
        const size_t len = strcspn(at, "\n");
        json_decref(line);
        line = json_loadb(at, len, 0, NULL);
        assert_non_null(line);
        assert_string_equal(text_in(line, "kind"), kinds[i]);
        assert_string_equal(text_in(line, "id"), some_id);
        if (i == 1) assert_int_equal(json_array_size(json_object_get(line, "files")), 0);
        if (i == 2)
            assert_string_equal(text_in(json_object_get(line, "file"), "path"),
                                "/o/1.png");
        at += len + 1;
    }
    assert_int_equal(*at, '\0');
    assert_string_equal(text_in(line, "state"), "completed");
    assert_int_equal(json_array_size(json_object_get(line, "files")), 2);
    json_decref(line);
}

static void submit_tells_its_receipt_as_json(void **state)
{
    (void)state;
    stand_in broker;
    taken message;
    char id[LUNA_ID_TEXT_BYTES];
    write_latents("a.latent");
    running child = start(&broker, LINE("submit", "--json", "--latents", "a.latent",
                                        "--deadline", "1.5", "--priority", "0"));
    const luna_msg_job job = take_job(&broker, &message);
    assert_int_equal(job.deadline_ms, 1500);
    assert_int_equal(job.priority, 0);
    luna_id_text(&job.id, id);
    send_receipt(&broker, &job.id, "accepted", NULL);
    release(&message);
    json_t *receipt = json_of(&child);
    stand_in_close(&broker);
    unlink("a.latent");
    assert_string_equal(text_in(receipt, "id"), id);
    assert_string_equal(text_in(receipt, "status"), "accepted");
    assert_int_equal(number_in(receipt, "position"), 3);
    assert_int_equal(number_in(receipt, "images"), 1);
    json_decref(receipt);
}

static void errors_are_json_where_the_rest_is(void **state)
{
    (void)state;
    stand_in broker;
    running child = begin(NULL, LINE("nonsense", "--json"));
    end(&child);
    assert_json_error(&child, 64, "usage", "nonsense");
    child = begin(NULL, LINE("--json", "status", "--broker", "nonsense"));
    end(&child);
    assert_json_error(&child, 78, "config", "nonsense");
    child = start(&broker, LINE("--json", "wait", some_id));
    luna_msg_job_info job = job_in("failed", NULL, 0);
    job.error = luna_text_of("timeout");
    job.detail = luna_text_of("not \"done\" in time");
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    end(&child);
    stand_in_close(&broker);
    assert_json_error(&child, 75, "timeout", "not \"done\" in time");
    assert_memory_equal(child.out_text, "{\"kind\":\"job\"", 13);
}

static void output_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    running child = {.err = tmpfile()};
    fflush(NULL);
    child.pid = fork();
    if (child.pid == 0) {
        if (!freopen("/dev/full", "w", stdout)) _exit(1);
        dup2(fileno(child.err), STDERR_FILENO);
        const int code = luna_ctl_main(2, (char **)(uintptr_t)LINE("--help"));
        fflush(stderr);
        _exit(code);
    }
    child.out = tmpfile();
    end(&child);
    assert_failed(&child, 74, "cannot write the output");
}

static void mistakes_are_one_line_and_an_exit_code(void **state)
{
    (void)state;
    write_latents("a.latent");
    write_text("p.json", "{\"a\": ");
    write_text("list.json", "[]");
    assert_error(LINE("--no-such-option"), 64, "--no-such-option");
    assert_error(LINE("submit"), 64, "--latents");
    assert_error(LINE("submit", "--latents", "none.latent"), 66, "none.latent");
    assert_error(LINE("submit", "--latents", "a.latent:other"), 66, "other");
    assert_error(LINE("submit", "--latents", "p.json"), 65, "p.json");
    assert_error(LINE("submit", "--latents", "a.latent", "--prompt", "p.json"), 65,
                 "not JSON");
    assert_error(LINE("submit", "--latents", "a.latent", "--metadata", "list.json"), 65,
                 "object");
    assert_error(LINE("submit", "--latents", "a.latent", "--workflow", "none"), 66,
                 "none");
    assert_error(LINE("status", "--broker", "nonsense"), 78, "nonsense");
    assert_error(LINE("retry"), 64, "--failed");
    assert_error(LINE("retry", "--failed", some_id), 64, "--failed");
    assert_error(LINE("priority", some_id, "10"), 64, "0 to 9");
    assert_error(LINE("priority", some_id, ""), 64, "0 to 9");
    unlink("a.latent");
    unlink("p.json");
    unlink("list.json");
}

static void help_needs_no_broker(void **state)
{
    (void)state;
    running child = begin(NULL, LINE("--help"));
    end(&child);
    assert_int_equal(child.code, 0);
    assert_string_equal(child.err_text, "");
    assert_non_null(strstr(child.out_text, "decoders"));
    child = begin(NULL, LINE("submit", "--help"));
    end(&child);
    assert_int_equal(child.code, 0);
    assert_non_null(strstr(child.out_text, "--png-compression 0-9"));
    child = begin(NULL, LINE("--version"));
    end(&child);
    assert_int_equal(child.code, 0);
    assert_memory_equal(child.out_text, "lunactl ", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submit_prints_the_id),
        cmocka_unit_test(named_files_win_and_stay_as_they_are),
        cmocka_unit_test(wait_prints_paths_and_the_jobs_error),
        cmocka_unit_test(wait_tells_in_lines_of_json),
        cmocka_unit_test(submit_tells_its_receipt_as_json),
        cmocka_unit_test(errors_are_json_where_the_rest_is),
        cmocka_unit_test(output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(mistakes_are_one_line_and_an_exit_code),
        cmocka_unit_test(help_needs_no_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
