//  Command lines, without a broker.

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "producer/lunactl/commands.h"

#include <stdio.h>
#include <stdlib.h>
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
    const char **line = LINE(
        "--json", "submit", "--latents", "a.latent:x", "--vae", "flux", "--output-dir=/o",
        "--save-path", "p", "--filename", "f", "--model-name", "m", "--filename-index",
        "18446744073709551615", "--quality-gate", "both", "--min-quality", "0.5",
        "--save-mode", "database_store", "--priority", "9", "--job-id", "u", "--no-embed",
        "--wait", "--broker", "ipc://x", "--deadline", "0.0015");
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
    assert_int_equal(ctl.job.deadline_ms, 2);
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
    assert_wrong(LINE("submit", "--deadline", "0"), "SECONDS");
    assert_wrong(LINE("submit", "--deadline", "-1"), "SECONDS");
    assert_wrong(LINE("submit", "--deadline", "nan"), "SECONDS");
    assert_wrong(LINE("submit", "--deadline", "1e300"), "SECONDS");
    assert_wrong(LINE("submit", "--deadline", "5m"), "SECONDS");
    assert_wrong(LINE("submit", "--latents", "1", "--latents", "2", "--latents", "3",
                      "--latents", "4", "--latents", "5", "--latents", "6"),
                 "at most 5");
    assert_wrong(LINE("cancel"), "cancel ID...");
    assert_wrong(LINE("priority", "a"), "priority ID N");
    assert_wrong(LINE("next", "a", "b"), "next ID");
    assert_wrong(LINE("pause", "a"), "pause");
    assert_wrong(LINE("resume", "a", "b"), "resume [DECODER]");
    assert_wrong(LINE("drain", "a", "b"), "drain [DECODER]");
    assert_wrong(LINE("resume", "--wait"), "--wait");
    assert_wrong(LINE("status", "--once"), "--once");
}

//  xargs gives a command as many ids as fit into a line.
static void commands_take_thousands_of_words(void **state)
{
    (void)state;
    static const char *line[LUNA_CTL_WORDS + 3];
    line[0] = "lunactl";
    line[1] = "cancel";
    for (size_t i = 2; i <= LUNA_CTL_WORDS; i++) line[i] = "a";
    assert_int_equal(read_line(line), LUNA_OK);
    assert_int_equal(ctl.word_count, LUNA_CTL_WORDS);
    line[LUNA_CTL_WORDS + 1] = "b";
    assert_wrong(line, "too many");
}

//  The whole of a file beside the test data; the caller frees it.
static char *read_source(const char *path)
{
    char name[4096], *text = calloc(1, 1 << 20);
    const char *data = getenv("LUNA_TEST_DATA");
    assert_non_null(data);
    assert_non_null(text);
    snprintf(name, sizeof name, "%s/../../%s", data, path);
    FILE *file = fopen(name, "r");
    if (!file) fail_msg("cannot open %s", name);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void assert_holds(const char *text, const char *file, const char *format,
                         const char *word)
{
    char wanted[100];
    snprintf(wanted, sizeof wanted, format, word);
    if (!strstr(text, wanted)) fail_msg("%s has no '%s'", file, wanted);
}

static void assert_flags_hold(const luna_flag *flags, size_t count, const char *page,
                              const char *completion)
{
    for (size_t i = 0; i < count; i++) {
        assert_holds(page, "lunactl.1", "Fl %s", flags[i].name + 1);
        assert_holds(completion, "lunactl.bash", "%s", flags[i].name);
    }
}

static void every_command_and_flag_is_documented(void **state)
{
    (void)state;
    char *page = read_source("producer/man/lunactl.1");
    char *completion = read_source("producer/lunactl/lunactl.bash");
    assert_flags_hold(luna_common_flags, luna_common_flag_count, page, completion);
    for (size_t i = 0; i < luna_command_count; i++) {
        const luna_command *one = &luna_commands[i];
        assert_holds(page, "lunactl.1", ".It Cm %s", one->name);
        assert_holds(completion, "lunactl.bash", "%s", one->name);
        assert_flags_hold(one->flags, one->flag_count, page, completion);
    }
    free(page);
    free(completion);
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
        cmocka_unit_test(commands_take_thousands_of_words),
        cmocka_unit_test(every_command_and_flag_is_documented),
        cmocka_unit_test(no_command_and_help_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
