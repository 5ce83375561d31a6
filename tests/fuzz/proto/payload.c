//  payload.c - any bytes as a payload file, and payload files with one thing changed
//
//  A sealed file opens and verifies; the same file with any byte changed, cut or
//  lengthened does not. A header may also lie under a right checksum.

#include "fuzz/fuzz.h"
#include "proto/payload.h"

static void open_raw(luna_blob bytes)
{
    luna_payload payload;
    void *file = fuzz_copy(bytes.data, bytes.len);
    const luna_err err = luna_payload_open(file, bytes.len, &payload);
    if (err != LUNA_OK) {
        CHECK(err == LUNA_IO);
        fuzz_check_error(err);
    } else {
        CHECK(payload.body.len == bytes.len - LUNA_PAYLOAD_HEADER_BYTES);
        const luna_err sound = luna_payload_verify(&payload);
        CHECK(sound == LUNA_OK || sound == LUNA_IO);
    }
    free(file);
}

static uint8_t *sealed(const luna_id *id, luna_blob body)
{
    uint8_t *file = malloc(LUNA_PAYLOAD_HEADER_BYTES + body.len + 1);
    CHECK(file);
    const luna_payload payload = {.id = *id,
                                  .accepted_ms = body.len,
                                  .body = body,
                                  .hash = luna_payload_hash(body)};
    luna_payload_header(&payload, file);
    if (body.len) memcpy(file + LUNA_PAYLOAD_HEADER_BYTES, body.data, body.len);
    return file;
}

static bool is_sound(const void *file, size_t len)
{
    luna_payload payload;
    return luna_payload_open(file, len, &payload) == LUNA_OK &&
           luna_payload_verify(&payload) == LUNA_OK;
}

static void change_one(const luna_id *id, luna_blob body, size_t at, uint8_t with)
{
    uint8_t *file = sealed(id, body);
    const size_t len = LUNA_PAYLOAD_HEADER_BYTES + body.len;
    luna_payload payload;
    CHECK(luna_payload_open(file, len, &payload) == LUNA_OK);
    CHECK(luna_id_compare(&payload.id, id) == 0 && payload.body.len == body.len);
    CHECK(payload.accepted_ms == body.len);
    CHECK(luna_payload_verify(&payload) == LUNA_OK);
    CHECK(!is_sound(file, at % len));  //  cut
    file[len] = with;
    CHECK(!is_sound(file, len + 1));
    file[at % len] ^= with;
    CHECK(is_sound(file, len) == (with == 0));
    free(file);
}

//  What a header says, with its checksum made right.
static void open_lying(luna_blob header, luna_blob body)
{
    uint8_t *file = sealed(&(luna_id){{1}}, body);
    const size_t used = header.len < 56 ? header.len : 56;
    for (size_t i = 0; i < used; i++) file[i] ^= ((const uint8_t *)header.data)[i];
    const uint64_t hash = luna_payload_hash((luna_blob){file, 56});
    memcpy(file + 56, &hash, sizeof hash);
    open_raw((luna_blob){file, LUNA_PAYLOAD_HEADER_BYTES + body.len});
    free(file);
}

//  In pieces a body has the hash it has as a whole.
static void sum_up(size_t piece, luna_blob body)
{
    luna_payload_sum *sum = luna_payload_sum_new();
    const uint8_t *at = body.data;
    CHECK(sum);
    for (int again = 0; again < 2; again++) {
        luna_payload_sum_start(sum);
        for (size_t i = 0; i < body.len; i += piece)
            luna_payload_sum_add(sum, at + i,
                                 body.len - i < piece ? body.len - i : piece);
        CHECK(luna_payload_sum_end(sum) == luna_payload_hash(body));
    }
    luna_payload_sum_free(&sum);
    CHECK(!sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    const uint64_t way = fuzz_below(&from, 3);
    if (way == 1) open_raw(fuzz_rest(&from));
    if (way == 2) {
        const luna_blob header = fuzz_blob(&from, 56);
        open_lying(header, fuzz_rest(&from));
    }
    if (way != 0) return 0;
    luna_id id = {{0}};
    const luna_blob bytes = fuzz_blob(&from, LUNA_ID_BYTES);
    if (bytes.len) memcpy(id.byte, bytes.data, bytes.len);
    const size_t at = (size_t)fuzz_uint(&from, 2);
    const uint8_t with = (uint8_t)fuzz_uint(&from, 1);
    const luna_blob body = fuzz_rest(&from);
    sum_up((size_t)with + 1, body);
    change_one(&id, body, at, with);
    return 0;
}
