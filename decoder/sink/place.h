//  place.h - the allowed roots, and a folder below one of them
//
//  A place is found in two steps. luna_place_find follows symlinks as far as the path
//  exists and finds the root that holds the result; luna_place_open then walks from
//  that root part by part and follows none, so that what is opened is what was
//  checked, whatever is renamed or linked in between. Thread-safe.

#ifndef LUNA_SINK_PLACE_H
#define LUNA_SINK_PLACE_H

#include "decoder/sink/access.h"
#include "decoder/sink/sink.h"

#define LUNA_PLACE_HIDDEN ".luna"  //  the sink's own folder in a root

typedef struct luna_roots {
    char **path;  //  absolute, symlinks resolved, owned
    size_t count;
} luna_roots;

typedef struct luna_place {
    const char *root;                   //  one of the roots' paths, borrowed
    char folder[LUNA_SINK_PATH_BYTES];  //  below it, "" for the root itself
} luna_place;

//  Resolves the roots, making those that do not exist, and checks that they can be
//  written in. On an error *out is empty. LUNA_CONFIG, LUNA_CANT_CREATE, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_roots_open(const char *const *paths, size_t count,
                                       luna_roots *out);
void luna_roots_close(luna_roots *roots);

//  The place of `folder` below the job's `output_dir` ("" or absent: the first root).
//  LUNA_FORBIDDEN, LUNA_BAD_REQUEST, LUNA_TOO_LARGE, LUNA_CANT_CREATE as in files.h.
LUNA_MUST_USE luna_err luna_place_find(const luna_roots *roots, luna_text output_dir,
                                       const char *folder, luna_place *out);

//  Opens the folder of a place; the caller closes *fd. With `make` its missing parts
//  are made, with that access, and their names synced; NULL: LUNA_NOT_FOUND. A root that
//  is gone is an error, never made: its disk may not be mounted. LUNA_FORBIDDEN: a part
//  is a symlink.
LUNA_MUST_USE luna_err luna_place_open(const luna_place *place, const luna_access *make,
                                       int *fd);

//  To make folders as the system does it for this process.
extern const luna_access luna_access_plain;

//  Whether `path` is relative, with neither empty parts nor "..".
bool luna_place_is_plain(const char *path);

//  An error of creating or writing `path` by errno: LUNA_NO_SPACE with what to do for a
//  full disk or a size limit, else LUNA_CANT_CREATE.
luna_err luna_place_error(const char *what, const char *path);

#endif
