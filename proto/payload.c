#include "proto/payload.h"

#include <string.h>
#include <xxhash.h>

static const char magic[8] = {'L', 'U', 'N', 'A', 'J', 'O', 'B', '1'};

enum { AT_HEADER_LEN = 8, AT_ID = 16, AT_BODY_LEN = 32, AT_BODY_HASH = 40, AT_HASH = 56 };

static void put_le(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

static uint64_t hash_of(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

void luna_payload_header(const luna_id *id, luna_blob body,
                         uint8_t header[LUNA_PAYLOAD_HEADER_BYTES])
{
    memset(header, 0, LUNA_PAYLOAD_HEADER_BYTES);
    memcpy(header, magic, sizeof magic);
    put_le(header + AT_HEADER_LEN, LUNA_PAYLOAD_HEADER_BYTES, 4);
    memcpy(header + AT_ID, id->byte, LUNA_ID_BYTES);
    put_le(header + AT_BODY_LEN, body.len, 8);
    put_le(header + AT_BODY_HASH, hash_of(body.data, body.len), 8);
    put_le(header + AT_HASH, hash_of(header, AT_HASH), 8);
}

static luna_err damaged(const char *what)
{
    return luna_error(LUNA_IO, "damaged payload: %s", what);
}

luna_err luna_payload_open(const void *file, size_t len, luna_payload *out)
{
    const uint8_t *header = file;
    if (len < LUNA_PAYLOAD_HEADER_BYTES) return damaged("shorter than its header");
    if (memcmp(header, magic, sizeof magic) != 0) return damaged("not a payload file");
    if (get_le(header + AT_HASH, 8) != hash_of(header, AT_HASH))
        return damaged("the header's checksum is wrong");
    if (get_le(header + AT_HEADER_LEN, 4) != LUNA_PAYLOAD_HEADER_BYTES)
        return damaged("written by another version");
    if (get_le(header + AT_BODY_LEN, 8) != len - LUNA_PAYLOAD_HEADER_BYTES)
        return damaged("its length is not the header's");
    memcpy(out->id.byte, header + AT_ID, LUNA_ID_BYTES);
    out->body = (luna_blob){.data = header + LUNA_PAYLOAD_HEADER_BYTES,
                            .len = len - LUNA_PAYLOAD_HEADER_BYTES};
    out->hash = get_le(header + AT_BODY_HASH, 8);
    return LUNA_OK;
}

luna_err luna_payload_verify(const luna_payload *payload)
{
    if (hash_of(payload->body.data, payload->body.len) == payload->hash) return LUNA_OK;
    return damaged("the body's checksum is wrong");
}
