#include "decoder/vae/graph.h"

static const char *const names[LUNA_OP_COUNT] = {
    "input",
    "conv2d",
    "relu",
    "silu",
    "tanh clamp",
    "affine",
    "add",
    "upsample",
    "group norm",
    "unpack",
    "attention",
    "rms norm",
    "batch norm inverse",
};

const char *luna_op_name(luna_op op)
{
    return (unsigned)op < LUNA_OP_COUNT ? names[op] : "unknown";
}

//  A picture must also be countable in bytes with a wide margin for scratch.
static bool count_values(luna_shape *shape)
{
    size_t bytes;
    shape->count = 0;
    return !__builtin_mul_overflow(shape->height, shape->width, &shape->count) &&
           !__builtin_mul_overflow(shape->count, shape->channels, &shape->count) &&
           !__builtin_mul_overflow(shape->count, (size_t)1024, &bytes);
}

//  Backends count positions along a side in int.
enum { SIDE_MAX = 1 << 24 };

luna_err luna_graph_infer(const luna_graph *graph, size_t height, size_t width,
                          luna_shape *out)
{
    if (height == 0 || width == 0)
        return luna_error(LUNA_BAD_LATENT, "the latents have no pixels (%zu x %zu)",
                          width, height);
    for (size_t i = 0; i < graph->count; i++) {
        const luna_node *node = &graph->node[i];
        const int from = node->input[0];
        luna_shape shape = {.height = height, .width = width};
        if (from != LUNA_NONE) shape = out[from];
        const bool grows = node->op == LUNA_OP_UPSAMPLE || node->op == LUNA_OP_UNPACK;
        if (shape.height > SIDE_MAX / 2 || shape.width > SIDE_MAX / 2)
            return luna_error(LUNA_BAD_LATENT, "latents of %zu x %zu are too large",
                              width, height);
        shape.channels = node->channels;
        shape.height <<= grows;
        shape.width <<= grows;
        if (!count_values(&shape))
            return luna_error(LUNA_BAD_LATENT, "latents of %zu x %zu are too large",
                              width, height);
        out[i] = shape;
    }
    return LUNA_OK;
}

uint64_t luna_graph_flop(const luna_graph *graph, const luna_shape *shapes)
{
    uint64_t flop = 0;
    for (size_t i = 0; i < graph->count; i++) {
        const luna_node *node = &graph->node[i];
        uint64_t taps = 0;  //  multiply-adds for one value of the result
        if (node->op == LUNA_OP_CONV2D)
            taps = shapes[node->input[0]].channels * node->kernel * node->kernel;
        if (node->op == LUNA_OP_ATTENTION) taps = 2 * shapes[i].height * shapes[i].width;
        flop += 2 * taps * shapes[i].count;
    }
    return flop;
}

void luna_graph_uses(const luna_graph *graph, size_t *last, size_t *uses)
{
    for (size_t i = 0; i < graph->count; i++) {
        last[i] = i;
        uses[i] = 0;
        for (int k = 0; k < LUNA_INPUTS; k++) {
            const int from = graph->node[i].input[k];
            if (from == LUNA_NONE) continue;
            last[from] = i;
            uses[from]++;
        }
    }
    last[graph->count - 1] = graph->count;
    uses[graph->count - 1]++;
}
