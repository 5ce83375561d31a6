//  Command lines, without a broker.

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "producer/lunactl/commands.h"

#include <string.h>

#define LINE(...) ((const char *[]){"lunactl", __VA_ARGS__, NULL})

static luna_ctl ctl;
static const luna_command *command;

static luna_err read_line(const char **argv)
{
    int argc = 0;
    while (argv[argc]) argc++;
    ctl = (luna_ctl){.limit = 100};
    luna_submission_init(&ctl.job);
    return luna_flags_read(&ctl, argc, (char **)(uintptr_t)argv, &command);
}

static void assert_wrong(const char **argv, const char *word)
{
    assert_int_equal(read_line(argv), LUNA_USAGE);
    if (!strstr(luna_error_text(), word))
        fail_msg("'%s' does not name %s", luna_error_text(), word);
}

static void flags_fill_the_job(void **state)
{
    (void)state;
    const char **line =
        LINE("--json", "submit", "--latents", "a.latent:x", "--vae", "flux",
             "--output-dir=/o", "--save-path", "p", "--filename", "f", "--model-name",
             "m", "--filename-index", "18446744073709551615", "--quality-gate", "both",
             "--min-quality", "0.5", "--save-mode", "database_store", "--priority", "9",
             "--job-id", "u", "--no-embed", "--wait", "--broker", "ipc://x");
    assert_int_equal(read_line(line), LUNA_OK);
    assert_string_equal(command->name, "submit");
    assert_true(ctl.json && ctl.wait);
    assert_string_equal(ctl.broker, "ipc://x");
    assert_string_equal(ctl.latents[0], "a.latent:x");
    assert_string_equal(ctl.job.vae, "flux");
    assert_string_equal(ctl.job.output_dir, "/o");
    assert_string_equal(ctl.job.save_path, "p");
    assert_string_equal(ctl.job.filename, "f");
    assert_string_equal(ctl.job.model_name, "m");
    assert_true(ctl.job.filename_index == UINT64_MAX);
    assert_string_equal(ctl.job.quality_gate, "both");
    assert_true(ctl.job.min_quality > 0.49 && ctl.job.min_quality < 0.51);
    assert_string_equal(ctl.job.save_mode, "database_store");
    assert_int_equal(ctl.job.priority, 9);
    assert_string_equal(ctl.job.job_id, "u");
    assert_int_equal(ctl.job.embed_workflow, 0);
}

//  Before the first --latents: of all inputs; after one: of that one.
static void flags_of_inputs_have_a_place(void **state)
{
    (void)state;
    const char **line = LINE("submit", "--format", "webp", "--latents", "a", "--affix",
                             "A", "--lossy-quality", "70", "--latents", "b", "--affix",
                             "B", "--format", "png", "--png-compression", "0",
                             "--no-subdir", "--latents", "c", "--lossless-webp");
    assert_int_equal(read_line(line), LUNA_OK);
    const luna_latent *input = ctl.job.inputs;
    assert_int_equal(ctl.job.input_count, 3);
    assert_string_equal(input[0].affix, "A");
    assert_string_equal(input[0].format, "webp");
    assert_int_equal(input[0].lossy_quality, 70);
    assert_int_equal(input[0].subdir, 1);
    assert_string_equal(input[1].affix, "B");
    assert_string_equal(input[1].format, "png");
    assert_int_equal(input[1].png_compression, 0);
    assert_int_equal(input[1].lossy_quality, 90);
    assert_int_equal(input[1].subdir, 0);
    assert_string_equal(input[2].affix, "");
    assert_string_equal(input[2].format, "webp");
    assert_int_equal(input[2].lossless_webp, 1);
    assert_int_equal(input[0].lossless_webp, 0);
}

static void wrong_lines_name_what_is_wrong(void **state)
{
    (void)state;
    assert_wrong(LINE("--no-such"), "--no-such");
    assert_wrong(LINE("status", "--state", "failed"), "--state");
    assert_wrong(LINE("nonsense"), "nonsense");
    assert_wrong(LINE("show"), "show ID");
    assert_wrong(LINE("show", "a", "b"), "show ID");
    assert_wrong(LINE("status", "more"), "status");
    assert_wrong(LINE("jobs", "--state"), "--state");
    assert_wrong(LINE("jobs", "--state", "fail"), "completed");
    assert_wrong(LINE("jobs", "--state", ""), "completed");
    assert_wrong(LINE("jobs", "--state", "failed|completed"), "pending");
    assert_wrong(LINE("submit", "--priority", "10"), "0 to 9");
    assert_wrong(LINE("submit", "--priority", "-1"), "0 to 9");
    assert_wrong(LINE("submit", "--lossy-quality", "69"), "70 to 100");
    assert_wrong(LINE("submit", "--filename-index", "18446744073709551616"), "N");
    assert_wrong(LINE("submit", "--min-quality", "much"), "--min-quality");
    assert_wrong(LINE("submit", "--min-quality", "nan"), "--min-quality");
    assert_wrong(LINE("submit", "--wait=yes"), "--wait");
    assert_wrong(LINE("submit", "--latents", "1", "--latents", "2", "--latents", "3",
                      "--latents", "4", "--latents", "5", "--latents", "6"),
                 "at most 5");
    assert_wrong(LINE("show", "1", "2", "3", "4", "5", "6", "7", "8"), "too many");
}

static void no_command_and_help_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(read_line((const char *[]){"lunactl", NULL}), LUNA_OK);
    assert_null(command);
    assert_int_equal(read_line(LINE("show", "--help")), LUNA_OK);
    assert_true(ctl.help);
    assert_int_equal(read_line(LINE("--", "show", "--help")), LUNA_OK);
    assert_false(ctl.help);
    assert_string_equal(ctl.words[1], "--help");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_fill_the_job),
        cmocka_unit_test(flags_of_inputs_have_a_place),
        cmocka_unit_test(wrong_lines_name_what_is_wrong),
        cmocka_unit_test(no_command_and_help_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
