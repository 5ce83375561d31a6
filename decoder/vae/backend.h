//  backend.h - the one interface between the engine and a device
//
//  A backend keeps a model's weights in its own form (open), turns a graph and a picture
//  size into a plan (compile), and runs plans. It decodes one image a run, with float in
//  and out; checks of values, packing of pixels and the cache of plans are the engine's.
//  One whose memory is far away may take that over for a batch (run_batch), so that bytes
//  travel and the images overlap. A backend is used by one thread at a time.

#ifndef LUNA_DECODER_VAE_BACKEND_H
#define LUNA_DECODER_VAE_BACKEND_H

#include "decoder/vae/cards.h"
#include "decoder/vae/graph.h"
#include "decoder/vae/pixels.h"
#include "decoder/vae/vae.h"

typedef struct luna_plan luna_plan;  //  each backend defines its own

typedef struct luna_backend_options {
    const luna_weights *weights;  //  outlive the backend
    luna_vae_precision precision;
    int device;                   //  the N of cuda:N
    int threads;                  //  0: one for each processor
    void (*step)(void *context);  //  as in luna_vae_options; may be NULL
    void *step_context;
    bool trial;  //  as in luna_vae_options
} luna_backend_options;

typedef struct luna_plan_request {
    const luna_graph *graph;    //  outlives the plan
    const luna_shape *shapes;   //  of every node, from luna_graph_infer; not kept
    size_t memory_limit_bytes;  //  for weights, plan and staging together; 0: none
    size_t staging_bytes;       //  the engine's own buffers of a decode
} luna_plan_request;

//  Images first .. first + count - 1 of the caller's batch, one after the other.
typedef struct luna_backend_batch {
    size_t first;
    size_t count;  //  1 or more
    //  Puts the latents of image `image` of the caller's batch at `to`, as `run` takes
    //  them.
    luna_err (*read)(void *context, size_t image, float *to);
    void *context;
    luna_pixels_range range;
    luna_pixels_format format;
    luna_pixels_rule rule;
    bool must_be_finite;  //  LUNA_OVERFLOW for an image that is not
    //  Room for the pixels of image `image` of the caller's batch, in the order of the
    //  images, and word that they are there. Both are called while the next image is
    //  decoded. An error of `place` ends the run.
    luna_err (*place)(void *context, size_t image, void **room);
    void (*done)(void *context, size_t image);
    void *outlet;  //  their context
} luna_backend_batch;

typedef struct luna_backend_memory {
    size_t free_bytes;
    size_t total_bytes;
} luna_backend_memory;

typedef struct luna_backend {
    const char *device;  //  "cpu", "cuda", "reference"
    //  The cards there are, by number; LUNA_UNAVAILABLE with the reason when there is no
    //  driver to ask. NULL where devices have no numbers, and so are the next two.
    luna_err (*cards)(luna_card *out, size_t room, size_t *count);
    //  LUNA_OK when the card of this number can be used, else LUNA_UNAVAILABLE with the
    //  reason.
    luna_err (*probe)(int index);
    //  The card's memory as it is now. LUNA_UNAVAILABLE, LUNA_DEVICE.
    luna_err (*memory)(int index, luna_backend_memory *out);
    //  Name and version for people.
    const char *(*describe)(void);
    //  The precision that AUTO means here; LUNA_UNSUPPORTED for one it has not.
    luna_err (*precision)(luna_vae_precision wanted, luna_vae_precision *out);
    //  LUNA_UNAVAILABLE, LUNA_NO_MEMORY, LUNA_DEVICE.
    luna_err (*open)(const luna_backend_options *options, void **state);
    void (*close)(void *state);
    //  Sets cost->peak_bytes (weights, activations and scratch), cost->weight_bytes and
    //  cost->steps.
    //  LUNA_NO_MEMORY above the limit: luna_backend_over_limit makes the sentence.
    luna_err (*compile)(void *state, const luna_plan_request *request, luna_plan **out,
                        luna_vae_cost *cost);
    //  input: [channels, height, width] of node 0; output: of the last node. Host memory.
    //  LUNA_NO_MEMORY, LUNA_DEVICE.
    luna_err (*run)(void *state, luna_plan *plan, const float *input, float *output);
    //  NULL: the engine calls `run` for each. LUNA_OVERFLOW and what `run` returns, with
    //  the images before the one that failed complete; LUNA_DEVICE: close it.
    luna_err (*run_batch)(void *state, luna_plan *plan, const luna_backend_batch *batch);
    void (*free_plan)(void *state, luna_plan *plan);
    //  Gives working memory back.
    void (*trim)(void *state);
} luna_backend;

//  Plain C, written to be obviously right: tests compare the others with it, and a build
//  without another CPU backend uses it. fp32.
extern const luna_backend luna_backend_reference;
//  Vector kernels on all processors, fp32.
extern const luna_backend luna_backend_cpu;
//  CUDA, fp16, bf16 or fp32. In the plugin; see plugin.h.
extern const luna_backend luna_backend_cuda;

//  The backend for a device's name (cards.h), and the card's number (else 0). "auto" is
//  the first GPU where there is one, else the CPU. LUNA_UNAVAILABLE when this build or
//  machine has none for it, LUNA_USAGE for another word. A LUNA_DEVICE_INSTANCE sets
//  CUDA_VISIBLE_DEVICES: call it before there are threads.
LUNA_MUST_USE luna_err luna_backend_find(const char *device, const luna_backend **out,
                                         int *index);

//  "cpu", "reference", "cuda:N": what a device is called.
#define LUNA_DEVICE_BYTES 16
void luna_backend_name(const luna_backend *backend, int index,
                       char out[LUNA_DEVICE_BYTES]);

//  LUNA_NO_MEMORY with both numbers in the sentence when `bytes` and the staging are over
//  the request's limit, else LUNA_OK.
LUNA_MUST_USE luna_err luna_backend_over_limit(const luna_plan_request *request,
                                               size_t bytes);

//  A weight's values as float, without gaps, in memory of its own; the caller frees it.
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_backend_floats(const luna_weight *weight, float **out);

#endif
