//  parameters.h - generation metadata as AUTOMATIC1111 writes it, for Civitai and
//  indexers
//
//      <positive>
//      Negative prompt: <negative>
//      Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 1024x1024,
//      Model hash: <10 hex digits>, Model: <name>, Denoising strength: 0.5,
//      Clip skip: 2, Version: ComfyUI
//
//  in three lines. What the metadata lacks is left out. Seeds and other numbers are the
//  metadata's own digits. Keys: positive or prompt, negative or negative_prompt, steps,
//  sampler_name or sampler, scheduler, cfg or cfg_scale, seed, model_hash, model_name or
//  model, denoise (when it is not 1), clip_skip.

#ifndef LUNA_WORKER_PARAMETERS_H
#define LUNA_WORKER_PARAMETERS_H

#include "common/arena.h"
#include "proto/message.h"

//  *out lives in `memory`; empty when the metadata is no JSON object or has none of the
//  keys. `width` and `height` are the picture's, in pixels. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_parameters_make(luna_blob metadata, size_t width,
                                            size_t height, luna_arena *memory,
                                            luna_text *out);

#endif
