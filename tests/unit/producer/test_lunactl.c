//  Whole lunactl commands in a child process, against a stand-in broker.
//
//  The child is made while this process has one thread, before the stand-in is opened;
//  lunactl waits for it.

#include "producer/stand_in.h"

#include "producer/lunactl/lunactl.h"

#include <sys/wait.h>

#define LINE(...) ((const char *[]){"lunactl", __VA_ARGS__, NULL})

static const char some_id[] = "0192f1c2-a5b0-7c3d-8e4f-5061728394a5";

typedef struct running {
    pid_t pid;
    FILE *out, *err;
    int code;
    char out_text[4096], err_text[1024];
} running;

static running begin(stand_in *broker, const char **line)
{
    running child = {.out = tmpfile(), .err = tmpfile()};
    int argc = 0;
    while (line[argc]) argc++;
    fflush(NULL);
    child.pid = fork();
    if (child.pid == 0) {
        dup2(fileno(child.out), STDOUT_FILENO);
        dup2(fileno(child.err), STDERR_FILENO);
        if (broker) setenv("LUNA_BROKER", broker->control_at, 1);
        const int code = luna_ctl_main(argc, (char **)(uintptr_t)line);
        fflush(NULL);
        _exit(code);
    }
    return child;
}

static void read_text(FILE *file, char *text, size_t room)
{
    rewind(file);
    text[fread(text, 1, room - 1, file)] = '\0';
    fclose(file);
}

static void end(running *child)
{
    int status;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFEXITED(status));
    child->code = WEXITSTATUS(status);
    read_text(child->out, child->out_text, sizeof child->out_text);
    read_text(child->err, child->err_text, sizeof child->err_text);
}

static void assert_error(const char **line, int code, const char *words)
{
    running child = begin(NULL, line);
    end(&child);
    assert_int_equal(child.code, code);
    assert_string_equal(child.out_text, "");
    assert_memory_equal(child.err_text, "lunactl: ", 9);
    assert_ptr_equal(strchr(child.err_text, '\n'), strrchr(child.err_text, '\n'));
    if (!strstr(child.err_text, words))
        fail_msg("'%s' does not say '%s'", child.err_text, words);
}

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

static void answer_query(stand_in *broker, const char *what, luna_msg_answer answer)
{
    taken message;
    luna_msg_query query;
    take_control(broker, LUNA_MSG_QUERY, &message);
    assert_int_equal(luna_packet_read(message.packet, &query), LUNA_OK);
    assert_true(luna_text_is(query.what, what));
    answer.re = query.re;
    release(&message);
    send_control(broker, LUNA_MSG_ANSWER, &answer);
}

static luna_msg_job_info job_in(const char *job_state, const luna_msg_image *files,
                                size_t count)
{
    luna_msg_job_info job = {.state = luna_text_of(job_state),
                             .images = 2,
                             .images_done = count,
                             .files = {files, count}};
    assert_int_equal(luna_id_parse(some_id, &job.id), LUNA_OK);
    return job;
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

static json_t *json_of(running *child)
{
    end(child);
    assert_string_equal(child->err_text, "");
    assert_int_equal(child->code, 0);
    json_t *value = json_loads(child->out_text, 0, NULL);
    assert_non_null(value);
    return value;
}

static void json_holds_every_field(void **state)
{
    (void)state;
    const luna_msg_image file = {
        .path = luna_text_of("/o/\"0\".png"), .sha256 = luna_text_of("00"), .width = 64};
    stand_in broker;
    stand_in_name(&broker);
    running child = begin(&broker, LINE("show", some_id, "--json"));
    stand_in_open(&broker);
    welcome(&broker);
    const luna_msg_job_info job = job_in("completed", &file, 1);
    answer_query(&broker, "job", (luna_msg_answer){.jobs = {&job, 1}});
    json_t *shown = json_of(&child);
    stand_in_close(&broker);
    assert_string_equal(json_string_value(json_object_get(shown, "id")), some_id);
    assert_int_equal(json_integer_value(json_object_get(shown, "images")), 2);
    const json_t *image = json_array_get(json_object_get(shown, "files"), 0);
    assert_string_equal(json_string_value(json_object_get(image, "path")),
                        "/o/\"0\".png");
    assert_int_equal(json_integer_value(json_object_get(image, "width")), 64);
    json_decref(shown);

    child = begin(&broker, LINE("decoders", "--json"));
    stand_in_open(&broker);
    welcome(&broker);
    const luna_msg_decoder_info decoder = {
        .name = luna_text_of("gpu1"), .state = luna_text_of("ready"), .pid = 7};
    answer_query(&broker, "decoders", (luna_msg_answer){.decoders = {&decoder, 1}});
    shown = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(shown, 0), "pid")),
                     7);
    json_decref(shown);

    child = begin(&broker, LINE("status", "--json"));
    stand_in_open(&broker);
    welcome(&broker);
    const luna_msg_status status = {.failed = 4, .accepting = luna_text_of("yes")};
    answer_query(&broker, "status", (luna_msg_answer){.status = &status});
    shown = json_of(&child);
    stand_in_close(&broker);
    assert_int_equal(json_integer_value(json_object_get(shown, "failed")), 4);
    json_decref(shown);
}

static void retry_takes_every_failed_job(void **state)
{
    (void)state;
    stand_in broker;
    stand_in_name(&broker);
    running child = begin(&broker, LINE("retry", "--failed"));
    stand_in_open(&broker);
    welcome(&broker);
    luna_msg_job_info jobs[2] = {job_in("failed", NULL, 0), job_in("failed", NULL, 0)};
    jobs[1].id.byte[15] ^= 1;
    answer_query(&broker, "jobs", (luna_msg_answer){.jobs = {jobs, 2}});
    for (int i = 0; i < 2; i++) {
        taken message;
        luna_msg_order order;
        take_control(&broker, LUNA_MSG_RETRY, &message);
        assert_int_equal(luna_packet_read(message.packet, &order), LUNA_OK);
        assert_int_equal(luna_id_compare(&order.id, &jobs[i].id), 0);
        release(&message);
        send_control(&broker, LUNA_MSG_ANSWER, &(luna_msg_answer){.re = order.re});
    }
    end(&child);
    stand_in_close(&broker);
    assert_int_equal(child.code, 0);
    assert_memory_equal(child.out_text, some_id, 36);
    assert_int_equal(strlen(child.out_text), 2 * 37);
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
        cmocka_unit_test(json_holds_every_field),
        cmocka_unit_test(retry_takes_every_failed_job),
        cmocka_unit_test(mistakes_are_one_line_and_an_exit_code),
        cmocka_unit_test(help_needs_no_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
