//  publish.h - steps 2 to 8 of files.h for one image
//
//  Used by files.c and sweep.c. Thread-safe.

#ifndef LUNA_SINK_PUBLISH_H
#define LUNA_SINK_PUBLISH_H

#include "decoder/sink/files.h"
#include "decoder/sink/mark.h"
#include "decoder/sink/record.h"

typedef struct luna_files {
    luna_sink head;
    luna_roots roots;
    luna_access access;
    luna_fault fault;
} luna_files;

//  What the names of an image's temporaries begin with: ".luna-J-I-N.".
void luna_publish_prefix(const luna_image_key *key, char out[LUNA_NAME_PART_BYTES]);

//  Step 1 over all roots: the record of the image, if there is a valid one. Also tidies
//  up after an attempt that died behind step 7.
LUNA_MUST_USE luna_err luna_publish_find(const luna_files *files,
                                         const luna_image_key *key,
                                         luna_image_record *record, bool *found);

//  Steps 2 to 8. *again is true, and *record unspecified, when another attempt finished
//  this image meanwhile: begin again at step 1. Errors as in files.h.
LUNA_MUST_USE luna_err luna_publish(const luna_files *files, const luna_image *image,
                                    luna_image_record *record, bool *again);

#endif
