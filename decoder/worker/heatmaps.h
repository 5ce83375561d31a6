//  heatmaps.h - an image's attention heatmaps (DAAM) as one JSON text
//
//      {"encoding": "base64 of gzip of float32, little-endian, rows from the top",
//       "positive": [{"token": "cat", "token_index": 5, "width": 64, "height": 64,
//                     "max_attention": 2.5, "mean_attention": 0.3, "total_attention":
//                     1240, "coverage_area": 0.15, "bbox": [12, 8, 20, 16], "heatmap":
//                     "H4sI..."}],
//       "negative": [...], "positive_modified": [...], "negative_modified": [...]}
//
//  The form is the one that Diffusion Toolkit documents; the modified sets have lists of
//  their own, since it knows one map for a token. A map's float32 values are kept bit for
//  bit. coverage_area is the share of places with at least half of the largest value,
//  bbox (x, y, width, height, in places of the map) the rectangle around them; both are 0
//  for a map without a value above 0. A map that holds a NaN or an infinity is left out
//  and logged.

#ifndef LUNA_WORKER_HEATMAPS_H
#define LUNA_WORKER_HEATMAPS_H

#include "common/arena.h"
#include "proto/message.h"

//  The maps of the images at `index` of their batches. *out lives in `memory`; its data is
//  NULL when the job has none for them. LUNA_NO_MEMORY. Costs about 0.3 ms a map of
//  64 x 64.
LUNA_MUST_USE luna_err luna_heatmaps_text(const luna_msg_job *job, size_t index,
                                          luna_arena *memory, luna_text *out);

#endif
