//  schema.h - the messages' fields as data; codec_read.c and codec_write.c walk these
//  tables
//
//  One row a field: its key on the wire, what it is, where it lies in the struct,
//  its limit and its default. tests/unit/proto compares them with proto/README.md.

#ifndef LUNA_PROTO_SCHEMA_H
#define LUNA_PROTO_SCHEMA_H

#include "proto/message.h"

typedef enum luna_kind {
    LUNA_KIND_UINT,   //  uint64_t, at most `max`
    LUNA_KIND_INT,    //  int64_t, magnitude at most `max`
    LUNA_KIND_FLOAT,  //  double; an integer on the wire is taken too
    LUNA_KIND_BOOL,
    LUNA_KIND_TEXT,   //  luna_text, at most `max` bytes
    LUNA_KIND_BYTES,  //  luna_blob, at most `max` bytes; str is taken too
    LUNA_KIND_ID,     //  luna_id: bin of 16
    LUNA_KIND_DIMS,   //  luna_dims: array of uint
    LUNA_KIND_PAIRS,  //  list of luna_pair: a map of str to bin
    LUNA_KIND_LIST,   //  list of `sub`: an array of maps, at most `max`
    LUNA_KIND_MAP     //  pointer to `sub`: a map; NULL when absent
} luna_kind;

typedef struct luna_field {
    const char *key;
    luna_kind kind;
    bool required;
    size_t offset;
    uint64_t max;
    uint64_t fallback;  //  UINT and BOOL: the value of an absent field
    const struct luna_schema *sub;
} luna_field;

typedef struct luna_schema {
    const char *name;  //  the type on the wire, or the row's name
    size_t size;       //  sizeof its struct
    const luna_field *fields;
    size_t count;
} luna_schema;

//  The schema of a message type; never NULL for a value below LUNA_MSG_COUNT.
const luna_schema *luna_msg_schema(luna_msg_type type);

//  "text", "uint", ...: the words of the tables in proto/README.md.
const char *luna_kind_name(luna_kind kind);

#endif
