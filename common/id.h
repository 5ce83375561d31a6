//  id.h - 128-bit ids: UUIDv7 for jobs, so that they sort by time (RFC 9562)

#ifndef LUNA_COMMON_ID_H
#define LUNA_COMMON_ID_H

#include "common/err.h"

#include <stdint.h>

#define LUNA_ID_BYTES      16
#define LUNA_ID_TEXT_BYTES 37  //  36 characters and the NUL

typedef struct luna_id {
    uint8_t byte[LUNA_ID_BYTES];
} luna_id;

//  A new UUIDv7 from the wall clock and the kernel's random numbers. Thread-safe.
luna_id luna_id_new(void);

//  Lower-case canonical text ("0193f1c2-...").
void luna_id_text(const luna_id *id, char text[LUNA_ID_TEXT_BYTES]);

//  Reads canonical text, either case. LUNA_BAD_REQUEST for anything else, with
//  *out unchanged. Any UUID version is taken: callers may bring their own ids.
LUNA_MUST_USE luna_err luna_id_parse(const char *text, luna_id *out);

//  Byte order, as memcmp.
int luna_id_compare(const luna_id *a, const luna_id *b);
bool luna_id_is_nil(const luna_id *id);

#endif
