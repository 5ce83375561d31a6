//  conv.h - shared by conv.c, tune.c, fuser.c and cache.c

#ifndef LUNA_DECODER_VAE_CUDA_CONV_H
#define LUNA_DECODER_VAE_CUDA_CONV_H

#include "decoder/vae/cuda/gpu.h"

typedef cudnnBackendDescriptor_t gpu_desc;

//  A problem with the plan that solves it.
struct gpu_conv {
    gpu_conv *next;
    gpu_conv_problem problem;
    gpu_desc plan;
    size_t workspace_bytes;
};

typedef struct gpu_conv_graph gpu_conv_graph;

//  LUNA_UNSUPPORTED when the library does not take it.
LUNA_MUST_USE luna_err gpu_conv_graph_make(gpu_device *device,
                                           const gpu_conv_problem *problem,
                                           gpu_conv_graph **out);
gpu_desc gpu_conv_graph_desc(const gpu_conv_graph *graph);
void gpu_conv_graph_free(gpu_conv_graph *graph);

//  ---- cache.c ---------------------------------------------------------------------

//  The plan kept on disk for a problem on this card with this library, as text that the
//  caller frees; NULL when there is none.
char *gpu_cache_read(const gpu_device *device, const gpu_conv_problem *problem);
//  Keeps it; a failure only costs the next start some time.
void gpu_cache_write(const gpu_device *device, const gpu_conv_problem *problem,
                     const char *text);
//  The same of anything else: `about` says what.
char *gpu_cache_read_note(const gpu_device *device, const char *about);
void gpu_cache_write_note(const gpu_device *device, const char *about, const char *text);

#endif
