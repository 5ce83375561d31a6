//  scan.h - looking through a folder for an image's files
//
//  The target folder, which may be large, is scanned only after a crash or beside another
//  attempt; a plain put looks through its job's small folder in `.luna` alone.
//  Thread-safe.

#ifndef LUNA_SINK_SCAN_H
#define LUNA_SINK_SCAN_H

#include "decoder/sink/sink.h"

#include <sys/types.h>

//  What the file with a given inode is called in a folder: "" when it is not there.
typedef struct luna_found {
    char token[LUNA_NAME_PART_BYTES];  //  a name that begins with `prefix`, not `anchor`
    char final[LUNA_NAME_PART_BYTES];  //  a name that does not begin with a dot
} luna_found;

//  Looks for `inode` in the open folder `dir`. A name that is changed during the scan
//  may be missed. LUNA_IO.
LUNA_MUST_USE luna_err luna_scan_inode(int dir, ino_t inode, const char *anchor,
                                       luna_found *out);

//  Whether a name in `dir` other than `except` begins with `prefix`. LUNA_IO.
LUNA_MUST_USE luna_err luna_scan_has(int dir, const char *prefix, const char *except,
                                     bool *has);

//  Removes every file of `dir` whose name begins with `prefix` and that was last
//  written before `before_ms` (wall clock; INT64_MAX for all). LUNA_IO when the folder
//  cannot be read; what cannot be removed stays.
LUNA_MUST_USE luna_err luna_scan_remove(int dir, const char *prefix, int64_t before_ms);

//  Calls `visit` for every name in `dir` but "." and "..".
LUNA_MUST_USE luna_err luna_scan_each(int dir,
                                      void (*visit)(void *arg, int dir, const char *name),
                                      void *arg);

//  When the file was last written, milliseconds of the wall clock; INT64_MAX when it is
//  gone, so that it is never too old.
int64_t luna_scan_written_ms(int dir, const char *name);

#endif
