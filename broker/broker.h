//  broker.h - the broker: one loop thread that owns all state
//
//  Opens the store, binds control, intake and events, starts the HTTP thread, and
//  serves until it is told to stop. The store's thread does the disk work; what it
//  has finished comes back through an eventfd. Nothing is shared, so nothing is
//  locked.

#ifndef LUNA_BROKER_BROKER_H
#define LUNA_BROKER_BROKER_H

#include "broker/settings.h"

//  Serves until `signal_fd` (a signalfd, or an eventfd) polls readable; then takes no
//  more jobs, waits at most stop_grace_ms for attempts in decoders' hands, and flushes
//  the store. A second event on signal_fd ends the wait. What is still running survives:
//  decoders tell the next broker. Nothing a peer does ends it. A SIGHUP on the signalfd
//  reads the settings again from `config` (NULL: the usual place).
//
//  Returns LUNA_OK after an orderly stop. At the start, with nothing left behind:
//  LUNA_BUSY (another broker), LUNA_CANT_CREATE, LUNA_CONFIG, LUNA_UNAVAILABLE (HTTP
//  address), LUNA_IO, LUNA_NO_SPACE, LUNA_NO_MEMORY, each with a sentence.
//  Process-wide: uses czmq's context; one at a time.
LUNA_MUST_USE luna_err luna_broker_run(const luna_settings *settings, const char *config,
                                       int signal_fd);

//  Rebuilds the jobs from the spool folder, with nothing served meanwhile: a damaged
//  database is moved aside. `active` gets how many jobs wait now. Errors as
//  luna_store_open; each repair is one line in the log.
LUNA_MUST_USE luna_err luna_broker_recover(const luna_settings *settings, size_t *active);

#endif
