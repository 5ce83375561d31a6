//  graph.h - what a decoder computes, as a list of operations
//
//  Families build a graph from a model file; backends run it. A graph knows channels
//  but no picture size: one graph serves every size. Node i is the value that the i-th
//  operation makes from earlier nodes; node 0 is the input and the last node the output.
//  Values are [channels, height, width] of one image.

#ifndef LUNA_DECODER_VAE_GRAPH_H
#define LUNA_DECODER_VAE_GRAPH_H

#include "common/dtype.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_GRAPH_MAX 1024  //  nodes
#define LUNA_NONE      (-1)  //  no such node or weight
#define LUNA_INPUTS    3     //  of a node, at most

typedef enum luna_op {
    LUNA_OP_INPUT,
    LUNA_OP_CONV2D,  //  kernel x kernel, stride 1, zeros around so that the size stays
    LUNA_OP_RELU,    //  max(x, 0)
    LUNA_OP_SILU,    //  x / (1 + exp(-x))
    LUNA_OP_TANH_CLAMP,  //  scale * tanh(x / scale)
    LUNA_OP_AFFINE,      //  (x - shift) * scale
    LUNA_OP_ADD,         //  a + b
    LUNA_OP_UPSAMPLE,    //  nearest, 2 x 2
    LUNA_OP_GROUP_NORM,  //  per group: (x - mean) / sqrt(variance + epsilon) * weight +
                         //  bias
    LUNA_OP_UNPACK,      //  [4c, h, w] to [c, 2h, 2w]; from channel 4c + 2 row + column
    LUNA_OP_ATTENTION,   //  inputs q, k, v of one shape; one head, pixels as tokens:
                         //  softmax(q^T k / sqrt(channels)) over the pixels of k, times v
    LUNA_OP_RMS_NORM,    //  per pixel, over the channels:
                         //  x / max(sqrt(sum x^2), epsilon) * sqrt(channels) * weight
    LUNA_OP_BATCH_NORM_INVERSE,  //  per channel: x * sqrt(weight + epsilon) + bias
    LUNA_OP_COUNT
} luna_op;

typedef struct luna_node {
    luna_op op;
    int input[LUNA_INPUTS];  //  node numbers, LUNA_NONE when unused
    int weight;              //  numbers in luna_weights, LUNA_NONE when absent
    int bias;
    size_t channels;  //  of the result
    size_t kernel;    //  CONV2D: 1 or 3
    size_t groups;    //  GROUP_NORM: divides channels
    float epsilon;    //  GROUP_NORM, RMS_NORM, BATCH_NORM_INVERSE
    float scale;      //  TANH_CLAMP, AFFINE
    float shift;      //  AFFINE
} luna_node;

typedef struct luna_graph {
    luna_node node[LUNA_GRAPH_MAX];
    size_t count;
} luna_graph;

//  One parameter tensor, or the part of one that acts. CONV2D: [out, in, kernel, kernel];
//  others [channels]. Its values are those of the file in runs: `run` neighbours, then
//  `gap` that are left out, and so on. Read with luna_backend_floats.
typedef struct luna_weight {
    const char *name;  //  as in the file, for error sentences
    luna_dtype dtype;  //  a floating-point one
    const void *data;  //  the first value, borrowed from the file, any alignment
    size_t count;      //  of values read
    size_t run;        //  with a gap of 0 not looked at
    size_t gap;
} luna_weight;

//  The parameters of a model; both of its graphs (plain and packed input) share them.
typedef struct luna_weights {
    luna_weight item[LUNA_GRAPH_MAX];
    size_t count;
} luna_weights;

typedef struct luna_shape {
    size_t channels;
    size_t height;
    size_t width;
    size_t count;  //  values: the product
} luna_shape;

//  "conv2d", ... for messages. Static.
const char *luna_op_name(luna_op op);

//  Fills out[0 .. graph->count - 1] for an input of that size. LUNA_BAD_LATENT for a size
//  of 0 or a picture whose bytes cannot be counted.
LUNA_MUST_USE luna_err luna_graph_infer(const luna_graph *graph, size_t height,
                                        size_t width, luna_shape *out);

//  2 x multiply-adds of the convolutions, as direct ones, and of the attention.
uint64_t luna_graph_flop(const luna_graph *graph, const luna_shape *shapes);

//  Sets last[i] to the last node that reads node i (the output: graph->count) and
//  uses[i] to how many reads there are (the output's being taken counts as one).
void luna_graph_uses(const luna_graph *graph, size_t *last, size_t *uses);

#endif
