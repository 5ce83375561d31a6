//  door.c - who may come in from other machines
//
//  ZeroMQ asks before a connection carries anything (RFC 27, ZAP): seven frames, of which
//  the last is the peer's public key, which the peer has proved to have. Connections of
//  this machine's own sockets have no keys and are not asked about.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <string.h>

enum { FRAMES = 7, TELL_AGAIN_MS = 60000 };
enum { VERSION, REQUEST, DOMAIN_NAME, ADDRESS, IDENTITY, MECHANISM, KEY };

static bool is_question(zmsg_t *question, zframe_t *frames[FRAMES])
{
    if (zmsg_size(question) != FRAMES) return false;
    frames[0] = zmsg_first(question);
    for (int i = 1; i < FRAMES; i++) frames[i] = zmsg_next(question);
    return zframe_streq(frames[VERSION], "1.0") &&
           zframe_streq(frames[MECHANISM], "CURVE") &&
           zframe_size(frames[KEY]) == LUNA_KEY_BYTES;
}

static void tell_refused(luna_broker *b, const luna_key *key, zframe_t *address)
{
    const int64_t now_ms = luna_now_ms();
    char text[LUNA_KEY_TEXT_BYTES];
    luna_remote *r = &b->remote;
    if (memcmp(key, &r->refused, sizeof *key) == 0 &&
        now_ms - r->refused_ms < TELL_AGAIN_MS)
        return;
    r->refused = *key;
    r->refused_ms = now_ms;
    luna_key_text(key, text);
    luna_log(LUNA_LOG_WARNING, "remote_refused",
             "address=%.*s key=%s next=\"nothing, unless you add the key to %s\"",
             (int)zframe_size(address), (const char *)zframe_data(address), text,
             b->settings->allowed_keys);
}

static bool may_come_in(luna_broker *b, zframe_t *frames[FRAMES])
{
    luna_key key;
    memcpy(&key, zframe_data(frames[KEY]), sizeof key);
    if (luna_remote_is_listed(b->settings->allowed_keys, &key)) return true;
    tell_refused(b, &key, frames[ADDRESS]);
    return false;
}

//  "Later" instead of "no": after a no a socket never tries again, and that of a peer
//  whose key is struck off and listed again would be dead. A question that is none has no
//  number that could be repeated.
static void answer(zsock_t *door, zframe_t *request, bool yes)
{
    zmsg_t *message = zmsg_new();
    if (!message) return;
    zmsg_addstr(message, "1.0");
    zmsg_addmem(message, request ? zframe_data(request) : (const byte *)"",
                request ? zframe_size(request) : 0);
    zmsg_addstr(message, yes ? "200" : "300");
    zmsg_addstr(message, yes ? "" : "not listed");
    zmsg_addstr(message, "");  //  user id
    zmsg_addstr(message, "");  //  metadata
    zmsg_send(&message, door);
    zmsg_destroy(&message);
}

int luna_door_ready(zloop_t *loop, zsock_t *reader, void *broker)
{
    (void)loop;
    zframe_t *frames[FRAMES] = {NULL};
    zmsg_t *question = zmsg_recv(reader);
    if (!question) return 0;
    const bool good = is_question(question, frames);
    answer(reader, good ? frames[REQUEST] : NULL, good && may_come_in(broker, frames));
    zmsg_destroy(&question);
    return 0;
}

//  ---- the door shut ------------------------------------------------------------------

static void set_shut(zsock_t *socket, const char *endpoint, bool shut)
{
    void *handle = zsock_resolve(socket);
    const int rc = shut ? zmq_unbind(handle, endpoint) : zmq_bind(handle, endpoint);
    if (rc != 0 && zmq_errno() != EADDRINUSE && zmq_errno() != ENOENT)
        luna_log(LUNA_LOG_ERROR, "remote_bind", "endpoint=%s error=\"%s\"", endpoint,
                 zmq_strerror(zmq_errno()));
}

static void set_all_shut(luna_broker *b, bool shut)
{
    luna_remote *r = &b->remote;
    zsock_t *const sockets[] = {r->control, r->intake, r->events};
    for (size_t i = 0; i < 3; i++) set_shut(sockets[i], r->bound[i], shut);
    for (size_t i = 0; i < b->slot_count; i++)
        if (b->slots[i]->remote) set_shut(b->slots[i]->push, b->slots[i]->endpoint, shut);
    r->shut = shut;
}

//  Anybody can connect who reaches the ports, with a key or without, and ZeroMQ ends the
//  process when it lacks a descriptor for a connection of this machine. Those that say
//  nothing it closes after the time of a handshake; who is in stays.
void luna_door_watch(luna_broker *b)
{
    luna_remote *r = &b->remote;
    luna_descriptor_count count;
    if (!r->control || !luna_descriptors(b, &count)) return;
    const bool shut = count.used >= count.limit / (r->shut ? 4 : 2);
    if (shut == r->shut) return;
    set_all_shut(b, shut);
    luna_log(shut ? LUNA_LOG_ERROR : LUNA_LOG_INFO, shut ? "remote_shut" : "remote_open",
             "descriptors=%zu of=%zu next=\"%s\"", count.used, count.limit,
             shut ? "other machines wait until three quarters are free; who is in stays"
                  : "other machines come in again");
}
