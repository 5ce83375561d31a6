//  Addresses of brokers, keys as text and in files.

#include "common/address.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define KEY "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static int in_new_folder(void **state)
{
    static char dir[64];
    snprintf(dir, sizeof dir, "/tmp/luna-remote-XXXXXX");
    *state = dir;
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[96];
    if (chdir("/") != 0) return -1;
    snprintf(command, sizeof command, "rm -rf %s", (const char *)*state);
    return system(command);
}

//  ---- addresses ----------------------------------------------------------------------

static void addresses_of_this_machine(void **state)
{
    (void)state;
    static const char *const all[] = {"ipc:///run/luna/control", "tcp://127.0.0.1:19300",
                                      "tcp://127.9.9.9:1", "tcp://[::1]:19300",
                                      "tcp://localhost:5"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        luna_address address;
        assert_int_equal(luna_address_parse(all[i], &address), LUNA_OK);
        assert_string_equal(address.endpoint, all[i]);
        assert_false(address.remote);
    }
}

static void addresses_with_a_key(void **state)
{
    (void)state;
    char text[LUNA_KEY_TEXT_BYTES];
    luna_address address;
    assert_int_equal(luna_address_parse("tcp://farm:19290?key=" KEY, &address), LUNA_OK);
    assert_true(address.remote);
    assert_string_equal(address.endpoint, "tcp://farm:19290");
    luna_key_text(&address.broker, text);
    assert_string_equal(
        text, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    //  This machine may be addressed so as well.
    assert_int_equal(luna_address_parse("tcp://127.0.0.1:19290?key=" KEY, &address),
                     LUNA_OK);
    assert_true(address.remote);
}

static void addresses_that_are_none(void **state)
{
    (void)state;
    char longer[2 * LUNA_ENDPOINT_BYTES];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    const char *const all[] = {"",
                               "farm:19290",
                               "http://farm:1",
                               "tcp://farm",
                               "tcp://farm:19290",
                               "tcp://127x.example.org:1",
                               "tcp://127.example.org:1",
                               "tcp://farm:19290?key=",
                               "tcp://farm:19290?key=00",
                               "tcp://farm:19290?key=" KEY "0",
                               "tcp://farm:19290?key=g" KEY,
                               "ipc:///run/luna/control?key=" KEY,
                               longer};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        luna_address address;
        if (luna_address_parse(all[i], &address) != LUNA_CONFIG)
            fail_msg("'%.60s' passed", all[i]);
        assert_true(strlen(luna_error_text()) > 20);
    }
}

static void expect_way(const char *broker, const char *told, const char *to)
{
    char out[LUNA_ENDPOINT_BYTES];
    luna_address address;
    assert_int_equal(luna_address_parse(broker, &address), LUNA_OK);
    assert_int_equal(luna_address_follow(&address, told, out, sizeof out), LUNA_OK);
    assert_string_equal(out, to);
}

static void the_way_to_other_sockets(void **state)
{
    (void)state;
    char out[12];
    luna_address address;
    expect_way("tcp://farm:19290?key=" KEY, "tcp://*:19291", "tcp://farm:19291");
    expect_way("tcp://[fe80::7]:9?key=" KEY, "tcp://*:10", "tcp://[fe80::7]:10");
    expect_way("tcp://farm:1?key=" KEY, "tcp://10.0.0.1:2", "tcp://10.0.0.1:2");
    expect_way("ipc:///run/luna/control", "ipc:///run/luna/d1", "ipc:///run/luna/d1");
    assert_int_equal(luna_address_parse("tcp://farm:19290?key=" KEY, &address), LUNA_OK);
    assert_int_equal(luna_address_follow(&address, "tcp://*:19291", out, sizeof out),
                     LUNA_CONFIG);
}

//  ---- key files ----------------------------------------------------------------------

static void a_file_is_made_once(void **state)
{
    (void)state;
    luna_key_pair first, again, other;
    struct stat st;
    assert_int_equal(luna_key_file("new/folder/a.key", &first), LUNA_OK);
    assert_int_equal(stat("new/folder/a.key", &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(luna_key_file("new/folder/a.key", &again), LUNA_OK);
    assert_memory_equal(&first, &again, sizeof first);
    assert_int_equal(luna_key_file("b.key", &other), LUNA_OK);
    assert_memory_not_equal(&first.secret, &other.secret, sizeof first.secret);
    assert_memory_not_equal(&first.open, &other.open, sizeof first.open);
    assert_memory_not_equal(&first.open, &first.secret, sizeof first.open);
}

static void expect_refused(const char *text, mode_t mode, luna_err wanted)
{
    luna_key_pair pair;
    const int fd = open("c.key", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(luna_key_file("c.key", &pair), wanted);
    if (wanted != LUNA_OK) assert_non_null(strstr(luna_error_text(), "c.key"));
}

static void files_that_are_none(void **state)
{
    (void)state;
    luna_key_pair pair;
    expect_refused(KEY "\n", 0600, LUNA_OK);
    expect_refused(KEY "\n", 0644, LUNA_CONFIG);
    expect_refused(KEY "\n", 0640, LUNA_CONFIG);
    expect_refused("", 0600, LUNA_CONFIG);
    expect_refused("# a comment", 0600, LUNA_CONFIG);
    assert_int_equal(mkdir("d.key", 0700), 0);
    assert_int_not_equal(luna_key_file("d.key", &pair), LUNA_OK);
    assert_int_equal(luna_key_file("c.key/e.key", &pair), LUNA_CANT_CREATE);
}

//  ---- sockets ------------------------------------------------------------------------

//  One message over a connection with keys; and none with a key that is not the broker's.
static void expect_message(const luna_key *known_as, const luna_key_pair *broker,
                           const luna_key_pair *own, bool arrives)
{
    char endpoint[128], got[8] = "";
    size_t len = sizeof endpoint;
    luna_address address = {.remote = true, .broker = *known_as, .own = *own};
    void *context = zmq_ctx_new();
    void *pull = zmq_socket(context, ZMQ_PULL), *push = zmq_socket(context, ZMQ_PUSH);
    const int wait_ms = arrives ? 10000 : 300, linger_ms = 0;
    zmq_setsockopt(pull, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    zmq_setsockopt(push, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    assert_int_equal(luna_keys_server(pull, broker), LUNA_OK);
    assert_int_equal(zmq_bind(pull, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(pull, ZMQ_LAST_ENDPOINT, endpoint, &len), 0);
    snprintf(address.endpoint, sizeof address.endpoint, "%s", endpoint);
    assert_int_equal(luna_address_connect(&address, push, endpoint), LUNA_OK);
    assert_int_equal(zmq_send(push, "hello", 5, 0), 5);
    assert_int_equal(zmq_recv(pull, got, sizeof got, 0), arrives ? 5 : -1);
    zmq_close(push);
    zmq_close(pull);
    zmq_ctx_term(context);
}

static void keys_open_connections(void **state)
{
    (void)state;
    luna_key_pair broker, own;
    assert_int_equal(luna_key_file("broker.key", &broker), LUNA_OK);
    assert_int_equal(luna_key_file("own.key", &own), LUNA_OK);
    expect_message(&broker.open, &broker, &own, true);
    expect_message(&own.open, &broker, &own, false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, in_new_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_this_machine),
        cmocka_unit_test(addresses_with_a_key),
        cmocka_unit_test(addresses_that_are_none),
        cmocka_unit_test(the_way_to_other_sockets),
        TEST(a_file_is_made_once),
        TEST(files_that_are_none),
        TEST(keys_open_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
