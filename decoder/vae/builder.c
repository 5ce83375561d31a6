#include "decoder/vae/builder.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_ROOM = 256 };

static void compose(const luna_builder *b, char out[NAME_ROOM], const char *format,
                    va_list args)
{
    const int n = snprintf(out, NAME_ROOM, "%s", b->prefix);
    const size_t used = n < 0 || n >= NAME_ROOM ? NAME_ROOM - 1 : (size_t)n;
    vsnprintf(out + used, NAME_ROOM - used, format, args);
}

bool luna_build_has(const luna_builder *b, const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    return luna_safetensors_find(b->file, full) != NULL;
}

bool luna_build_has_layer(const luna_builder *b, const char *name, ...)
{
    char full[NAME_ROOM], tensor[NAME_ROOM + 8];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    snprintf(tensor, sizeof tensor, "%s.weight", full);
    if (luna_safetensors_find(b->file, tensor)) return true;
    snprintf(tensor, sizeof tensor, "%s.bias", full);
    return luna_safetensors_find(b->file, tensor) != NULL;
}

size_t luna_build_size(const luna_builder *b, size_t dimension, const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    const luna_tensor *tensor = luna_safetensors_find(b->file, full);
    return tensor && dimension < tensor->rank ? tensor->shape[dimension] : 0;
}

void luna_build_fail(luna_builder *b, const char *format, ...)
{
    char text[512];
    if (b->err != LUNA_OK) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    b->err = luna_error(LUNA_BAD_MODEL, "%s: %s", luna_safetensors_label(b->file), text);
}

//  Appends `node`; inputs are known to exist because every failure stops the building.
static int append(luna_builder *b, luna_node node)
{
    if (b->err != LUNA_OK) return LUNA_NONE;
    if (b->graph->count == LUNA_GRAPH_MAX) {
        luna_build_fail(b, "the decoder has more than %d operations", LUNA_GRAPH_MAX);
        return LUNA_NONE;
    }
    b->graph->node[b->graph->count] = node;
    return (int)b->graph->count++;
}

static luna_node node_of(luna_op op, int x, size_t channels)
{
    return (luna_node){.op = op,
                       .input = {x, LUNA_NONE, LUNA_NONE},
                       .weight = LUNA_NONE,
                       .bias = LUNA_NONE,
                       .channels = channels};
}

static size_t channels_of(const luna_builder *b, int x)
{
    return b->err == LUNA_OK ? b->graph->node[x].channels : 0;
}

//  The weight's number, an old one when a graph built before has it already.
static int keep(luna_builder *b, luna_weight weight)
{
    luna_weights *w = b->weights;
    for (size_t i = 0; i < w->count; i++)
        if (w->item[i].data == weight.data && strcmp(w->item[i].name, weight.name) == 0)
            return (int)i;
    if (w->count == LUNA_GRAPH_MAX) {
        luna_build_fail(b, "the decoder has more than %d parameter tensors",
                        LUNA_GRAPH_MAX);
        return LUNA_NONE;
    }
    w->item[w->count] = weight;
    return (int)w->count++;
}

//  All of a tensor.
static luna_weight whole(const luna_tensor *tensor)
{
    return (luna_weight){.name = tensor->name,
                         .dtype = tensor->dtype,
                         .data = tensor->data,
                         .count = tensor->count};
}

static const luna_part all = {.index = 0, .count = 1};

//  One of the parts that stand one behind the other.
static luna_weight part_of(luna_weight weight, luna_part part)
{
    weight.count /= part.count;
    const size_t bytes = weight.count * luna_dtype_size(weight.dtype);
    weight.data = (const uint8_t *)weight.data + part.index * bytes;
    return weight;
}

//  The last slice in time of [out, in, time, kernel, kernel].
static luna_weight last_slice(const luna_tensor *tensor)
{
    luna_weight weight = whole(tensor);
    const size_t time = tensor->shape[2];
    weight.run = tensor->shape[3] * tensor->shape[4];
    weight.gap = (time - 1) * weight.run;
    weight.count /= time;
    weight.data =
        (const uint8_t *)tensor->data + weight.gap * luna_dtype_size(tensor->dtype);
    return weight;
}

