//  home.h - where Luna lives on this machine
//
//  LUNA_HOME=DIR puts everything under DIR (run, state, spool, output, luna.conf).
//  Else systemd's RUNTIME_DIRECTORY and STATE_DIRECTORY, else for root /run/luna
//  and /var/lib/luna, else for a user $XDG_RUNTIME_DIR/luna and
//  $XDG_STATE_HOME/luna (or below the home folder ~/.cache/luna, ~/.local/state/luna),
//  with ~/luna-output for pictures and $XDG_CONFIG_HOME/luna/luna.conf (~/.config).
//  Services and root read /etc/luna/luna.conf and keep pictures in STATE/output.

#ifndef LUNA_COMMON_HOME_H
#define LUNA_COMMON_HOME_H

#include "common/err.h"

#include <stddef.h>

#define LUNA_HOME_BYTES 1024

typedef struct luna_home {
    char run[LUNA_HOME_BYTES];     //  sockets
    char state[LUNA_HOME_BYTES];   //  store
    char spool[LUNA_HOME_BYTES];   //  payload files
    char output[LUNA_HOME_BYTES];  //  pictures, when nothing else is configured
    char config[LUNA_HOME_BYTES];  //  luna.conf
} luna_home;

//  Reads the environment; makes nothing. LUNA_CONFIG when no home can be told.
LUNA_MUST_USE luna_err luna_home_find(luna_home *out);

//  The folder for what can be made again: LUNA_HOME/cache, else systemd's
//  CACHE_DIRECTORY, else $XDG_CACHE_HOME/luna, else ~/.cache/luna. Makes nothing.
//  LUNA_CONFIG when none can be told.
LUNA_MUST_USE luna_err luna_home_cache(char *out, size_t room);

//  The control endpoint a client should try: LUNA_BROKER, else the socket in this
//  home, else the system-wide one when only that exists. `room` bytes at `out`.
LUNA_MUST_USE luna_err luna_home_control(char *out, size_t room);

//  The file of a client's own key, for brokers on other machines: LUNA_KEY_FILE, else
//  client.key among the state. Makes nothing.
LUNA_MUST_USE luna_err luna_home_key(char *out, size_t room);

//  The host's identity: machine id and boot id; equal for two processes exactly
//  when they run on the same running host. At most 80 bytes.
void luna_home_host(char out[80]);

//  Refuses an ipc:// endpoint longer than the kernel's 107 bytes with a sentence
//  that says to choose a shorter LUNA_HOME; accepts any other endpoint.
LUNA_MUST_USE luna_err luna_endpoint_check(const char *endpoint);

#endif
