//  sidecar.h - the text file beside a picture
//
//  Used by publish.c. "cat.png" has "cat.png.json". Thread-safe.

#ifndef LUNA_SINK_SIDECAR_H
#define LUNA_SINK_SIDECAR_H

#include "decoder/sink/access.h"
#include "decoder/sink/record.h"

#define LUNA_SIDECAR_END ".json"

//  The name beside `picture`, which is short enough (luna_name_request.sidecar).
void luna_sidecar_name(const char *picture, char out[LUNA_NAME_PART_BYTES]);

typedef struct luna_sidecar {
    int dir;              //  the picture's folder
    const char *folder;   //  its path, for errors
    const char *picture;  //  the picture's final name
    const char *prefix;   //  of the image's temporaries
    const char *text;
    size_t len;
    const luna_access *access;
    const luna_fault *fault;
} luna_sidecar;

//  Writes the text to a temporary, syncs it and gives it its name, which never replaces.
//  A file of that name with these bytes is the one of an earlier attempt; one with others
//  is somebody else's: it stays, and the log tells. The folder is not synced.
//  LUNA_NO_SPACE, LUNA_CANT_CREATE, LUNA_IO; no temporary is left then.
LUNA_MUST_USE luna_err luna_sidecar_put(const luna_sidecar *sidecar);

#endif
