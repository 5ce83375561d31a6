//  name.h - folder and file name of an image, from the templates of its job
//
//      <save_path>/[_discarded/]<affix, if subdir>/<filename>_<affix>[_<index>].<ext>
//
//  below the job's output folder. `_<affix>` and the affix folder are left out when
//  the affix is empty; `_<index>` is there when the input has more than one image,
//  unless `filename` says %batch%. `_discarded` is for what the quality gate rejects.
//  An empty `filename` means luna_%time:YYYY-mm-dd_HHMMSS%.
//
//  Templates know these words; anything else between percent signs stays as it is:
//      %model_path%   the model's name with folders, without its extension
//      %model_name%   its last part           ("UnknownModel" when there is none)
//      %model_dir%    its folders
//      %index%        filename_index
//      %time:FORMAT%  in FORMAT: YYYY mm (month) dd HH MM (minute) SS
//      %date:FORMAT%  as in ComfyUI's page: yyyy yy M MM (month) d dd h hh m mm s ss
//      %seed%         of the generation metadata   ("UnknownSeed" when there is none)
//      %batch%        place in the batch, from 0
//      %width% %height%  of the picture, in pixels
//      %counter%      five digits, the first that are free; in `filename` behind its last
//                     '/' only. Without it a name that is taken gets _00001 and so on
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
#define LUNA_NAME_MODEL_BYTES  4097
#define LUNA_NAME_TRIES        99999  //  candidates 0 to this - 1
#define LUNA_NAME_COUNTER      '\x01'
#define LUNA_NAME_DISCARDED    "_discarded"

typedef struct luna_name_request {
    luna_text save_path;   //  template of the folders
    luna_text filename;    //  template of the name; a '/' in it makes folders
    luna_text affix;       //  "" for none; may not hold folders
    luna_text model_name;  //  as the producer has it, with folders and extension
    luna_text seed;        //  its digits; absent when it is not known
    bool subdir;           //  a folder named after the affix
    bool discarded;        //  by the quality gate
    bool sidecar;          //  leave room for ".json" behind the name
    const char *ext;       //  "png", "webp", "jpg": 1 to 7 ASCII letters
    uint64_t filename_index;
    uint64_t index;  //  place in the batch, from 0
    uint64_t count;  //  images of the input
    uint64_t width;  //  pixels of the picture
    uint64_t height;
    uint64_t created_ms;     //  the producer's wall clock: one time for a whole job
    int64_t utc_offset_min;  //  its time zone
} luna_name_request;

typedef struct luna_name {
    char folder[LUNA_NAME_FOLDER_BYTES];  //  "a/b", or "" for the output folder itself
    char stem[LUNA_NAME_PART_BYTES];      //  without extension; LUNA_NAME_COUNTER in it
                                          //  stands for %counter%
    char ext[LUNA_NAME_EXT_BYTES];        //  without the dot
} luna_name;

//  Builds the name of one image; *out is set on success only.
//
//  LUNA_FORBIDDEN: ".." or a path from the root (also "C:/...").
//  LUNA_TOO_LARGE: a part above 254 bytes (for the file: with room for extension
//  and counter), folders above LUNA_NAME_FOLDER_BYTES.
//  LUNA_BAD_REQUEST: a NUL in a text, a time outside the years 1 to 9999, or %counter%
//  in a folder.
LUNA_MUST_USE luna_err luna_name_make(const luna_name_request *request, luna_name *out);

//  What %model_path% and %model_name% stand for, without "UnknownModel": both empty when
//  there is none. They borrow `room`; a name too long for it is none.
void luna_name_model(luna_text model_name, char room[LUNA_NAME_MODEL_BYTES],
                     luna_text *path, luna_text *name);

//  The k-th file name to try: "stem.ext", then "stem_00001.ext" and so on; with a counter
//  in the stem k + 1 is put there. `k` is below LUNA_NAME_TRIES.
void luna_name_candidate(const luna_name *name, unsigned k,
                         char out[LUNA_NAME_PART_BYTES]);

#endif
