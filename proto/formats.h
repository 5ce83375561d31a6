//  formats.h - the wire's picture formats, and sets of them as words
//
//  A decoder announces in its hello what it writes, and a job needs what its inputs ask
//  for. A set is a text of the formats' words with spaces between ("png webp") where
//  people or other programs see it.

#ifndef LUNA_PROTO_FORMATS_H
#define LUNA_PROTO_FORMATS_H

#include "proto/message.h"

typedef uint32_t luna_formats;  //  a bit a format; 0: none

#define LUNA_FORMATS_COUNT 5
#define LUNA_FORMATS_BYTES 32  //  all of their words, with the NUL
#define LUNA_FORMATS_ALL   ((luna_formats)((1u << LUNA_FORMATS_COUNT) - 1))

//  The word of the format of bit `i`, below LUNA_FORMATS_COUNT.
const char *luna_formats_word(size_t i);

//  The set of one word; 0 for one that is no format.
luna_formats luna_formats_of(luna_text word);

//  The set of words with spaces between; those that are no formats are passed over, for
//  they may be another version's.
luna_formats luna_formats_parse(luna_text words);

//  The words of a set; absent for none.
luna_text luna_formats_write(luna_formats formats, char out[LUNA_FORMATS_BYTES]);

//  What the inputs of a job ask for.
luna_formats luna_formats_of_job(const luna_msg_job *job);

#endif
