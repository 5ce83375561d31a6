//  Settings: order of flag, environment, file and default; units; errors that name the
//  place; the home's folders.

#include "common/config.h"
#include "common/home.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct settings {
    char control[LUNA_SETTING_BYTES];
    char roots[LUNA_SETTING_BYTES];
    uint64_t max_job_bytes;
    uint64_t lease_ms;
    uint64_t attempts;
    bool events;
} settings;

#define ROW(section, key, kind, fallback)                                              \
    {                                                                                  \
#section, #key, LUNA_SETTING_##kind, offsetof(settings, key), fallback, "help" \
    }

static const luna_setting table[] = {
    ROW(broker, control, PATH, "ipc://%run%/control"),
    ROW(limits, max_job_bytes, SIZE, "256MiB"),
    ROW(limits, attempts, COUNT, "3"),
    ROW(lease, lease_ms, DURATION_MS, "60s"),
    ROW(output, roots, PATHS, "%output%"),
    ROW(http, events, FLAG, "yes"),
};

static char named_seen[512];

static luna_err take_named(void *context, const char *section, const char *name,
                           const char *key, const char *value)
{
    (void)context;
    snprintf(named_seen, sizeof named_seen, "%s/%s/%s=%s", section, name, key, value);
    return strcmp(key, "path") == 0 ? LUNA_OK
                                    : luna_error(LUNA_CONFIG, "no '%s' here", key);
}

static const char *const foreign[] = {"decoder", NULL};
static const luna_config config = {.settings = table,
                                   .count = sizeof table / sizeof table[0],
                                   .foreign = foreign,
                                   .named = take_named};

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int clean_environment(void **state)
{
    (void)state;
    setenv("LUNA_HOME", "/h", 1);
    unsetenv("LUNA_LIMITS_ATTEMPTS");
    unsetenv("LUNA_LEASE_LEASE_MS");
    unsetenv("LUNA_BROKER");
    return 0;
}

static void test_defaults_live_in_the_home(void **state)
{
    (void)state;
    settings s;
    assert_int_equal(luna_config_load(&config, NULL, &s), LUNA_OK);
    assert_string_equal(s.control, "ipc:///h/run/control");
    assert_string_equal(s.roots, "/h/output");
    assert_int_equal(s.max_job_bytes, 256u << 20);
    assert_int_equal(s.lease_ms, 60000);
    assert_true(s.events);
}

static void test_file_then_folder_then_environment_then_flag(void **state)
{
    (void)state;
    settings s;
    write_file("luna.conf",
               "[limits]\nattempts = 4\nmax_job_bytes = 1 GiB\n"
               "[decoder]\nanything = goes\n"
               "[vae flux dev]\npath = %state%/x.safetensors\n"
               "[http]\nevents = off\n");
    assert_int_equal(mkdir("luna.conf.d", 0700), 0);
    write_file("luna.conf.d/10-more.conf", "[limits]\nattempts = 5\n");
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_OK);
    assert_int_equal(s.attempts, 5);
    assert_int_equal(s.max_job_bytes, 1u << 30);
    assert_false(s.events);
    assert_string_equal(named_seen, "vae/flux dev/path=/h/state/x.safetensors");
    setenv("LUNA_LIMITS_ATTEMPTS", "6", 1);
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_OK);
    assert_int_equal(s.attempts, 6);
    assert_int_equal(luna_config_set(&config, "limits", "attempts", "7", &s), LUNA_OK);
    assert_int_equal(s.attempts, 7);
    unlink("luna.conf.d/10-more.conf");
    rmdir("luna.conf.d");
    unlink("luna.conf");
}

static void refused(const char *text, const char *expected)
{
    settings s;
    write_file("luna.conf", text);
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_CONFIG);
    if (!strstr(luna_error_text(), expected))
        fail_msg("'%s' does not name '%s'", luna_error_text(), expected);
    unlink("luna.conf");
}

static void test_errors_name_file_and_line(void **state)
{
    (void)state;
    settings s;
    refused("[limits]\n\nattempt = 3\n", "luna.conf:3: there is no setting 'attempt'");
    refused("[limits]\nattempts = many\n", "luna.conf:2: [limits] attempts: 'many'");
    refused("[limits]\nattempts = 3s\n", "unit");
    refused("[lease]\nlease_ms = 99999999999999999999s\n", "number");
    refused("[http]\nevents = maybe\n", "neither yes nor no");
    refused("[nothing]\nx = 1\n", "there is no setting 'x' in [nothing]");
    refused("[vae flux]\npth = 1\n", "no 'pth' here");
    refused("[limits\n", "luna.conf:1");
    assert_int_equal(luna_config_load(&config, "missing.conf", &s), LUNA_NOT_FOUND);
    setenv("LUNA_LEASE_LEASE_MS", "soon", 1);
    assert_int_equal(luna_config_load(&config, NULL, &s), LUNA_CONFIG);
    assert_non_null(strstr(luna_error_text(), "LUNA_LEASE_LEASE_MS"));
}

//  The first wrong line is the one that is named, whatever follows it.
static void test_the_first_error_counts(void **state)
{
    (void)state;
    refused("[limits]\nattempts = many\n[http]\nevents = on\n",
            "luna.conf:2: [limits] attempts: 'many'");
    refused("[limits]\nattempts = many\nx = 1\n",
            "luna.conf:2: [limits] attempts: 'many'");
    refused("[http] x\nevents = on\n", "luna.conf:1: something after");
    refused("[http]\nevents\n", "luna.conf:2: not a 'key = value' line");
}

