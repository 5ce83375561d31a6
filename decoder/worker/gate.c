#include "decoder/worker/gate.h"

#include <stdio.h>

#include "decoder/image/quality.h"

static bool is_low(const luna_msg_job *job, const char *word, const char *measure,
                   double value, char *note, size_t room)
{
    const bool asked =
        luna_text_is(job->quality_gate, word) || luna_text_is(job->quality_gate, "both");
    if (!asked || value >= job->min_quality) return false;
    snprintf(note, room, "discarded: its %s is %.3f, below %.3f", measure, value,
             job->min_quality);
    return true;
}

bool luna_gate_rejects(const luna_msg_job *job, const luna_pixels *pixels, char *note,
                       size_t room)
{
    if (job->quality_gate.len == 0 || luna_text_is(job->quality_gate, "disabled"))
        return false;
    const luna_quality quality = luna_image_quality(pixels);
    return is_low(job, "variance", "variance", quality.variance, note, room) ||
           is_low(job, "edge_density", "edge density", quality.edge_density, note, room);
}
