//  mark.h - the file that says that an attempt at an image is under way, or was
//
//  `<root>/.luna/<job>/<input>-<index>.<random>.try` holds the target folder below the
//  root, and of an attempt that holds its image (hold.h) the host it runs on, a line
//  each. Thread-safe.

#ifndef LUNA_SINK_MARK_H
#define LUNA_SINK_MARK_H

#include "decoder/sink/hold.h"

#define LUNA_MARK_END ".try"

typedef struct luna_mark {
    char folder[LUNA_SINK_PATH_BYTES];
    char host[LUNA_HOST_BYTES];  //  "" for an attempt that held nothing
} luna_mark;

//  What a mark with this folder says. `held`: on this host, by an attempt that holds.
void luna_mark_text(const char *folder, bool held,
                    char out[LUNA_SINK_PATH_BYTES + LUNA_HOST_BYTES]);

//  Reads the mark `name` in the open folder `side`; false when it is gone or no mark.
bool luna_mark_read(int side, const char *name, luna_mark *out);

//  Whether `name` is a mark's; then input and index of its image go into *key.
bool luna_mark_key(const char *name, luna_image_key *key);

#endif
