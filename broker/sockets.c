//  sockets.c - the broker's sockets, alike for this machine and for others
//
//  No ZeroMQ heartbeats on any of them: libzmq 4.3 ends the process when one is due for a
//  peer that has left more than was read (out_event asserts !_io_error), and cuts off a
//  healthy peer that is read slowly. Pings and leases find the silent ones.

#include "broker/endpoint.h"
#include "broker/loop.h"
#include "common/log.h"

enum {
    CONTROL_MAX_BYTES = 16 << 20,  //  a done with 20 480 images fits
    CONTROL_UNREAD = 16            //  messages of one peer: a quarter GiB at most
};

static luna_err no_socket(void)
{
    return luna_error(LUNA_NO_MEMORY, "no more sockets");
}

static luna_err new_control(zsock_t **out)
{
    zsock_t *socket = *out = zsock_new(ZMQ_ROUTER);
    if (!socket) return no_socket();
    zsock_set_router_mandatory(socket, 1);
    zsock_set_router_handover(socket, 1);
    zsock_set_sndhwm(socket, 1000);
    zsock_set_rcvhwm(socket, CONTROL_UNREAD);
    zsock_set_linger(socket, 1000);  //  the last receipts leave
    luna_endpoint_limit(socket, CONTROL_MAX_BYTES);
    return LUNA_OK;
}

static luna_err new_intake(const luna_settings *settings, zsock_t **out)
{
    zsock_t *socket = *out = zsock_new(ZMQ_PULL);
    if (!socket) return no_socket();
    zsock_set_rcvhwm(socket, 1);
    zsock_set_linger(socket, 0);
    luna_endpoint_limit(socket, settings->max_job_bytes + LUNA_INTAKE_SLACK_BYTES);
    return LUNA_OK;
}

static luna_err new_events(zsock_t **out)
{
    zsock_t *socket = *out = zsock_new(ZMQ_XPUB);
    if (!socket) return no_socket();
    zsock_set_xpub_verbose(socket, 1);
    zsock_set_sndhwm(socket, 1000);
    zsock_set_linger(socket, 0);
    luna_endpoint_limit(socket, 4096);
    return LUNA_OK;
}

//  ---- of this machine ----------------------------------------------------------------

static luna_err bind_one(zsock_t *socket, const char *endpoint, const char *inproc)
{
    LUNA_TRY(luna_endpoint_make_dir(endpoint));
    LUNA_TRY(luna_endpoint_bind(socket, endpoint));
    return inproc ? luna_endpoint_bind(socket, inproc) : LUNA_OK;
}

static luna_err open_local(luna_broker *b)
{
    const luna_settings *s = b->settings;
    LUNA_TRY(luna_endpoint_make_dir(s->slots));
    luna_slot_sweep(s->slots);
    LUNA_TRY(new_control(&b->control));
    LUNA_TRY(bind_one(b->control, s->control, LUNA_CONTROL_INPROC));
    LUNA_TRY(new_intake(s, &b->intake));
    LUNA_TRY(bind_one(b->intake, s->intake, LUNA_INTAKE_INPROC));
    LUNA_TRY(new_events(&b->events));
    return bind_one(b->events, s->events, NULL);
}

//  ---- of others ----------------------------------------------------------------------

static luna_err bind_remote(luna_broker *b, zsock_t *socket, unsigned offset)
{
    char *endpoint = b->remote.bound[offset];
    luna_remote_endpoint(b->settings->remote, offset, endpoint, LUNA_ENDPOINT_BYTES);
    LUNA_TRY(luna_keys_server(zsock_resolve(socket), &b->remote.keys));
    LUNA_TRY(luna_endpoint_bind(socket, endpoint));
    luna_endpoint_last(socket, endpoint, LUNA_ENDPOINT_BYTES);
    return LUNA_OK;
}

static void name_slots(luna_broker *b)
{
    luna_remote *r = &b->remote;
    r->namer = b->namer;
    luna_remote_endpoint(b->settings->remote, 3, r->slots, sizeof r->slots);
    r->namer.base = r->slots;
    r->namer.ports = LUNA_REMOTE_SLOTS;
    r->namer.keys = &r->keys;
}

//  The door first: without one ZeroMQ takes everybody.
static luna_err open_remote(luna_broker *b)
{
    luna_remote *r = &b->remote;
    char key[LUNA_KEY_TEXT_BYTES];
    LUNA_TRY(luna_key_file(b->settings->key_file, &r->keys));
    name_slots(b);
    r->door = zsock_new(ZMQ_REP);
    if (!r->door) return no_socket();
    LUNA_TRY(luna_endpoint_bind(r->door, "inproc://zeromq.zap.01"));
    LUNA_TRY(new_control(&r->control));
    LUNA_TRY(bind_remote(b, r->control, 0));
    LUNA_TRY(new_intake(b->settings, &r->intake));
    LUNA_TRY(bind_remote(b, r->intake, 1));
    LUNA_TRY(new_events(&r->events));
    LUNA_TRY(bind_remote(b, r->events, 2));
    luna_key_text(&r->keys.open, key);
    luna_log(LUNA_LOG_INFO, "remote", "address=%s?key=%s allowed_keys=%s",
             b->settings->remote, key, b->settings->allowed_keys);
    return LUNA_OK;
}

//  ---- all of them --------------------------------------------------------------------

luna_err luna_sockets_open(luna_broker *b)
{
    LUNA_TRY(open_local(b));
    return b->settings->remote[0] ? open_remote(b) : LUNA_OK;
}

static void read_from(luna_broker *b, zsock_t *socket, zloop_reader_fn *ready)
{
    if (socket) zloop_reader(b->loop, socket, ready, b);
}

void luna_sockets_serve(luna_broker *b)
{
    read_from(b, b->control, luna_control_ready);
    read_from(b, b->intake, luna_intake_ready);
    read_from(b, b->events, luna_events_ready);
    read_from(b, b->remote.door, luna_door_ready);
    read_from(b, b->remote.control, luna_control_ready);
    read_from(b, b->remote.intake, luna_intake_ready);
    read_from(b, b->remote.events, luna_events_ready);
}

void luna_sockets_pause_intake(luna_broker *b, bool pause)
{
    zsock_t *const all[] = {b->intake, b->remote.intake};
    for (size_t i = 0; i < 2; i++) {
        if (!pause) read_from(b, all[i], luna_intake_ready);
        if (pause && all[i]) zloop_reader_end(b->loop, all[i]);
    }
}

//  The door last: nobody comes in meanwhile.
void luna_sockets_close(luna_broker *b)
{
    zsock_destroy(&b->intake);
    zsock_destroy(&b->events);
    zsock_destroy(&b->control);
    zsock_destroy(&b->remote.intake);
    zsock_destroy(&b->remote.events);
    zsock_destroy(&b->remote.control);
    zsock_destroy(&b->remote.door);
}
