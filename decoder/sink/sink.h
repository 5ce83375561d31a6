//  sink.h - where finished images go: one interface, several places behind it
//
//  An image is known by (job, input, index), never by its name or its content. A
//  sink takes each image exactly once: a second put of the same image, by another
//  attempt, after a crash or at the same time, gives the same record and changes
//  nothing.
//
//  Sinks stand in a row. The first one (files.h) publishes the bytes and fills the
//  record; each later one is handed that record and keeps it in its own way.

#ifndef LUNA_SINK_SINK_H
#define LUNA_SINK_SINK_H

#include "common/err.h"
#include "common/id.h"
#include "decoder/sink/name.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_SINK_PATH_BYTES   4096
#define LUNA_SINK_SHA256_BYTES 65
#define LUNA_SINK_NOTE_BYTES   512

typedef struct luna_image_key {
    luna_id job;
    uint64_t input;  //  0 to 4
    uint64_t index;  //  place in the batch
} luna_image_key;

//  An image to keep; everything is borrowed for the call.
typedef struct luna_image {
    luna_image_key key;
    luna_text output_dir;   //  of the job; absent or "": the first root
    const luna_name *name;  //  folder and name below output_dir
    const void *data;       //  the whole file
    size_t len;             //  its bytes, at least 1
    uint64_t width;         //  pixels
    uint64_t height;
    const char *note;     //  goes into the record: one line, cut when long; NULL for none
    const char *sidecar;  //  a JSON text for a file beside it, or NULL
    size_t sidecar_len;   //  bytes
} luna_image;

//  What is known of an image that is kept.
typedef struct luna_image_record {
    luna_image_key key;
    char path[LUNA_SINK_PATH_BYTES];      //  absolute, symlinks resolved
    uint64_t bytes;                       //  of the file
    char sha256[LUNA_SINK_SHA256_BYTES];  //  of the file, lower-case hex
    uint64_t width;                       //  pixels
    uint64_t height;
    char note[LUNA_SINK_NOTE_BYTES];  //  "" for none
} luna_image_record;

//  What a sweep did.
typedef struct luna_swept {
    uint64_t removed;      //  temporaries of attempts that died
    uint64_t passed_over;  //  jobs that there was no time for
} luna_swept;

typedef struct luna_sink luna_sink;

//  What a sink implements; the functions below say what each must do.
typedef struct luna_sink_ops {
    const char *name;  //  "files"; for the log
    luna_err (*find)(luna_sink *sink, const luna_image_key *key,
                     luna_image_record *record, bool *found);
    luna_err (*check)(luna_sink *sink, luna_text output_dir, const luna_name *name);
    luna_err (*put)(luna_sink *sink, const luna_image *image, luna_image_record *record);
    luna_err (*sweep)(luna_sink *sink, int64_t older_than_ms, int64_t most_ms,
                      luna_swept *swept);
    void (*close)(luna_sink *sink);
} luna_sink_ops;

//  The head of every sink's own struct.
struct luna_sink {
    const luna_sink_ops *ops;
};

//  Is the image kept already? Then *found is true and *record filled, else *found
//  is false and *record unspecified. Ask before decoding. What an attempt that died
//  left behind for this image is tidied away when it is found.
//  LUNA_IO: the sink cannot tell; treat the image as not found only by trying again.
//  Thread-safe.
LUNA_MUST_USE luna_err luna_sink_find(luna_sink *sink, const luna_image_key *key,
                                      luna_image_record *record, bool *found);

//  Would a picture of this name be taken? Ask before decoding: what a job asks for
//  wrongly should not cost a decode. Makes nothing; gives the errors of put that can be
//  told without making a folder. Thread-safe.
LUNA_MUST_USE luna_err luna_sink_check(luna_sink *sink, luna_text output_dir,
                                       const luna_name *name);

//  Keeps the image. On success it is on stable storage and *record tells where; for
//  an image that was kept before, *record is the first one's, whatever `image` holds.
//  A first sink ignores what *record holds before, later sinks read it.
//  Errors are the sink's own (files.h); after one, nothing or all of the image is
//  there, and the same put may be tried again. Thread-safe.
LUNA_MUST_USE luna_err luna_sink_put(luna_sink *sink, const luna_image *image,
                                     luna_image_record *record);

//  Removes what attempts that never came back left behind, and memories of images,
//  older than `older_than_ms`; at any age temporaries of kept images, and those of
//  attempts that are known to have died. Nothing of an attempt that lives, on this host
//  or another, is touched. Choose it longer than a job can take over all of its attempts:
//  an image whose memory is gone would be kept a second time. It ends after about
//  `most_ms`. Call at start and now and then. Thread-safe.
LUNA_MUST_USE luna_err luna_sink_sweep(luna_sink *sink, int64_t older_than_ms,
                                       int64_t most_ms, luna_swept *swept);

//  Ends the sink and sets *sink to NULL; NULL is fine. No other call may run.
void luna_sink_close(luna_sink **sink);

#endif
