#include "common/address.h"

#include "common/file.h"
#include "common/hex.h"
#include "common/home.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

//  ---- keys as text -----------------------------------------------------------------

void luna_key_text(const luna_key *key, char out[LUNA_KEY_TEXT_BYTES])
{
    for (size_t i = 0; i < LUNA_KEY_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", key->byte[i]);
}

bool luna_key_parse(const char *text, luna_key *out)
{
    for (size_t i = 0; i < LUNA_KEY_BYTES; i++) {
        const int high = luna_hex_value(text[2 * i]);
        const int low = high < 0 ? -1 : luna_hex_value(text[2 * i + 1]);
        if (low < 0) return false;
        out->byte[i] = (uint8_t)(16 * high + low);
    }
    return true;
}

//  ---- addresses ----------------------------------------------------------------------

static const char key_mark[] = "?key=";

//  A host's name may begin as an address does.
bool luna_endpoint_is_loopback(const char *endpoint)
{
    static const char first[] = "tcp://127.", ipv6[] = "tcp://[::1]:";
    if (strncmp(endpoint, ipv6, strlen(ipv6)) == 0) return true;
    if (strncmp(endpoint, first, strlen(first)) != 0) return false;
    const char *rest = endpoint + strlen(first);
    return rest[strspn(rest, "0123456789.")] == ':';
}

static luna_err read_key(const char *text, const char *mark, luna_address *out)
{
    const char *key = mark + strlen(key_mark);
    if (strlen(key) != 2 * LUNA_KEY_BYTES || !luna_key_parse(key, &out->broker))
        return luna_error(LUNA_CONFIG,
                          "'%.200s': a broker's key is 64 hexadecimal digits; the broker "
                          "logs its own when it starts",
                          text);
    out->remote = true;
    return LUNA_OK;
}

static luna_err check_kind(const luna_address *address, const char *text)
{
    const char *endpoint = address->endpoint;
    if (strncmp(endpoint, "ipc://", 6) == 0 && !address->remote)
        return luna_endpoint_check(endpoint);
    if (strncmp(endpoint, "tcp://", 6) != 0 || !strchr(endpoint + 6, ':'))
        return luna_error(LUNA_CONFIG,
                          "'%.200s' is neither ipc:///PATH nor tcp://HOST:PORT?key=KEY",
                          text);
    if (address->remote || luna_endpoint_is_loopback(endpoint) ||
        strncmp(endpoint, "tcp://localhost:", 16) == 0)
        return LUNA_OK;
    return luna_error(LUNA_CONFIG,
                      "'%.200s' is another machine: its broker's key is needed too, "
                      "tcp://HOST:PORT?key=KEY",
                      text);
}

luna_err luna_address_parse(const char *text, luna_address *out)
{
    *out = (luna_address){.remote = false};
    const char *mark = strstr(text, key_mark);
    const size_t len = mark ? (size_t)(mark - text) : strlen(text);
    if (len >= sizeof out->endpoint)
        return luna_error(LUNA_CONFIG, "the broker's address %.60s... is too long", text);
    memcpy(out->endpoint, text, len);
    if (mark) LUNA_TRY(read_key(text, mark, out));
    return check_kind(out, text);
}

luna_err luna_address_follow(const luna_address *broker, const char *endpoint, char *out,
                             size_t room)
{
    static const char here[] = "tcp://*:";
    int len;
    if (strncmp(endpoint, here, strlen(here)) == 0) {
        const char *port = strrchr(broker->endpoint, ':');
        len = snprintf(out, room, "%.*s:%s", (int)(port - broker->endpoint),
                       broker->endpoint, endpoint + strlen(here));
    } else {
        len = snprintf(out, room, "%s", endpoint);
    }
    if (len >= 0 && (size_t)len < room) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "the endpoint %.60s... is too long", endpoint);
}

luna_err luna_address_keys(luna_address *address, const char *key_file)
{
    char path[LUNA_HOME_BYTES];
    if (!address->remote) return LUNA_OK;
    if (!key_file) LUNA_TRY(luna_home_key(path, sizeof path));
    return luna_key_file(key_file ? key_file : path, &address->own);
}

