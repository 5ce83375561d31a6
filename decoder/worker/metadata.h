//  metadata.h - the texts that belong to an image, in their order
//
//      prompt, workflow      the job's own bytes; ComfyUI restores a graph from them
//      each key of `extra`   extra_pnginfo beyond the workflow
//      parameters            when the job asks for it and `extra` has none (parameters.h)
//      generation_metadata   the job's metadata as JSON
//      gen_<key>             each member of it by itself: a string's text, else JSON
//      image_type            the input's affix
//      model_name            without folders and extension, as %model_name%
//      model_path            with its folders, as %model_path%
//      custom_metadata
//      save_timestamp        the time the job was made, ISO 8601, so every attempt's
//      batch_index           from 0
//      daam_heatmaps         where the model looked for the prompts' words (heatmaps.h),
//                            for a picture or a sidecar that keeps texts
//
//  What is absent or empty is left out. A text that a PNG cannot hold (a NUL, bytes that
//  are not UTF-8, an odd or repeated keyword) is left out and logged: it must not cost
//  the picture.

#ifndef LUNA_WORKER_METADATA_H
#define LUNA_WORKER_METADATA_H

#include "common/arena.h"
#include "decoder/image/embed.h"
#include "proto/message.h"

#define LUNA_METADATA_MAX LUNA_EMBED_TEXTS_MAX

typedef struct luna_metadata {
    luna_image_text texts[LUNA_METADATA_MAX];  //  borrow the job and `memory`
    size_t count;
    luna_arena memory;
} luna_metadata;

//  The image that they are about.
typedef struct luna_metadata_of {
    const luna_msg_job *job;
    size_t input;
    size_t index;  //  place in the batch
    size_t width;  //  pixels
    size_t height;
} luna_metadata_of;

//  Fills `out`, which the caller gives back with luna_arena_free(&out->memory), also
//  after an error. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_metadata_collect(const luna_metadata_of *of,
                                             luna_metadata *out);

//  The texts as a JSON object of strings, a member a line; a JSON document among them is
//  a string too, so that its bytes stay. *out, *len bytes, lives in `memory`.
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_metadata_json(luna_metadata *metadata, const char **out,
                                          size_t *len);

#endif
