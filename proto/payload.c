#include "proto/payload.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char magic[8] = {'L', 'U', 'N', 'A', 'J', 'O', 'B', '1'};

enum {
    AT_HEADER_LEN = 8,
    AT_ID = 16,
    AT_BODY_LEN = 32,
    AT_BODY_HASH = 40,
    AT_ACCEPTED = 48,
    AT_HASH = 56
};

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

void luna_payload_header(const luna_payload *payload,
                         uint8_t header[LUNA_PAYLOAD_HEADER_BYTES])
{
    memset(header, 0, LUNA_PAYLOAD_HEADER_BYTES);
    memcpy(header, magic, sizeof magic);
    put_le(header + AT_HEADER_LEN, LUNA_PAYLOAD_HEADER_BYTES, 4);
    memcpy(header + AT_ID, payload->id.byte, LUNA_ID_BYTES);
    put_le(header + AT_BODY_LEN, payload->body.len, 8);
    put_le(header + AT_BODY_HASH, payload->hash, 8);
    put_le(header + AT_ACCEPTED, payload->accepted_ms, 8);
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
    out->accepted_ms = get_le(header + AT_ACCEPTED, 8);
    return LUNA_OK;
}

luna_err luna_payload_verify(const luna_payload *payload)
{
    if (luna_payload_hash(payload->body) == payload->hash) return LUNA_OK;
    return damaged("the body's checksum is wrong");
}

//  ---- hashes ----------------------------------------------------------------------

uint64_t luna_payload_hash(luna_blob body)
{
    return hash_of(body.data, body.len);
}

//  The library's state wants an alignment that only its own allocator gives.
struct luna_payload_sum {
    XXH3_state_t *state;
};

luna_payload_sum *luna_payload_sum_new(void)
{
    luna_payload_sum *sum = calloc(1, sizeof *sum);
    if (!sum) return NULL;
    sum->state = XXH3_createState();
    if (!sum->state) luna_payload_sum_free(&sum);
    return sum;
}

void luna_payload_sum_start(luna_payload_sum *sum)
{
    XXH3_64bits_reset(sum->state);
}

void luna_payload_sum_add(luna_payload_sum *sum, const void *data, size_t len)
{
    XXH3_64bits_update(sum->state, data, len);
}

uint64_t luna_payload_sum_end(const luna_payload_sum *sum)
{
    return XXH3_64bits_digest(sum->state);
}

void luna_payload_sum_free(luna_payload_sum **sum_p)
{
    luna_payload_sum *sum = *sum_p;
    if (!sum) return;
    XXH3_freeState(sum->state);
    free(sum);
    *sum_p = NULL;
}
