//  builder.h - putting a graph together from a model file
//
//  Each call appends one operation and returns its node. Widths come from the file's
//  shapes and are checked against each other. The first failure is kept in `err` and
//  turns later calls into nothing, so that a family reads like its architecture; it
//  looks at `err` once, at the end.

#ifndef LUNA_DECODER_VAE_BUILDER_H
#define LUNA_DECODER_VAE_BUILDER_H

#include "common/safetensors.h"
#include "decoder/vae/graph.h"

typedef struct luna_builder {
    const luna_safetensors *file;
    const char *prefix;     //  put before every name: "taesd_decoder."
    luna_graph *graph;      //  empty at first
    luna_weights *weights;  //  shared by the graphs of one model; a tensor is kept once
    bool
        temporal;  //  kernels may be [out, in, time, kernel, kernel]; the last slice acts
    luna_err err;
} luna_builder;

typedef enum luna_bias { LUNA_WITHOUT_BIAS, LUNA_WITH_BIAS } luna_bias;

//  Whether the file has prefix + name.
bool luna_build_has(const luna_builder *b, const char *name, ...) LUNA_PRINTF(2, 3);

//  Whether it has NAME.weight or NAME.bias: where a layer may be or not, one that lacks a
//  tensor counts as there, and its missing tensor is named.
bool luna_build_has_layer(const luna_builder *b, const char *name, ...) LUNA_PRINTF(2, 3);

//  Size `dimension` of the tensor prefix + name; 0 when there is none.
size_t luna_build_size(const luna_builder *b, size_t dimension, const char *name, ...)
    LUNA_PRINTF(3, 4);

int luna_build_input(luna_builder *b, size_t channels);

//  The channels that the kernel NAME.weight reads: what the model's latents have, when it
//  is the first. Notes a failure when it is missing or reads none.
size_t luna_build_latent_channels(luna_builder *b, const char *name, ...)
    LUNA_PRINTF(2, 3);

//  Convolution with NAME.weight and, with LUNA_WITH_BIAS, NAME.bias. LUNA_BAD_MODEL in
//  b->err when one is missing or has another shape than [out, channels of x, kernel,
//  kernel]; [out, channels of x] will do for a kernel of 1, being the same memory.
int luna_build_conv(luna_builder *b, int x, size_t kernel, luna_bias bias,
                    const char *name, ...) LUNA_PRINTF(5, 6);

//  One of `count` equal parts of a kernel's results.
typedef struct luna_part {
    size_t index;
    size_t count;
} luna_part;

//  1x1 convolution with a part of NAME.weight and NAME.bias: the parts stand one behind
//  the other in the file.
int luna_build_conv_part(luna_builder *b, int x, luna_part part, const char *name, ...)
    LUNA_PRINTF(4, 5);

//  RMS norm over the channels with NAME.gamma.
int luna_build_rms_norm(luna_builder *b, int x, float epsilon, const char *name, ...)
    LUNA_PRINTF(4, 5);

//  Group norm with NAME.weight and NAME.bias.
int luna_build_group_norm(luna_builder *b, int x, size_t groups, float epsilon,
                          const char *name, ...) LUNA_PRINTF(5, 6);

int luna_build_add(luna_builder *b, int x, int y);

//  Attention of three values of the same width.
int luna_build_attention(luna_builder *b, int q, int k, int v);

//  (x - shift) * scale; x itself when that changes nothing.
int luna_build_affine(luna_builder *b, int x, float scale, float shift);
//  x * sqrt(variance + epsilon) + mean with NAME.running_var and NAME.running_mean.
int luna_build_batch_norm_inverse(luna_builder *b, int x, float epsilon, const char *name,
                                  ...) LUNA_PRINTF(4, 5);

int luna_build_tanh_clamp(luna_builder *b, int x, float scale);

//  RELU, SILU, UPSAMPLE, UNPACK: operations without parameters.
int luna_build_plain(luna_builder *b, luna_op op, int x);

//  A tensor of the file that the model does not use, though it lies where its own are,
//  means another architecture, whose pictures would come out wrong without a word: notes
//  a failure that names it. The first is for all below prefix + start, the second for one
//  of that whole name.
void luna_build_refuse_others(luna_builder *b, const char *start);
void luna_build_refuse_other(luna_builder *b, const char *name);

//  Notes LUNA_BAD_MODEL, "FILE: ...", unless a failure is noted already.
void luna_build_fail(luna_builder *b, const char *format, ...) LUNA_PRINTF(2, 3);

#endif
