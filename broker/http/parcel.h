//  parcel.h - an encoded message on its way to the broker
//
//  Encoded once, in memory that ZeroMQ then sends without copying and frees in
//  whatever thread is last with it.

#ifndef LUNA_BROKER_HTTP_PARCEL_H
#define LUNA_BROKER_HTTP_PARCEL_H

#include "broker/http/held.h"
#include "proto/codec.h"

typedef struct luna_parcel luna_parcel;

//  Encodes `msg`. LUNA_BUSY when `held` has no room for it, LUNA_NO_MEMORY, or
//  luna_msg_encode's errors. The caller sends or frees *out.
LUNA_MUST_USE luna_err luna_parcel_pack(luna_held *held, luna_msg_type type,
                                        const void *msg, luna_parcel **out);

//  Hands the parcel to a ZeroMQ socket (the raw one) without waiting and nulls the
//  pointer. LUNA_BUSY when the socket's queue is full, LUNA_UNAVAILABLE else; the
//  parcel is then freed too. Thread: the socket's.
LUNA_MUST_USE luna_err luna_parcel_send(luna_parcel **parcel, void *socket);

void luna_parcel_free(luna_parcel *parcel);

#endif
