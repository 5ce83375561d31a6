//  bytes.h - a block of bytes that grows, and numbers in both byte orders
//
//  Used by the metadata writers. A failed allocation is remembered and told once, by
//  luna_bytes_end, so that writers need not check every step.

#ifndef LUNA_IMAGE_BYTES_H
#define LUNA_IMAGE_BYTES_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct luna_bytes {
    uint8_t *data;  //  malloc'd
    size_t len;
    size_t room;
    bool failed;  //  memory ran out; `data` is NULL
} luna_bytes;     //  ready for use when zeroed

//  Room for so many more, so that it need not grow by and by.
void luna_bytes_reserve(luna_bytes *bytes, size_t more);
void luna_bytes_put(luna_bytes *bytes, const void *data, size_t len);
void luna_bytes_text(luna_bytes *bytes, const char *text);  //  without its NUL
void luna_bytes_be16(luna_bytes *bytes, uint32_t value);
void luna_bytes_be32(luna_bytes *bytes, uint32_t value);
void luna_bytes_le32(luna_bytes *bytes, uint32_t value);
void luna_bytes_free(luna_bytes *bytes);

//  LUNA_NO_MEMORY, with `what` in its sentence, when a step before failed.
LUNA_MUST_USE luna_err luna_bytes_end(const luna_bytes *bytes, const char *what);

uint32_t luna_read_be16(const uint8_t *at);
uint32_t luna_read_be32(const uint8_t *at);
uint32_t luna_read_le32(const uint8_t *at);

#endif
