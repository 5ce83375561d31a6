//  withdraw.h - taking back what dead attempts left of an image that has no record
//
//  Used by sweep.c. Only for an image that no attempt holds (hold.h) and whose every mark
//  is of this host. Their private copies go, and the anchor when its file has no name
//  yet: the next attempt starts afresh. A picture that has its name already keeps anchor
//  and mark, by which the next attempt knows it and writes its record. Thread-safe.

#ifndef LUNA_SINK_WITHDRAW_H
#define LUNA_SINK_WITHDRAW_H

#include "decoder/sink/sink.h"

//  `side` is the open folder of the job's marks in `root`. Adds the temporaries that it
//  removed to *removed. What cannot be removed or told stays for a sweep by age.
void luna_withdraw(const char *root, int side, const luna_image_key *key,
                   uint64_t *removed);

#endif
