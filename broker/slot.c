#include "broker/slot.h"

#include "broker/endpoint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PORTS = 1000,         //  of a tcp base
    CONTROL_BYTES = 4096  //  a PUSH reads nothing but the handshake
};

bool luna_peer_equal(const luna_peer *a, const luna_peer *b)
{
    return a->len == b->len && memcmp(a->id, b->id, a->len) == 0;
}

static uint32_t ports_of(const luna_slot_namer *namer)
{
    return namer->ports ? namer->ports : PORTS;
}

//  "ipc://RUN/d" gives RUN/d<N>-<tag>; "tcp://HOST:PORT" gives PORT + N.
static luna_err name_next(luna_slot_namer *namer, char *out, size_t room)
{
    const uint32_t number = namer->count++;
    int n;
    if (strncmp(namer->base, "ipc://", 6) == 0) {
        n = snprintf(out, room, "%s%u-%s", namer->base, number, namer->tag);
    } else {
        const char *colon = strrchr(namer->base, ':');
        const unsigned long port =
            strtoul(colon + 1, NULL, 10) + number % ports_of(namer);
        n = snprintf(out, room, "%.*s:%lu", (int)(colon - namer->base), namer->base,
                     port);
    }
    if (n > 0 && (size_t)n < room) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "[broker] slots: %.60s... is too long", namer->base);
}

//  A port of the range may be in use by somebody else: the next one will do.
static luna_err bind_next(luna_slot *slot, luna_slot_namer *namer)
{
    luna_err err = LUNA_BUSY;
    const uint32_t most = ports_of(namer);
    for (uint32_t tries = 0; err == LUNA_BUSY && tries < most; tries++) {
        LUNA_TRY(name_next(namer, slot->endpoint, sizeof slot->endpoint));
        err = luna_endpoint_bind(slot->push, slot->endpoint);
    }
    if (err == LUNA_OK && slot->remote)
        luna_endpoint_last(slot->push, slot->endpoint, sizeof slot->endpoint);
    return err;
}

//  A connection of another machine counts when its key is known.
static int connected_event(const luna_slot *slot)
{
    return slot->remote ? ZMQ_EVENT_HANDSHAKE_SUCCEEDED : ZMQ_EVENT_ACCEPTED;
}

//  A name of its own: that of a slot closed a moment ago may still be in use.
static luna_err watch(luna_slot *slot, const luna_slot_namer *namer)
{
    const int events = connected_event(slot) | ZMQ_EVENT_DISCONNECTED;
    char name[64];
    snprintf(name, sizeof name, "inproc://luna-slot%s-%s-%u", slot->remote ? "-r" : "",
             namer->tag, namer->count);
    void *push = zsock_resolve(slot->push);
    if (zmq_socket_monitor(push, name, events) != 0)
        return luna_error(LUNA_CANT_CREATE, "cannot watch a slot: %s",
                          zmq_strerror(errno));
    slot->monitor = zmq_socket(zsys_init(), ZMQ_PAIR);
    if (slot->monitor && zmq_connect(slot->monitor, name) == 0) return LUNA_OK;
    return luna_error(LUNA_CANT_CREATE, "cannot watch a slot: %s", zmq_strerror(errno));
}

static luna_err prepare(luna_slot *slot, luna_slot_namer *namer)
{
    slot->push = zsock_new(ZMQ_PUSH);
    if (!slot->push) return luna_error(LUNA_NO_MEMORY, "no more sockets");
    zsock_set_sndhwm(slot->push, 1);
    zsock_set_linger(slot->push, 0);
    luna_endpoint_limit(slot->push, CONTROL_BYTES);
    slot->remote = namer->keys != NULL;
    if (slot->remote) LUNA_TRY(luna_keys_server(zsock_resolve(slot->push), namer->keys));
    LUNA_TRY(watch(slot, namer));
    return bind_next(slot, namer);
}

luna_err luna_slot_open(luna_slot_namer *namer, luna_slot **out)
{
    luna_slot *slot = calloc(1, sizeof *slot);
    if (!slot) return luna_error(LUNA_NO_MEMORY, "no memory for one more slot");
    const luna_err err = prepare(slot, namer);
    if (err == LUNA_OK)
        *out = slot;
    else
        luna_slot_close(&slot);
    return err;
}

void luna_slot_close(luna_slot **slot)
{
    luna_slot *s = *slot;
    if (!s) return;
    if (s->push) zmq_socket_monitor(zsock_resolve(s->push), NULL, 0);
    if (s->monitor) zmq_close(s->monitor);
    zsock_destroy(&s->push);
    if (s->endpoint[0]) luna_endpoint_remove(s->endpoint);
    free(s);
    *slot = NULL;
}

//  Two frames: a 16-bit event with its value, and the address.
bool luna_slot_disconnected(luna_slot *slot)
{
    uint16_t event = 0;
    uint8_t frame[6];
    char address[256];
    const int got = zmq_recv(slot->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
    if (got < 0) return false;
    memcpy(&event, frame, sizeof event);
    zmq_recv(slot->monitor, address, sizeof address, ZMQ_DONTWAIT);
    if (event == connected_event(slot)) slot->connected = true;
    if (slot->remote && event == ZMQ_EVENT_DISCONNECTED) slot->connected = false;
    if (slot->remote) return false;
    return got == sizeof frame && event == ZMQ_EVENT_DISCONNECTED;
}

//  d<number>-<tag>, as name_next makes them.
static bool is_slot_file(const char *name, const char *prefix)
{
    const size_t len = strlen(prefix);
    if (strncmp(name, prefix, len) != 0) return false;
    const size_t digits = strspn(name + len, "0123456789");
    const char *rest = name + len + digits;
    return digits > 0 && rest[0] == '-' && strspn(rest + 1, "0123456789abcdef") == 6 &&
           rest[7] == '\0';
}

void luna_slot_sweep(const char *base)
{
    const char *slash = strrchr(base, '/');
    if (strncmp(base, "ipc://", 6) != 0 || slash < base + 6) return;
    char path[4096], endpoint[4096];
    snprintf(path, sizeof path, "%.*s", (int)(slash - (base + 6)), base + 6);
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!is_slot_file(entry->d_name, slash + 1)) continue;
        const int n =
            snprintf(endpoint, sizeof endpoint, "ipc://%.3000s/%s", path, entry->d_name);
        if (n > 0 && (size_t)n < sizeof endpoint) luna_endpoint_remove_stale(endpoint);
    }
    closedir(dir);
}
