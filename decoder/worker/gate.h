//  gate.h - a job's quality gate on one picture
//
//  "variance" and "edge_density" reject what is below the job's min_quality by that
//  measure (image/quality.h), "both" what is below it by one of them. What is rejected is
//  saved all the same, in `_discarded` (sink/name.h).

#ifndef LUNA_WORKER_GATE_H
#define LUNA_WORKER_GATE_H

#include "decoder/image/encode.h"
#include "proto/message.h"

//  True when the picture is rejected; `note` then tells by what. Measures nothing for a
//  job without a gate. Thread-safe.
bool luna_gate_rejects(const luna_msg_job *job, const luna_pixels *pixels, char *note,
                       size_t room);

#endif