static const luna_tensor *need(luna_builder *b, const char *name)
{
    if (b->err != LUNA_OK) return NULL;
    const luna_tensor *tensor = luna_safetensors_find(b->file, name);
    if (!tensor)
        luna_build_fail(b, "the tensor '%s' is missing", name);
    else if (!luna_dtype_is_float(tensor->dtype) && !luna_dtype_is_float8(tensor->dtype))
        luna_build_fail(b, "the tensor '%s' is %.20s; weights must be floating-point",
                        name, tensor->dtype_name);
    return b->err == LUNA_OK ? tensor : NULL;
}

//  A parameter of one value a channel, [channels] or [channels, 1, ...], or a part of one
//  that has several parts of so many.
static int need_vector(luna_builder *b, const char *base, const char *end,
                       size_t channels, luna_part part)
{
    char name[NAME_ROOM + 16];
    snprintf(name, sizeof name, "%s%s", base, end);
    const luna_tensor *tensor = need(b, name);
    if (!tensor) return LUNA_NONE;
    const size_t count = channels * part.count;
    if (tensor->rank > 0 && tensor->shape[0] == count && tensor->count == count)
        return keep(b, part_of(whole(tensor), part));
    luna_build_fail(b, "the tensor '%s' must have %zu values, it has %zu", name, count,
                    tensor->count);
    return LUNA_NONE;
}

//  [out, in] of a 1x1 kernel, [out, in, kernel, kernel], or that with time before them.
static bool fits_conv(const luna_builder *b, const luna_tensor *tensor, size_t channels,
                      size_t kernel)
{
    const size_t *shape = tensor->shape, rank = tensor->rank;
    if (rank < 2 || shape[0] == 0 || shape[1] != channels) return false;
    if (rank == 2) return kernel == 1;
    if (rank == 5)
        return b->temporal && shape[2] > 0 && shape[3] == kernel && shape[4] == kernel;
    return rank == 4 && shape[2] == kernel && shape[3] == kernel;
}

static void need_kernel(luna_builder *b, luna_node *node, const char *base,
                        luna_part part)
{
    char name[NAME_ROOM + 16];
    snprintf(name, sizeof name, "%s.weight", base);
    const luna_tensor *tensor = need(b, name);
    if (!tensor) return;
    const size_t channels = channels_of(b, node->input[0]);
    if (!fits_conv(b, tensor, channels, node->kernel) ||
        tensor->shape[0] % part.count != 0 || (tensor->rank == 5 && part.count > 1)) {
        luna_build_fail(b, "the tensor '%s' must have the shape [any, %zu, %s%zu, %zu]",
                        name, channels, b->temporal ? "(time, )" : "", node->kernel,
                        node->kernel);
        return;
    }
    node->channels = tensor->shape[0] / part.count;
    node->weight =
        keep(b, tensor->rank == 5 ? last_slice(tensor) : part_of(whole(tensor), part));
}

static int conv(luna_builder *b, luna_node node, luna_bias bias, luna_part part,
                const char *base)
{
    need_kernel(b, &node, base, part);
    if (bias == LUNA_WITH_BIAS)
        node.bias = need_vector(b, base, ".bias", node.channels, part);
    return append(b, node);
}

int luna_build_conv(luna_builder *b, int x, size_t kernel, luna_bias bias,
                    const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    luna_node node = node_of(LUNA_OP_CONV2D, x, 0);
    node.kernel = kernel;
    return conv(b, node, bias, all, full);
}

int luna_build_conv_part(luna_builder *b, int x, luna_part part, const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    luna_node node = node_of(LUNA_OP_CONV2D, x, 0);
    node.kernel = 1;
    return conv(b, node, LUNA_WITH_BIAS, part, full);
}

int luna_build_rms_norm(luna_builder *b, int x, float epsilon, const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    luna_node node = node_of(LUNA_OP_RMS_NORM, x, channels_of(b, x));
    node.epsilon = epsilon;
    node.weight = need_vector(b, full, ".gamma", node.channels, all);
    return append(b, node);
}