//  Names and values of any length come whole or are refused.
static void test_long_lines_are_whole(void **state)
{
    (void)state;
    static char text[9000], deep[4000], name[100];
    settings s;
    memset(deep, 'd', sizeof deep - 1);
    memset(name, 'n', sizeof name - 1);
    deep[0] = '/';
    snprintf(text, sizeof text, "[output]\nroots = %s\n[vae %s]\npath = x\n", deep, name);
    write_file("luna.conf", text);
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_OK);
    assert_string_equal(s.roots, deep);
    snprintf(text, sizeof text, "vae/%s/path=x", name);
    assert_string_equal(named_seen, text);
    snprintf(text, sizeof text, "[output]\nroots = %s%s\n", deep, deep);
    refused(text, "luna.conf:2: ");
    unlink("luna.conf");
}

static void test_blanks_comments_and_line_ends(void **state)
{
    (void)state;
    settings s;
    write_file("luna.conf",
               "\xef\xbb\xbf; first\r\n[limits] ; here\r\n  # indented\r\n"
               "\tattempts : 8 ; eight\r\n\r\n[output]\nroots = /a;b:/c ;d\n"
               "[broker]\ncontrol =; none");
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_OK);
    assert_int_equal(s.attempts, 8);
    assert_string_equal(s.roots, "/a;b:/c");
    assert_string_equal(s.control, "");
    FILE *file = fopen("luna.conf", "w");
    assert_non_null(file);
    fwrite("[http]\0\nevents = on\n", 1, 20, file);
    fclose(file);
    assert_int_equal(luna_config_load(&config, "luna.conf", &s), LUNA_CONFIG);
    assert_non_null(strstr(luna_error_text(), "NUL"));
    unlink("luna.conf");
}

static void test_printed_settings_load_the_same(void **state)
{
    (void)state;
    settings s, again;
    memset(&s, 0, sizeof s);
    memset(&again, 0, sizeof again);
    assert_int_equal(luna_config_load(&config, NULL, &s), LUNA_OK);
    s.lease_ms = 1234;
    FILE *file = fopen("printed.conf", "w");
    luna_config_print(&config, &s, file);
    fclose(file);
    assert_int_equal(luna_config_load(&config, "printed.conf", &again), LUNA_OK);
    assert_int_equal(again.lease_ms, 1234);
    assert_string_equal(again.control, s.control);
    assert_string_equal(again.roots, s.roots);
    assert_int_equal(again.max_job_bytes, s.max_job_bytes);
    unlink("printed.conf");
}

static void test_paths(void **state)
{
    (void)state;
    char path[64];
    settings s;
    assert_int_equal(luna_config_set(&config, "output", "roots", "/a::/b/c:", &s),
                     LUNA_OK);
    assert_true(luna_paths_at(s.roots, 0, path, sizeof path));
    assert_string_equal(path, "/a");
    assert_true(luna_paths_at(s.roots, 1, path, sizeof path));
    assert_string_equal(path, "/b/c");
    assert_false(luna_paths_at(s.roots, 2, path, sizeof path));
    assert_false(luna_paths_at("", 0, path, sizeof path));
    //  Blanks around a path are none of it, also in the last one of a line.
    assert_int_equal(luna_config_set(&config, "output", "roots", " /a : : /b c\t", &s),
                     LUNA_OK);
    assert_string_equal(s.roots, "/a:/b c");
}

static void test_home_by_environment(void **state)
{
    (void)state;
    luna_home home;
    char control[200];
    assert_int_equal(luna_home_find(&home), LUNA_OK);
    assert_string_equal(home.spool, "/h/state/spool");
    assert_int_equal(luna_home_control(control, sizeof control), LUNA_OK);
    assert_string_equal(control, "ipc:///h/run/control");
    setenv("LUNA_BROKER", "tcp://10.0.0.1:5555", 1);
    assert_int_equal(luna_home_control(control, sizeof control), LUNA_OK);
    assert_string_equal(control, "tcp://10.0.0.1:5555");
    unsetenv("LUNA_BROKER");
    char deep[150];
    memset(deep, 'x', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    setenv("LUNA_HOME", deep, 1);
    char room[400];
    assert_int_equal(luna_home_control(room, sizeof room), LUNA_CONFIG);
    assert_non_null(strstr(luna_error_text(), "shorter LUNA_HOME"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults_live_in_the_home, clean_environment),
        cmocka_unit_test_setup(test_file_then_folder_then_environment_then_flag,
                               clean_environment),
        cmocka_unit_test_setup(test_errors_name_file_and_line, clean_environment),
        cmocka_unit_test_setup(test_the_first_error_counts, clean_environment),
        cmocka_unit_test_setup(test_long_lines_are_whole, clean_environment),
        cmocka_unit_test_setup(test_blanks_comments_and_line_ends, clean_environment),
        cmocka_unit_test_setup(test_printed_settings_load_the_same, clean_environment),
        cmocka_unit_test_setup(test_paths, clean_environment),
        cmocka_unit_test_setup(test_home_by_environment, clean_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
