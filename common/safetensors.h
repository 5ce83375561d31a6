//  safetensors.h - reading and writing safetensors files
//
//  A file is an 8-byte little-endian header length, a JSON header, and the tensors'
//  bytes one after another. The whole header is checked before anything is handed
//  out: JSON grammar, UTF-8, names given once, known fields only, every offset inside
//  the file, tensors neither overlapping nor leaving gaps, and lengths that agree with
//  dtype and shape. What passes can be read without further checks. A file is input
//  from strangers: whatever it holds, the worst is LUNA_BAD_REQUEST with one sentence.

#ifndef LUNA_COMMON_SAFETENSORS_H
#define LUNA_COMMON_SAFETENSORS_H

#include "common/dtype.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_SAFETENSORS_HEADER_MAX (8U << 20)  //  bytes
#define LUNA_TENSOR_RANK_MAX        8

//  One tensor of an open file; all pointers live as long as the file is open.
typedef struct luna_tensor {
    const char *name;        //  NUL-terminated
    const char *dtype_name;  //  as the file spells it
    luna_dtype dtype;        //  LUNA_DTYPE_OTHER when this build does not know it
    size_t rank;             //  0 for a scalar
    size_t shape[LUNA_TENSOR_RANK_MAX];
    size_t count;      //  product of the shape: 1 for a scalar
    const void *data;  //  any alignment; read with luna_dtype_to_float or memcpy
    size_t bytes;  //  count x size of a value; for LUNA_DTYPE_OTHER what the file says
} luna_tensor;

typedef struct luna_safetensors luna_safetensors;

//  Opens and checks a file. It stays mapped and must not be truncated meanwhile.
//  LUNA_NOT_FOUND, LUNA_IO: as luna_map_open. LUNA_BAD_REQUEST: damaged, the sentence
//  says where. LUNA_NO_MEMORY. The caller closes *out.
LUNA_MUST_USE luna_err luna_safetensors_open(const char *path, luna_safetensors **out);

//  As open, for a file image in memory that outlives *out; `label` stands for the path
//  in error sentences.
LUNA_MUST_USE luna_err luna_safetensors_parse(const void *data, size_t len,
                                              const char *label, luna_safetensors **out);

//  Frees all and sets *file to NULL; NULL is fine.
void luna_safetensors_close(luna_safetensors **file);

//  Path or label, as given to open or parse.
const char *luna_safetensors_label(const luna_safetensors *file);

//  Bytes of the whole file, and those of its header with the 8 before it.
uint64_t luna_safetensors_bytes(const luna_safetensors *file);
uint64_t luna_safetensors_header_bytes(const luna_safetensors *file);

//  The tensors in the order of their names' bytes, 0 .. count - 1.
size_t luna_safetensors_count(const luna_safetensors *file);
const luna_tensor *luna_safetensors_at(const luna_safetensors *file, size_t index);

//  The tensor of that name, or NULL.
const luna_tensor *luna_safetensors_find(const luna_safetensors *file, const char *name);

//  The value of `key` in `__metadata__`, JSON escapes resolved: UTF-8 of *len bytes, with
//  a NUL after it (and perhaps NULs in it). NULL when there is no such key. `len` may
//  be NULL.
const char *luna_safetensors_metadata(const luna_safetensors *file, const char *key,
                                      size_t *len);

//  ---- writing ---------------------------------------------------------------------

//  What a new file will hold; the bytes follow piece by piece.
typedef struct luna_tensor_spec {
    const char *name;  //  UTF-8
    luna_dtype dtype;  //  not LUNA_DTYPE_OTHER
    size_t rank;       //  up to LUNA_TENSOR_RANK_MAX
    size_t shape[LUNA_TENSOR_RANK_MAX];
} luna_tensor_spec;

typedef struct luna_safetensors_writer luna_safetensors_writer;

//  Starts `path` under a temporary name beside it and writes the header.
//  LUNA_CANT_CREATE, LUNA_NO_SPACE, LUNA_IO; LUNA_USAGE for a spec outside its limits or
//  a size that overflows; LUNA_NO_MEMORY. The caller ends it with commit or abandon.
LUNA_MUST_USE luna_err luna_safetensors_create(const char *path,
                                               const luna_tensor_spec *specs,
                                               size_t count,
                                               luna_safetensors_writer **out);

//  Appends bytes: the tensors' data in the order of the specs, in pieces of any size.
//  LUNA_USAGE for more than the specs hold; LUNA_IO, LUNA_NO_SPACE: abandon it.
LUNA_MUST_USE luna_err luna_safetensors_append(luna_safetensors_writer *writer,
                                               const void *data, size_t len);

//  Makes the file durable and gives it its name, replacing an older file. On any error
//  (LUNA_USAGE: bytes are missing) the temporary file is removed and an older file is as
//  it was. Frees the writer and sets *writer to NULL either way.
LUNA_MUST_USE luna_err luna_safetensors_commit(luna_safetensors_writer **writer);

//  Removes the temporary file, frees the writer, sets *writer to NULL. NULL is fine.
void luna_safetensors_abandon(luna_safetensors_writer **writer);

#endif
