//  remote.h - the broker's sockets for other machines
//
//  Beside those of this machine, with the same work: control on the first port, intake
//  and events on the next two, slots on those after. All of them encrypt, and take only
//  peers whose public key a file lists; it is read anew for each connection. A listed
//  peer may do all that one of this machine may. Loop thread only.

#ifndef LUNA_BROKER_REMOTE_H
#define LUNA_BROKER_REMOTE_H

#include "broker/slot.h"
#include "common/address.h"

enum { LUNA_REMOTE_SLOTS = 100, LUNA_REMOTE_PORTS = 3 + LUNA_REMOTE_SLOTS };

typedef struct luna_remote {
    zsock_t *control;  //  NULL, as the next two: there is no remote setting
    zsock_t *intake;
    zsock_t *events;
    zsock_t *door;  //  where ZeroMQ asks whether a peer may come in (ZAP)
    char bound[3][LUNA_ENDPOINT_BYTES];  //  of control, intake and events
    bool shut;                           //  nobody can connect: see luna_door_watch
    luna_key_pair keys;
    luna_slot_namer namer;
    char slots[LUNA_ENDPOINT_BYTES];  //  that it begins at
    luna_key refused;  //  the latest, which need not be told again and again
    int64_t refused_ms;
} luna_remote;

//  The setting [broker] remote: tcp://ADDRESS:FIRSTPORT. LUNA_CONFIG.
LUNA_MUST_USE luna_err luna_remote_check(const char *base);

//  The endpoint `offset` ports after the first.
void luna_remote_endpoint(const char *base, unsigned offset, char *out, size_t room);

//  What a peer is told of an endpoint: its port, on the host by which it came.
void luna_remote_told(const char *endpoint, char *out, size_t room);

//  Whether the file lists the key: one a line, 64 hexadecimal digits, then what you
//  like; lines that begin otherwise are passed over. No file: nobody.
bool luna_remote_is_listed(const char *path, const luna_key *key);

#endif
