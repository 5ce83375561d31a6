//  decode.h - the decode thread's work on one attempt
//
//  Load and check the job, find what is kept already, choose the VAE, then decode the
//  missing images one by one and hand each to the pool.

#ifndef LUNA_WORKER_DECODE_H
#define LUNA_WORKER_DECODE_H

#include "decoder/sink/sink.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/models.h"
#include "decoder/worker/pool.h"
#include "decoder/worker/registry.h"

typedef struct luna_decode {
    luna_attempt *attempt;  //  held by the caller
    luna_attempts *attempts;
    luna_registry *registry;
    luna_models *models;
    luna_sink *sink;
    luna_pool *pool;
} luna_decode;

//  Returns when every image is decoded or the attempt is over; images may still be
//  with the pool. An error is the attempt's.
LUNA_MUST_USE luna_err luna_decode_attempt(const luna_decode *decode);

#endif
