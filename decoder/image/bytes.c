#include "decoder/image/bytes.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 256

//  To at least `need`, and then by doubling.
static bool grow(luna_bytes *bytes, size_t need)
{
    size_t room = bytes->room ? bytes->room : FIRST_ROOM;
    if (need <= bytes->room) return true;
    if (__builtin_mul_overflow(room, (size_t)2, &room) || room < need) room = need;
    uint8_t *data = realloc(bytes->data, room);
    if (!data) return false;
    bytes->data = data;
    bytes->room = room;
    return true;
}

void luna_bytes_reserve(luna_bytes *bytes, size_t more)
{
    size_t need;
    if (bytes->failed) return;
    if (!__builtin_add_overflow(bytes->len, more, &need) && grow(bytes, need)) return;
    luna_bytes_free(bytes);
    bytes->failed = true;
}

void luna_bytes_put(luna_bytes *bytes, const void *data, size_t len)
{
    if (len == 0) return;
    luna_bytes_reserve(bytes, len);
    if (bytes->failed) return;
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

void luna_bytes_text(luna_bytes *bytes, const char *text)
{
    luna_bytes_put(bytes, text, strlen(text));
}

void luna_bytes_be16(luna_bytes *bytes, uint32_t value)
{
    const uint8_t at[] = {(uint8_t)(value >> 8), (uint8_t)value};
    luna_bytes_put(bytes, at, sizeof at);
}

void luna_bytes_be32(luna_bytes *bytes, uint32_t value)
{
    luna_bytes_be16(bytes, value >> 16);
    luna_bytes_be16(bytes, value & 0xFFFF);
}

void luna_bytes_le32(luna_bytes *bytes, uint32_t value)
{
    const uint8_t at[] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                          (uint8_t)(value >> 24)};
    luna_bytes_put(bytes, at, sizeof at);
}

void luna_bytes_free(luna_bytes *bytes)
{
    free(bytes->data);
    *bytes = (luna_bytes){0};
}

luna_err luna_bytes_end(const luna_bytes *bytes, const char *what)
{
    return bytes->failed ? luna_error(LUNA_NO_MEMORY, "no memory for %s", what) : LUNA_OK;
}

uint32_t luna_read_be16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

uint32_t luna_read_be32(const uint8_t *at)
{
    return luna_read_be16(at) << 16 | luna_read_be16(at + 2);
}

uint32_t luna_read_le32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
