//  name.h - folder and file name of an image, from the templates of its job
//
//      <save_path>/<affix, if subdir>/<filename>_<affix>[_<index>].<ext>
//
//  below the job's output folder. `_<affix>` and the affix folder are left out when
//  the affix is empty; `_<index>` is there when the input has more than one image.
//  An empty `filename` means luna_%time:YYYY-mm-dd_HHMMSS%.
//
//  Templates know these words; anything else between percent signs stays as it is:
//      %model_path%   the model's name with folders, without its extension
//      %model_name%   its last part           ("UnknownModel" when there is none)
//      %model_dir%    its folders
//      %index%        filename_index
//      %time:FORMAT%  in FORMAT: YYYY mm (month) dd HH MM (minute) SS
//  A word is replaced once: what it brings in is never read as a template again, and
//  no part of a job is ever a format string.
//
//  The result is always a relative path that stays below the folder it is joined
//  to, and each of its parts is a name that Linux and Windows both take:
//  - '\' is '/'; empty parts and "." are dropped
//  - control characters, bytes that are not UTF-8 and <>:"|?* become '_'; so do a
//    leading dot (names that begin with a dot are Luna's own), dots and spaces at
//    the end; a name Windows keeps for a device (CON, LPT1.txt) gets '_' before it
//  - refused: "..", a path from the root, a part too long, a NUL
//
//  Pure functions: no file, no clock, no time zone is asked. Thread-safe.

#ifndef LUNA_SINK_NAME_H
#define LUNA_SINK_NAME_H

#include "common/err.h"
#include "proto/message.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_NAME_PART_BYTES   256   //  one name and its NUL
#define LUNA_NAME_FOLDER_BYTES 2048  //  the folders and their NUL
#define LUNA_NAME_EXT_BYTES    8
#define LUNA_NAME_TRIES        100000  //  candidates 0 to this - 1

typedef struct luna_name_request {
    luna_text save_path;   //  template of the folders
    luna_text filename;    //  template of the name; a '/' in it makes folders
    luna_text affix;       //  "" for none; may not hold folders
    luna_text model_name;  //  as the producer has it, with folders and extension
    bool subdir;           //  a folder named after the affix
    const char *ext;       //  "png", "webp", "jpg": 1 to 7 ASCII letters
    uint64_t filename_index;
    uint64_t index;          //  place in the batch, from 0
    uint64_t count;          //  images of the input
    uint64_t created_ms;     //  the producer's wall clock: one time for a whole job
    int64_t utc_offset_min;  //  its time zone
} luna_name_request;

typedef struct luna_name {
    char folder[LUNA_NAME_FOLDER_BYTES];  //  "a/b", or "" for the output folder itself
    char stem[LUNA_NAME_PART_BYTES];      //  the name without counter and extension
    char ext[LUNA_NAME_EXT_BYTES];        //  without the dot
} luna_name;

//  Builds the name of one image; *out is set on success only.
//
//  LUNA_FORBIDDEN: ".." or a path from the root (also "C:/...").
//  LUNA_TOO_LARGE: a part above 254 bytes (for the file: with room for extension
//  and counter), folders above LUNA_NAME_FOLDER_BYTES.
//  LUNA_BAD_REQUEST: a NUL in a text, or a time outside the years 1 to 9999.
LUNA_MUST_USE luna_err luna_name_make(const luna_name_request *request, luna_name *out);

//  The k-th file name to try: "stem.ext", then "stem_00001.ext" and so on.
//  `k` is below LUNA_NAME_TRIES.
void luna_name_candidate(const luna_name *name, unsigned k,
                         char out[LUNA_NAME_PART_BYTES]);

#endif
