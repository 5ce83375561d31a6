//  safetensors_header.h - the JSON header of a safetensors file, inside common only
//
//  A scanner for just the grammar that safetensors allows, without recursion:
//
//      { "__metadata__": {"key": "value", ...},
//        "name": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}, ... }
//
//  It fills plain tables; what offsets and shapes mean is checked by the caller.

#ifndef LUNA_COMMON_SAFETENSORS_HEADER_H
#define LUNA_COMMON_SAFETENSORS_HEADER_H

#include "common/safetensors.h"

//  A text of the header with its escapes resolved and a NUL after it.
typedef struct header_text {
    const char *data;
    size_t len;
} header_text;

typedef struct header_pair {
    header_text key;
    header_text value;
} header_pair;

typedef struct header_tensor {
    luna_tensor tensor;  //  name, dtype, rank and shape set; count, data, bytes not yet
    uint64_t begin;      //  data_offsets, relative to the end of the header
    uint64_t end;
} header_tensor;

typedef struct luna_safetensors_header {
    char *texts;  //  every text of the header lives in here
    header_tensor *tensors;
    size_t tensor_count;
    header_pair *pairs;  //  of __metadata__
    size_t pair_count;
} luna_safetensors_header;

//  Scans `len` bytes at `json`. LUNA_BAD_REQUEST with label and byte position, or
//  LUNA_NO_MEMORY; *out is then empty. Freed with luna_safetensors_header_free.
LUNA_MUST_USE luna_err luna_safetensors_header_scan(const char *json, size_t len,
                                                    const char *label,
                                                    luna_safetensors_header *out);
void luna_safetensors_header_free(luna_safetensors_header *header);

#endif
