//  name_part.h - one part of a path, made legal on Linux and Windows
//
//  Used by name.c. Pure and thread-safe.

#ifndef LUNA_SINK_NAME_PART_H
#define LUNA_SINK_NAME_PART_H

#include "decoder/sink/name.h"

//  Whether the `len` bytes at `part` are "..", also with spaces or dots after it
//  ("... ", which Windows reads as ".."): two or more dots, then only dots and spaces.
bool luna_name_is_up(const char *part, size_t len);

//  Cleans a part by the rules in name.h: "" for "" and "."; LUNA_NAME_COUNTER stays.
//  `part` holds no '/', no '\' and no NUL and is not "up". LUNA_TOO_LARGE above 254
//  bytes.
LUNA_MUST_USE luna_err luna_name_part(const char *part, size_t len,
                                      char out[LUNA_NAME_PART_BYTES]);

#endif
