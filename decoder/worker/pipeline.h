//  pipeline.h - attempts in, image files out
//
//  One decode thread takes the attempts in their order and decodes image by image; one
//  whose VAE has to be loaded first stands aside, and those after it go on. Its pixels go
//  to a pool of encode threads. While the last images of an attempt are encoded, the next
//  attempt decodes. An image that is kept already is not decoded. Memory: one picture
//  being decoded and what the pool may hold.

#ifndef LUNA_WORKER_PIPELINE_H
#define LUNA_WORKER_PIPELINE_H

#include "decoder/sink/sink.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/models.h"
#include "decoder/worker/registry.h"

typedef struct luna_pipeline_options {
    luna_attempts *attempts;  //  all borrowed, and longer-lived
    luna_registry *registry;
    luna_models *models;
    luna_sink *sink;
    const char *hash_cache;  //  as in luna_hashes_options
    size_t encode_threads;   //  at least 1
    size_t pixels_max;       //  bytes of decoded pictures in memory
} luna_pipeline_options;

typedef struct luna_pipeline luna_pipeline;

//  Starts the threads. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_pipeline_start(const luna_pipeline_options *options,
                                           luna_pipeline **out);

//  After luna_attempts_stop: have the threads finished what was in hand? The list of
//  attempts wakes its descriptor when they have.
bool luna_pipeline_is_idle(const luna_pipeline *pipeline);

//  The device failed, and the process should be replaced.
bool luna_pipeline_is_broken(const luna_pipeline *pipeline);

//  The process ends without it: nobody will wait for its thread.
void luna_pipeline_leave(const luna_pipeline *pipeline);

//  After luna_attempts_stop: waits for the threads, frees, nulls the pointer.
void luna_pipeline_stop(luna_pipeline **pipeline);

#endif
