//  picture.h - one image on its way from pixels to a file
//
//  Made by the decode thread, run by an encode thread: ask the quality gate, encode, add
//  the metadata, hand the bytes to the sink, note the record with the attempt.

#ifndef LUNA_WORKER_PICTURE_H
#define LUNA_WORKER_PICTURE_H

#include "decoder/sink/sink.h"
#include "decoder/vae/vae.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/pool.h"

typedef struct luna_picture {
    luna_task task;         //  must be first
    luna_attempt *attempt;  //  held by the picture
    luna_sink *sink;
    const luna_msg_job *job;  //  of the attempt's work
    luna_image_key key;
    double decode_ms;
    size_t width;  //  pixels
    size_t height;
    size_t channels;
    luna_pixels_format format;         //  U8, or F32 that is to become 16 bits
    _Alignas(float) uint8_t pixels[];  //  interleaved
} luna_picture;

//  What an input's pixels are decoded to.
luna_pixels_format luna_picture_format(const luna_msg_input *input);

//  A picture with room for its pixels that holds the attempt; NULL without memory.
luna_picture *luna_picture_new(luna_attempt *attempt, const luna_vae_shape *shape,
                               luna_pixels_format format);

//  Frees a picture and lets its attempt go; the end of every picture's task too.
void luna_picture_free(luna_picture *picture);

//  What the name of an image is made of, beside its job.
typedef struct luna_picture_is {
    luna_image_key key;
    size_t width;  //  pixels
    size_t height;
    bool discarded;  //  by the quality gate
} luna_picture_is;

//  The name of an image below its job's output folder. Errors are luna_name_make's.
LUNA_MUST_USE luna_err luna_picture_name(const luna_msg_job *job,
                                         const luna_picture_is *is, luna_name *out);

#endif
