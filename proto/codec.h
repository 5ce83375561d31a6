//  codec.h - messages to bytes and back, over msgpack
//
//  A message is one msgpack map: {"luna": 1, "type": TYPE, fields...}. Packing is
//  done in place into memory sized beforehand, so a job's tensors are copied once.
//  Unpacking copies nothing: texts and bytes are pointers into the buffer.
//  Pure functions: no sockets, no clocks, no globals. Any bytes may be given to
//  luna_packet_open; what it takes from a hostile peer is bounded by the buffer's
//  own length.

#ifndef LUNA_PROTO_CODEC_H
#define LUNA_PROTO_CODEC_H

#include "proto/message.h"

//  A received message. Borrows the buffer it was opened on.
typedef struct luna_packet luna_packet;

//  Checks the framing (one map, nothing after it, depth, counts against the bytes
//  there are), the version and the type. The caller closes *out. Errors:
//  LUNA_PROTOCOL with a sentence; LUNA_UNSUPPORTED for another major version;
//  LUNA_NO_MEMORY. Cost: microseconds, whatever the payload's size.
LUNA_MUST_USE luna_err luna_packet_open(const void *data, size_t len, luna_packet **out);

//  The id under a key of the map, whatever else is wrong with the message (its
//  version, its type, other fields): so that a refusal finds its way. False when the
//  bytes are no map or it has no such id.
bool luna_packet_peek_id(const void *data, size_t len, const char *key, luna_id *out);

luna_msg_type luna_packet_type(const luna_packet *packet);

//  Fills the struct of the packet's type. Unknown keys are passed over, a missing
//  required field, a wrong kind or a value over its limit is LUNA_BAD_REQUEST
//  naming the field. `out` is set on LUNA_OK only; its parts live until
//  luna_packet_close and the buffer's end.
LUNA_MUST_USE luna_err luna_packet_read(luna_packet *packet, void *out);

//  Frees the packet and every list of messages read from it; nulls the pointer.
void luna_packet_close(luna_packet **packet);

//  The bytes luna_msg_encode will write; 0 if the message cannot be encoded
//  (a required text is absent).
size_t luna_msg_size(luna_msg_type type, const void *msg);

//  Writes the message; `room` must be at least luna_msg_size. Optional fields that
//  equal their default are left out. LUNA_BAD_REQUEST naming the field when a
//  required one is absent or a limit is exceeded, LUNA_TOO_LARGE when `room` is
//  too small. *used: bytes written.
LUNA_MUST_USE luna_err luna_msg_encode(luna_msg_type type, const void *msg, void *buf,
                                       size_t room, size_t *used);

//  A number of 64 bits that tells whether two messages say the same, whatever bytes
//  they came in: XXH3 of the encoded message, where a run of 64 KiB or more counts by
//  its length and 16 KiB each of its beginning, middle and end. 0: it cannot be encoded,
//  or memory is short. Costs microseconds, whatever the size.
uint64_t luna_msg_sum(luna_msg_type type, const void *msg);

//  Sizes, allocates and encodes; the caller frees *out.
LUNA_MUST_USE luna_err luna_msg_pack(luna_msg_type type, const void *msg, void **out,
                                     size_t *len);

#endif
