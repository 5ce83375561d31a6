//  address.h - where a broker is, on this machine or another one, and the keys by which
//  both sides know each other
//
//  An address is what people write: ipc:///PATH or a tcp:// address of this machine's
//  loopback, or tcp://HOST:PORT?key=KEY, where KEY is the broker's public key. What goes
//  to another machine is encrypted (CURVE: Curve25519, with keys that are new for each
//  connection), and the broker takes nobody whose public key it does not list.
//  A key is written as 64 hexadecimal digits. Nothing here is kept; any thread.

#ifndef LUNA_COMMON_ADDRESS_H
#define LUNA_COMMON_ADDRESS_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LUNA_KEY_BYTES = 32, LUNA_KEY_TEXT_BYTES = 65, LUNA_ENDPOINT_BYTES = 512 };

typedef struct luna_key {
    uint8_t byte[LUNA_KEY_BYTES];
} luna_key;

typedef struct luna_key_pair {
    luna_key open;    //  public
    luna_key secret;  //  never leaves this machine
} luna_key_pair;

typedef struct luna_address {
    char endpoint[LUNA_ENDPOINT_BYTES];  //  what ZeroMQ connects to
    bool remote;                         //  the keys count
    luna_key broker;                     //  its public one
    luna_key_pair own;                   //  see luna_address_keys
} luna_address;

//  Whether a tcp:// endpoint stays on this machine: 127.0.0.0/8 or [::1], in
//  numbers.
bool luna_endpoint_is_loopback(const char *endpoint);

//  LUNA_CONFIG: none of the three, a path too long for a socket, no key where one is
//  needed.
LUNA_MUST_USE luna_err luna_address_parse(const char *text, luna_address *out);

//  Reads `own` of a remote address from the file, as luna_key_file does; NULL: the one
//  that luna_home_key names. Of an address of this machine nothing is read.
LUNA_MUST_USE luna_err luna_address_keys(luna_address *address, const char *key_file);

//  A broker tells peers of other machines where its other sockets are as tcp://*:PORT:
//  on the host by which they reached it. Anything else is copied. LUNA_CONFIG when it is
//  too long.
LUNA_MUST_USE luna_err luna_address_follow(const luna_address *broker,
                                           const char *endpoint, char *out, size_t room);

//  Connects to one of the broker's endpoints, with its keys where it has some.
//  LUNA_CONFIG: the endpoint cannot be; LUNA_UNAVAILABLE: see below.
LUNA_MUST_USE luna_err luna_address_connect(const luna_address *broker, void *socket,
                                            const char *endpoint);

void luna_key_text(const luna_key *key, char out[LUNA_KEY_TEXT_BYTES]);
//  Of the first 64 characters at `text`; false when they are no key.
bool luna_key_parse(const char *text, luna_key *out);

//  Reads the file; makes it, for its owner alone, with new keys when it is missing.
//  LUNA_CONFIG: it holds no key, or others may read it. LUNA_CANT_CREATE, LUNA_IO.
LUNA_MUST_USE luna_err luna_key_file(const char *path, luna_key_pair *out);

//  Before connect and before bind: ZeroMQ's options of a socket. LUNA_UNAVAILABLE when
//  this libzmq cannot encrypt.
LUNA_MUST_USE luna_err luna_keys_client(void *socket, const luna_key *broker,
                                        const luna_key_pair *own);
LUNA_MUST_USE luna_err luna_keys_server(void *socket, const luna_key_pair *own);

#endif