luna_err luna_address_connect(const luna_address *broker, void *socket,
                              const char *endpoint)
{
    char to[LUNA_HOME_BYTES];
    LUNA_TRY(luna_address_follow(broker, endpoint, to, sizeof to));
    if (broker->remote) LUNA_TRY(luna_keys_client(socket, &broker->broker, &broker->own));
    const int ipv6 = strchr(to, '[') != NULL;  //  an address in numbers
    zmq_setsockopt(socket, ZMQ_IPV6, &ipv6, sizeof ipv6);
    if (zmq_connect(socket, to) == 0) return LUNA_OK;
    return luna_error(LUNA_CONFIG,
                      "cannot connect to '%s': %s; expected ipc:///PATH or "
                      "tcp://HOST:PORT",
                      to, zmq_strerror(zmq_errno()));
}

//  ---- key files ----------------------------------------------------------------------

static luna_err cannot_encrypt(void)
{
    return luna_error(LUNA_UNAVAILABLE,
                      "this libzmq cannot encrypt (%s); one with CURVE is needed",
                      zmq_strerror(zmq_errno()));
}

static luna_err new_pair(luna_key_pair *out)
{
    char open[41], secret[41];
    if (zmq_curve_keypair(open, secret) != 0) return cannot_encrypt();
    (void)zmq_z85_decode(out->open.byte, open);
    (void)zmq_z85_decode(out->secret.byte, secret);
    return LUNA_OK;
}

//  The public key of a secret one.
static luna_err open_of(luna_key_pair *pair)
{
    char open[41], secret[41];
    zmq_z85_encode(secret, pair->secret.byte, LUNA_KEY_BYTES);
    if (zmq_curve_public(open, secret) != 0) return cannot_encrypt();
    (void)zmq_z85_decode(pair->open.byte, open);
    return LUNA_OK;
}

static luna_err read_file(const char *path, luna_key_pair *out)
{
    char *text;
    size_t len;
    struct stat st;
    if (stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        return luna_error(LUNA_CONFIG,
                          "%s: a secret key that others may read; chmod 600 it", path);
    LUNA_TRY(luna_file_read(path, 4096, &text, &len));
    const bool good = len >= 2 * LUNA_KEY_BYTES && luna_key_parse(text, &out->secret);
    memset(text, 0, len);
    free(text);
    if (good) return open_of(out);
    return luna_error(LUNA_CONFIG,
                      "%s holds no secret key; without the file a new one is made", path);
}

static luna_err write_file(const char *path, const luna_key_pair *pair)
{
    char text[LUNA_KEY_TEXT_BYTES + 1];
    luna_key_text(&pair->secret, text);
    text[2 * LUNA_KEY_BYTES] = '\n';
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    luna_err err = luna_write_all(fd, text, 2 * LUNA_KEY_BYTES + 1, path);
    if (err == LUNA_OK && fsync(fd) != 0)
        err = luna_error_errno(LUNA_IO, "cannot write %s", path);
    close(fd);
    if (err != LUNA_OK) unlink(path);
    return err;
}

static luna_err make_folder(const char *path)
{
    char dir[LUNA_HOME_BYTES];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return LUNA_OK;
    const int len = snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
    if (len < 0 || (size_t)len >= sizeof dir)
        return luna_error(LUNA_CONFIG, "the path %.60s... is too long", path);
    return luna_make_dirs(dir, 0700);
}

luna_err luna_key_file(const char *path, luna_key_pair *out)
{
    if (access(path, F_OK) == 0) return read_file(path, out);
    LUNA_TRY(make_folder(path));
    LUNA_TRY(new_pair(out));
    const luna_err err = write_file(path, out);
    //  Two that start at once: the first one's key it is.
    if (err == LUNA_CANT_CREATE && access(path, F_OK) == 0) return read_file(path, out);
    return err;
}

//  ---- sockets ------------------------------------------------------------------------

static bool set_key(void *socket, int option, const luna_key *key)
{
    return zmq_setsockopt(socket, option, key->byte, LUNA_KEY_BYTES) == 0;
}

luna_err luna_keys_client(void *socket, const luna_key *broker, const luna_key_pair *own)
{
    if (set_key(socket, ZMQ_CURVE_SERVERKEY, broker) &&
        set_key(socket, ZMQ_CURVE_PUBLICKEY, &own->open) &&
        set_key(socket, ZMQ_CURVE_SECRETKEY, &own->secret))
        return LUNA_OK;
    return cannot_encrypt();
}

luna_err luna_keys_server(void *socket, const luna_key_pair *own)
{
    const int server = 1;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &server, sizeof server) == 0 &&
        set_key(socket, ZMQ_CURVE_SECRETKEY, &own->secret))
        return LUNA_OK;
    return cannot_encrypt();
}