int luna_build_group_norm(luna_builder *b, int x, size_t groups, float epsilon,
                          const char *name, ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    luna_node node = node_of(LUNA_OP_GROUP_NORM, x, channels_of(b, x));
    if (node.channels % groups != 0)
        luna_build_fail(b, "'%s': %zu channels do not make %zu groups", full,
                        node.channels, groups);
    node.groups = groups;
    node.epsilon = epsilon;
    node.weight = need_vector(b, full, ".weight", node.channels, all);
    node.bias = need_vector(b, full, ".bias", node.channels, all);
    return append(b, node);
}

int luna_build_batch_norm_inverse(luna_builder *b, int x, float epsilon, const char *name,
                                  ...)
{
    char full[NAME_ROOM];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    luna_node node = node_of(LUNA_OP_BATCH_NORM_INVERSE, x, channels_of(b, x));
    node.epsilon = epsilon;
    node.weight = need_vector(b, full, ".running_var", node.channels, all);
    node.bias = need_vector(b, full, ".running_mean", node.channels, all);
    return append(b, node);
}

int luna_build_input(luna_builder *b, size_t channels)
{
    return append(b, node_of(LUNA_OP_INPUT, LUNA_NONE, channels));
}

size_t luna_build_latent_channels(luna_builder *b, const char *name, ...)
{
    char full[NAME_ROOM], weight[NAME_ROOM + 8];
    va_list args;
    va_start(args, name);
    compose(b, full, name, args);
    va_end(args);
    snprintf(weight, sizeof weight, "%s.weight", full);
    const luna_tensor *tensor = need(b, weight);
    if (!tensor) return 0;
    const size_t channels = tensor->rank >= 2 ? tensor->shape[1] : 0;
    if (channels == 0) luna_build_fail(b, "the tensor '%s' reads no channels", weight);
    return channels;
}

int luna_build_add(luna_builder *b, int x, int y)
{
    luna_node node = node_of(LUNA_OP_ADD, x, channels_of(b, x));
    node.input[1] = y;
    if (channels_of(b, y) != node.channels)
        luna_build_fail(b, "a residual of %zu channels meets one of %zu", node.channels,
                        channels_of(b, y));
    return append(b, node);
}

int luna_build_attention(luna_builder *b, int q, int k, int v)
{
    luna_node node = node_of(LUNA_OP_ATTENTION, q, channels_of(b, q));
    node.input[1] = k;
    node.input[2] = v;
    if (channels_of(b, k) != node.channels || channels_of(b, v) != node.channels)
        luna_build_fail(b, "an attention of %zu, %zu and %zu channels", node.channels,
                        channels_of(b, k), channels_of(b, v));
    return append(b, node);
}

int luna_build_affine(luna_builder *b, int x, float scale, float shift)
{
    luna_node node = node_of(LUNA_OP_AFFINE, x, channels_of(b, x));
    if (scale == 1.0F && shift == 0.0F) return x;
    node.scale = scale;
    node.shift = shift;
    return append(b, node);
}

int luna_build_tanh_clamp(luna_builder *b, int x, float scale)
{
    luna_node node = node_of(LUNA_OP_TANH_CLAMP, x, channels_of(b, x));
    node.scale = scale;
    return append(b, node);
}

int luna_build_plain(luna_builder *b, luna_op op, int x)
{
    const size_t channels = channels_of(b, x);
    return append(b, node_of(op, x, op == LUNA_OP_UNPACK ? channels / 4 : channels));
}

void luna_build_refuse_other(luna_builder *b, const char *name)
{
    for (size_t i = 0; i < b->weights->count; i++)
        if (strcmp(b->weights->item[i].name, name) == 0) return;
    luna_build_fail(b, "the tensor '%.80s' belongs to no decoder Luna knows", name);
}

void luna_build_refuse_others(luna_builder *b, const char *start)
{
    char full[NAME_ROOM];
    const int n = snprintf(full, sizeof full, "%s%s", b->prefix, start);
    for (size_t i = 0; i < luna_safetensors_count(b->file); i++) {
        const char *name = luna_safetensors_at(b->file, i)->name;
        if (strncmp(name, full, (size_t)n) == 0) luna_build_refuse_other(b, name);
    }
}
