//  latent_file.h - latents in a safetensors file or ComfyUI's .latent
//
//  Which tensor: the one named after the last ':' of FILE:TENSOR, else
//  `latent_tensor`, else the only one there is. A file whose whole name exists is never
//  cut at a ':'. ComfyUI's first .latent files hold model-space values: when
//  `latent_tensor` is taken and there is no `latent_format_version_0`, its values are
//  multiplied by 1/0.18215, as ComfyUI does on loading. Otherwise the bytes are those
//  of the mapped file, in its own dtype.

#ifndef LUNA_COMMON_LATENT_FILE_H
#define LUNA_COMMON_LATENT_FILE_H

#include "common/safetensors.h"

typedef struct luna_latent_file {
    luna_safetensors *file;  //  for luna_safetensors_metadata: "prompt", "workflow"
    luna_tensor tensor;      //  name, dtype, shape, data and bytes to use
    float *scaled;           //  tensor.data when the old scale was undone, else NULL
} luna_latent_file;

//  Opens FILE[:TENSOR]. LUNA_NOT_FOUND for no such file or tensor (the sentence lists
//  the tensors there are); LUNA_BAD_REQUEST when several tensors could be meant or the
//  file is damaged; LUNA_UNSUPPORTED when the tensor is not floating point; LUNA_IO;
//  LUNA_NO_MEMORY. The caller closes *out.
LUNA_MUST_USE luna_err luna_latent_file_open(const char *spec, luna_latent_file *out);

//  As open, for the bytes of a file (an upload); `tensor` may be NULL. The bytes must
//  outlive *out.
LUNA_MUST_USE luna_err luna_latent_file_parse(const void *data, size_t len,
                                              const char *label, const char *tensor,
                                              luna_latent_file *out);

void luna_latent_file_close(luna_latent_file *latents);

#endif
