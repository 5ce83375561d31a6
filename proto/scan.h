//  scan.h - is this one well-formed msgpack value that is safe to unpack?
//
//  msgpack-c allocates what a header claims before it has seen the items. This scan
//  compares every claimed count with the bytes that are really there, so that a
//  message of a few bytes can never ask for gigabytes.

#ifndef LUNA_PROTO_SCAN_H
#define LUNA_PROTO_SCAN_H

#include "common/err.h"

#include <stddef.h>

#define LUNA_SCAN_MAX_DEPTH  8
#define LUNA_SCAN_MAX_VALUES 4000000  //  values in one message

//  LUNA_OK if `data` holds exactly one value within the limits, LUNA_PROTOCOL else.
LUNA_MUST_USE luna_err luna_scan(const void *data, size_t len);

#endif
