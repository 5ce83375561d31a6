//  hold.h - how a sweep tells an attempt that died from one that lives
//
//  An attempt holds its image: a shared lock on one byte, the image's, of the file
//  `<root>/.luna/lock`, which the kernel lets go when the process ends, however it ends.
//  A sweep takes the byte for itself for a moment: while it has it nobody else has an
//  attempt at this image under way, nor begins one. Nothing of an attempt ever waits for
//  another attempt.
//
//  Some network file systems keep locks to one host. So a mark also says where its
//  attempt ran, and a sweep believes the lock for attempts of its own host only: of the
//  same start of the same kernel, or of an earlier start of the same machine. Where there
//  are no locks the mark says nothing, and what a dead attempt left goes by its age.
//
//  Thread-safe.

#ifndef LUNA_SINK_HOLD_H
#define LUNA_SINK_HOLD_H

#include "decoder/sink/sink.h"

#define LUNA_HOST_BYTES 384

typedef struct luna_hold {
    int fd;  //  -1: not held
} luna_hold;

//  Holds the image for an attempt in `root`; hold->fd is -1 when the file system has no
//  locks, or the lock file is another user's. LUNA_IO when a sweep keeps it for more than
//  a few seconds: try again.
LUNA_MUST_USE luna_err luna_hold_shared(const char *root, const luna_image_key *key,
                                        luna_hold *hold);

//  Holds it alone; false when an attempt lives, or when that cannot be told.
bool luna_hold_alone(const char *root, const luna_image_key *key, luna_hold *hold);

//  Lets it go; hold->fd may be -1.
void luna_hold_end(luna_hold *hold);

//  This host and its start, one line; "" when it cannot be told.
void luna_host_text(char out[LUNA_HOST_BYTES]);

//  Whether an attempt with this line ran on this host.
bool luna_host_is_this(const char *line);

#endif
