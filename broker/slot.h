//  slot.h - one bound PUSH socket that leads to exactly one decoder session
//
//  A slot's endpoint is new for every session (ipc: a number never used again in
//  this epoch, with the epoch's tag; tcp: the port unused for longest), so that a
//  decoder that was given up cannot take another one's work. Closing drops what is
//  still in the pipe, on purpose: it belongs to attempts that are given back.
//  Loop thread only.

#ifndef LUNA_BROKER_SLOT_H
#define LUNA_BROKER_SLOT_H

#include "broker/fleet.h"
#include "common/address.h"

#include <czmq.h>

#define LUNA_PEER_BYTES 255  //  longest routing id

//  A routing id of the control socket.
typedef struct luna_peer {
    uint8_t id[LUNA_PEER_BYTES];
    uint8_t len;  //  0: nobody
} luna_peer;

bool luna_peer_equal(const luna_peer *a, const luna_peer *b);

typedef struct luna_slot {
    uint32_t session;
    luna_peer peer;  //  the control connection of the same decoder
    char endpoint[256];
    zsock_t *push;
    void *monitor;                            //  PAIR that tells of connections
    bool connected;                           //  the decoder has been here
    bool remote;                              //  anybody may knock: see below
    bool wants_out;                           //  the loop polls `push` for room
    luna_msg_job_key outbox[LUNA_HOLDS_MAX];  //  durable attempts not yet sent
    size_t outbox_count;
} luna_slot;

//  Where the next slot is to be bound.
typedef struct luna_slot_namer {
    const char *base;           //  borrowed; setting [broker] slots
    char tag[8];                //  of this epoch
    uint32_t count;             //  slots made so far
    uint32_t ports;             //  of a tcp base, used in turn; 0: a thousand
    const luna_key_pair *keys;  //  for other machines; NULL: for this one
} luna_slot_namer;

//  LUNA_CANT_CREATE, LUNA_BUSY, LUNA_NO_MEMORY; then nothing is left behind.
LUNA_MUST_USE luna_err luna_slot_open(luna_slot_namer *namer, luna_slot **out);

//  Closes the sockets, removes the socket file, nulls the pointer.
void luna_slot_close(luna_slot **slot);

//  Reads one event of the monitor; notes the first connection. True: the decoder's
//  connection broke. Never of a remote slot, where it may have been somebody's who did
//  not get in: `connected` is false then, and silence decides.
bool luna_slot_disconnected(luna_slot *slot);

//  Removes leftover slot files of earlier epochs from an ipc:// base's folder.
void luna_slot_sweep(const char *base);

#endif
