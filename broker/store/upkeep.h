//  upkeep.h - what the store's thread does when no operation waits
//
//  The log is synced soon after a PUT, so that a power loss leaves few payloads to be
//  verified at the next open; and it is moved into the database long before it is full,
//  so that no operation waits for that. Both are done in a pause, and after a batch when
//  there was no pause for too long. A ballast that was spent is set aside again as soon
//  as there is room.

#ifndef LUNA_BROKER_STORE_UPKEEP_H
#define LUNA_BROKER_STORE_UPKEEP_H

#include "broker/store/batch.h"

//  Milliseconds of rest after which luna_upkeep_run is worth it; 0: at once, whoever
//  waits; -1: there is nothing to do.
int luna_upkeep_due_ms(const luna_engine *engine);

//  Does it. A sync that fails makes the store read-only.
void luna_upkeep_run(luna_engine *engine);

#endif
