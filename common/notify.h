//  notify.h - telling systemd how the service is, without libsystemd
//
//  One datagram to the socket in NOTIFY_SOCKET; without that variable (no systemd,
//  or not Type=notify) every call does nothing. A state that cannot be sent is
//  dropped: a service never fails because nobody listens. Thread-safe.

#ifndef LUNA_COMMON_NOTIFY_H
#define LUNA_COMMON_NOTIFY_H

#include "common/err.h"

#include <stdint.h>

//  Sends lines of sd_notify(3): "READY=1", "STATUS=...", "STOPPING=1", "WATCHDOG=1".
//  Cut at 511 bytes.
void luna_notify(const char *format, ...) LUNA_PRINTF(1, 2);

//  How often WATCHDOG=1 must be sent, half of what WatchdogSec= allows, in ms;
//  0 when no watchdog is set for this process.
int64_t luna_notify_watchdog_ms(void);

#endif
