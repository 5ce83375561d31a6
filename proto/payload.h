//  payload.h - the payload file: a job's own bytes behind a checked header
//
//  offset  bytes  field (little-endian)
//       0      8  magic "LUNAJOB1"
//       8      4  header bytes, 64
//      12      4  zero
//      16     16  job id
//      32      8  body bytes
//      40      8  XXH3-64 of the body
//      48      8  wall clock at acceptance in ms since 1970 UTC; 0: not known
//      56      8  XXH3-64 of bytes 0 to 55
//      64         body: the job message as it came (proto/codec.h)
//
//  Pure functions over memory; the broker writes such files, a decoder maps them.

#ifndef LUNA_PROTO_PAYLOAD_H
#define LUNA_PROTO_PAYLOAD_H

#include "proto/message.h"

#define LUNA_PAYLOAD_HEADER_BYTES 64

typedef struct luna_payload {
    luna_id id;
    uint64_t accepted_ms;
    luna_blob body;  //  borrowed from the file's bytes
    uint64_t hash;   //  XXH3-64 that the header claims for the body
} luna_payload;

//  Writes the header that goes before `payload->body`, whose bytes are not touched:
//  `hash` must be theirs.
void luna_payload_header(const luna_payload *payload,
                         uint8_t header[LUNA_PAYLOAD_HEADER_BYTES]);

//  Reads and checks the header and the length of a whole file in memory; the body's
//  hash is not computed and its bytes are not touched. LUNA_IO with a sentence
//  ("damaged: ...") on any mismatch.
LUNA_MUST_USE luna_err luna_payload_open(const void *file, size_t len, luna_payload *out);

//  Computes the body's hash. LUNA_IO if it is not the header's.
LUNA_MUST_USE luna_err luna_payload_verify(const luna_payload *payload);

//  XXH3-64 of a body, about 10 GB/s from memory.
uint64_t luna_payload_hash(luna_blob body);

//  The same hash of a body that comes in pieces. NULL when memory runs out; start,
//  any number of pieces, end, and it can start again.
typedef struct luna_payload_sum luna_payload_sum;
luna_payload_sum *luna_payload_sum_new(void);
void luna_payload_sum_start(luna_payload_sum *sum);
void luna_payload_sum_add(luna_payload_sum *sum, const void *data, size_t len);
uint64_t luna_payload_sum_end(const luna_payload_sum *sum);
void luna_payload_sum_free(luna_payload_sum **sum);

#endif
