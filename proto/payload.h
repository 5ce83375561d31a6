//  payload.h - the payload file: a job's own bytes behind a checked header
//
//  offset  bytes  field (little-endian)
//       0      8  magic "LUNAJOB1"
//       8      4  header bytes, 64
//      12      4  zero
//      16     16  job id
//      32      8  body bytes
//      40      8  XXH3-64 of the body
//      48      8  zero
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
    luna_blob body;  //  borrowed from the file's bytes
    uint64_t hash;   //  XXH3-64 that the header claims for the body
} luna_payload;

//  Writes the header that goes before `body`.
void luna_payload_header(const luna_id *id, luna_blob body,
                         uint8_t header[LUNA_PAYLOAD_HEADER_BYTES]);

//  Reads and checks the header and the length of a whole file in memory; the body's
//  hash is not computed and its bytes are not touched. LUNA_IO with a sentence
//  ("damaged: ...") on any mismatch.
LUNA_MUST_USE luna_err luna_payload_open(const void *file, size_t len, luna_payload *out);

//  Computes the body's hash, about 10 GB/s. LUNA_IO if it is not the header's.
LUNA_MUST_USE luna_err luna_payload_verify(const luna_payload *payload);

#endif
