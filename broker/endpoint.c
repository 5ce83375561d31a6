#include "broker/endpoint.h"

#include "common/file.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { HANDSHAKE_MS = 5000 };

static const char *ipc_path(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : NULL;
}

luna_err luna_endpoint_make_dir(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    const char *slash = path ? strrchr(path, '/') : NULL;
    char dir[4096];
    if (!slash || slash == path) return LUNA_OK;
    const size_t len = (size_t)(slash - path);
    if (len >= sizeof dir) return luna_error(LUNA_TOO_LARGE, "%s is too long", endpoint);
    memcpy(dir, path, len);
    dir[len] = '\0';
    return luna_make_dirs(dir, 0700);
}

void luna_endpoint_limit(zsock_t *socket, uint64_t max_message_bytes)
{
    const int64_t max = (int64_t)max_message_bytes;  //  czmq's setter takes an int only
    zmq_setsockopt(zsock_resolve(socket), ZMQ_MAXMSGSIZE, &max, sizeof max);
    zsock_set_handshake_ivl(socket, HANDSHAKE_MS);
    zsock_set_tcp_keepalive(socket, 1);
}

//  Whether a process accepts connections on the socket file.
static bool somebody_listens(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path) return false;
    memcpy(to.sun_path, path, strlen(path) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return true;  //  not known: better not to take it away
    const int rc = connect(fd, (struct sockaddr *)&to, sizeof to);
    const int code = errno;
    close(fd);
    return rc == 0 || (code != ECONNREFUSED && code != ENOENT);
}

luna_err luna_endpoint_bind(zsock_t *socket, const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path && somebody_listens(path))
        return luna_error(LUNA_BUSY,
                          "somebody listens on %s already; is another broker running?",
                          endpoint);
    if (path && unlink(path) != 0 && errno != ENOENT)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot remove %s, which is in the way",
                                path);
    if (strchr(endpoint, '[')) zsock_set_ipv6(socket, 1);
    if (zmq_bind(zsock_resolve(socket), endpoint) == 0) {
        //  Connecting needs write permission; the folder decides who gets that far.
        if (path) chmod(path, 0660);
        return LUNA_OK;
    }
    if (errno == EADDRINUSE)
        return luna_error(LUNA_BUSY, "%s is in use; is another broker running?",
                          endpoint);
    return luna_error(LUNA_CANT_CREATE, "cannot listen on %s: %s", endpoint,
                      zmq_strerror(errno));
}

void luna_endpoint_last(zsock_t *socket, char *out, size_t room)
{
    if (zmq_getsockopt(zsock_resolve(socket), ZMQ_LAST_ENDPOINT, out, &room) != 0)
        out[0] = '\0';
}

void luna_endpoint_remove_stale(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path && !somebody_listens(path)) unlink(path);
}

void luna_endpoint_remove(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path) unlink(path);
}
