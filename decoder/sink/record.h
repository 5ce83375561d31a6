//  record.h - the side record: the file sink's memory of a published image
//
//  A small text file, `<root>/.luna/<job>/<input>-<index>`, in this order:
//
//      luna-image 1
//      path <of the file, below the root>
//      bytes <count>
//      sha256 <lower-case hex>
//      width <pixels>
//      height <pixels>
//      note <one line>                  when there is one
//
//  It is written whole or not at all. What is read is checked as if a stranger had
//  written it; a record that is damaged, or whose file is gone or changed, counts as
//  none. Thread-safe.

#ifndef LUNA_SINK_RECORD_H
#define LUNA_SINK_RECORD_H

#include "decoder/sink/place.h"

#define LUNA_RECORD_NAME_BYTES 128
#define LUNA_SUFFIX_BYTES      32

//  Name of an image's record, with `suffix` (".try", "") after it.
void luna_record_name(const luna_image_key *key, const char *suffix,
                      char out[LUNA_RECORD_NAME_BYTES]);

//  The place of a job's records in `root`, which is borrowed.
void luna_record_place(const char *root, const luna_id *job, luna_place *out);

//  The folder of a record's file. The record's path is below `root`, which is borrowed.
void luna_record_folder(const char *root, const luna_image_record *record,
                        luna_place *out);

//  Reads and checks the record of `key` in `root`: *found and *out, whose key is `key`.
//  LUNA_IO when the root is gone or a file cannot be read.
LUNA_MUST_USE luna_err luna_record_read(const char *root, const luna_image_key *key,
                                        luna_image_record *out, bool *found);

//  Asked before each step that can fail, as in files.h; `before` may be NULL.
typedef struct luna_fault {
    int (*before)(void *arg, const char *step);
    void *arg;
} luna_fault;

//  True when the step may go on; else errno is set to its failure.
bool luna_step(const luna_fault *fault, const char *step);

//  ".<16 random hex digits>.<end>"; `end` has at most 8 characters.
LUNA_MUST_USE luna_err luna_random_suffix(const char *end, char out[LUNA_SUFFIX_BYTES]);

//  Writes the record durably into the open folder `side`; its path begins with `root`.
//  LUNA_NO_SPACE, LUNA_CANT_CREATE, LUNA_IO; nothing is left behind then. LUNA_NOT_FOUND:
//  an attempt that finished this image removed it before it got its name.
LUNA_MUST_USE luna_err luna_record_write(int side, const char *root,
                                         const luna_image_record *record,
                                         const luna_fault *fault);

#endif
