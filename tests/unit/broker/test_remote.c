//  Ports for other machines, and whose keys are listed.

#include "broker/remote.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define B "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void settings_that_are_right_and_wrong(void **state)
{
    (void)state;
    static const char *const good[] = {"tcp://0.0.0.0:19290", "tcp://*:1",
                                       "tcp://[::]:65433", "tcp://10.0.0.1:19290"};
    static const char *const bad[] = {
        "0.0.0.0:19290",   "tcp://0.0.0.0",    "tcp://0.0.0.0:", "tcp://0.0.0.0:x",
        "tcp://0.0.0.0:0", "tcp://0.0.0.0:-5", "tcp://*:65434",  "tcp://*:19290x",
        "tcp://*:99999",   "ipc:///tmp/x:5"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (luna_remote_check(good[i]) != LUNA_OK) fail_msg("%s", luna_error_text());
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (luna_remote_check(bad[i]) != LUNA_CONFIG) fail_msg("%s passed", bad[i]);
}

static void endpoints(void **state)
{
    (void)state;
    char out[LUNA_ENDPOINT_BYTES];
    luna_remote_endpoint("tcp://[::1]:100", 3, out, sizeof out);
    assert_string_equal(out, "tcp://[::1]:103");
    luna_remote_told(out, out, sizeof out);
    assert_string_equal(out, "tcp://*:103");
}

static bool is_listed(const char *list, const char *key)
{
    luna_key parsed;
    char path[] = "/tmp/luna-allowed-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, list, strlen(list)), strlen(list));
    assert_int_equal(close(fd), 0);
    assert_true(luna_key_parse(key, &parsed));
    const bool listed = luna_remote_is_listed(path, &parsed);
    assert_int_equal(unlink(path), 0);
    return listed;
}

static void lists(void **state)
{
    (void)state;
    luna_key key;
    assert_true(is_listed(A, A));
    assert_true(is_listed(A " the farm's first\n", A));
    assert_true(is_listed("# keys\n\n" B " second\r\n" A "\n", A));
    assert_true(
        is_listed("FF112233445566778899AABBCCDDEEFF"
                  "00112233445566778899aabbccddeeff\n",
                  B));
    assert_false(is_listed("", A));
    assert_false(is_listed("\n\n", A));
    assert_false(is_listed(B "\n", A));
    assert_false(is_listed("# " A "\n", A));
    assert_false(is_listed(" " A "\n", A));
    assert_false(is_listed("0011\n" B "\n0011", A));
    assert_true(luna_key_parse(A, &key));
    assert_false(luna_remote_is_listed("/nonexistent/allowed_keys", &key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_that_are_right_and_wrong),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
