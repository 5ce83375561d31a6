//  metadata.h - the texts that go into an image file, in their order
//
//      prompt, workflow      the job's own bytes; ComfyUI restores a graph from them
//      each key of `extra`   extra_pnginfo beyond the workflow
//      generation_metadata   the job's metadata as JSON
//      gen_<key>             each member of it by itself: a string's text, else JSON
//      image_type            the input's affix
//      model_name, custom_metadata
//      save_timestamp        the time the job was made, ISO 8601, so every attempt's
//      batch_index           when the batch has more than one image
//
//  Nothing at all when the job's embed_workflow is false. What is absent or empty is
//  left out. A text that a PNG cannot hold (a NUL, bytes that are not UTF-8, an odd or
//  repeated keyword) is left out and logged: it must not cost the picture.

#ifndef LUNA_WORKER_METADATA_H
#define LUNA_WORKER_METADATA_H

#include "common/arena.h"
#include "decoder/image/png_chunks.h"
#include "proto/message.h"

#define LUNA_METADATA_MAX 512  //  texts of one image

typedef struct luna_metadata {
    luna_png_text texts[LUNA_METADATA_MAX];  //  borrow the job and `memory`
    size_t count;
    luna_arena memory;
} luna_metadata;

//  Fills `out`, which the caller gives back with luna_arena_free(&out->memory), also
//  after an error. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_metadata_collect(const luna_msg_job *job, size_t input,
                                             size_t index, luna_metadata *out);

#endif
