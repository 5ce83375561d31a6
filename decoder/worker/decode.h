//  decode.h - the decode thread's work on one attempt
//
//  First load and check the job, find what is kept already and choose the VAE; then,
//  when the VAE is in memory, decode the missing images one by one and hand each to the
//  pool. Between the two an attempt may be parked.

#ifndef LUNA_WORKER_DECODE_H
#define LUNA_WORKER_DECODE_H

#include "decoder/sink/sink.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/hashes.h"
#include "decoder/worker/models.h"
#include "decoder/worker/pool.h"
#include "decoder/worker/registry.h"
#include "decoder/worker/takes.h"

typedef struct luna_decode_tools {
    luna_attempts *attempts;
    luna_registry *registry;
    luna_takes *takes;
    luna_models *models;
    luna_hashes *hashes;
    luna_sink *sink;
    luna_pool *pool;
} luna_decode_tools;

typedef struct luna_decode luna_decode;

//  The first part. Without an error *out is for luna_decode_run; an error is the
//  attempt's.
LUNA_MUST_USE luna_err luna_decode_open(const luna_decode_tools *tools,
                                        luna_attempt *attempt, luna_decode **out);

//  Over when its VAE is in memory or cannot be; a decode that needs none never waits.
luna_parking *luna_decode_parking(luna_decode *decode);
luna_decode *luna_decode_of(luna_parking *parking);

//  The second part. Returns when every image is decoded or the attempt is over; images
//  may still be with the pool, and the hash of the VAE's file on its way. An error is the
//  attempt's.
LUNA_MUST_USE luna_err luna_decode_run(luna_decode *decode);

//  Lets the VAE go; nulls the pointer, NULL is fine.
void luna_decode_close(luna_decode **decode);

#endif
