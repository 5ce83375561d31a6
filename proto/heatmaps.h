//  heatmaps.h - what a job's heatmaps must fulfil beyond the wire's own limits

#ifndef LUNA_PROTO_HEATMAPS_H
#define LUNA_PROTO_HEATMAPS_H

#include "proto/message.h"

//  Each prompt and variant once; [N, T, H, W] with T tokens, 1 to LUNA_MAX_BATCH images,
//  sides up to LUNA_MAX_HEATMAP_SIDE, exactly the bytes that the shape needs, and at most
//  LUNA_MAX_HEATMAP_BYTES for one image in all sets. LUNA_BAD_REQUEST with a sentence
//  naming the set; LUNA_TOO_LARGE for the last.
LUNA_MUST_USE luna_err luna_heatmaps_check(const luna_msg_job *job);

//  Bytes of one map of a checked set.
size_t luna_heatmap_bytes(const luna_msg_heatmaps *set);

//  The maps of the image at `index` of its batch, one after the other, in the order of
//  the tokens; not aligned. NULL when the set has none for it.
const uint8_t *luna_heatmaps_of(const luna_msg_heatmaps *set, size_t index);

#endif
