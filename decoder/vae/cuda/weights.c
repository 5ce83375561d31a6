//  Parameters in the forms that the steps read.

#include "decoder/vae/cuda/gpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct gpu_weight {
    int number;  //  in luna_weights
    gpu_form form;
    int exponent;
    int beside;  //  in a fused convolution's: another weight's number; else LUNA_NONE
    int beside_exponent;
    void *data;
} gpu_weight;

//  A weight on its way, in host memory; what is only room stays 0.
typedef struct packer {
    const float *from;
    float *to;
    size_t in, out;            //  channels
    size_t in_room, out_room;  //  filled up
    size_t kernel;
} packer;

static float weight_at(const packer *p, size_t out, size_t in, size_t row, size_t column)
{
    return p->from[((out * p->in + in) * p->kernel + row) * p->kernel + column];
}

static void pack_conv(const packer *p)
{
    const size_t taps = p->kernel * p->kernel;
    for (size_t o = 0; o < p->out; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < p->in; i++)
                p->to[(o * taps + t) * p->in_room + i] =
                    weight_at(p, o, i, t / p->kernel, t % p->kernel);
}

static float folded_at(const packer *p, size_t out, size_t in, size_t tap)
{
    return gpu_folded_weight(p->from + (out * p->in + in) * 9, tap / 4, tap % 4);
}

static void pack_folded(const packer *p)
{
    for (size_t i = 0; i < p->in; i++)
        for (size_t t = 0; t < 16; t++)
            for (size_t o = 0; o < p->out; o++)
                p->to[(i * 16 + t) * p->out_room + o] = folded_at(p, o, i, t);
}

static size_t packed_count(const packer *p, gpu_form form)
{
    if (form == GPU_FORM_FOLDED) return p->in_room * 16 * p->out_room;
    return p->out_room * p->kernel * p->kernel * p->in_room;
}

static luna_err to_device(gpu_lane *lane, const void *data, size_t bytes, void **out)
{
    void *memory = NULL;
    LUNA_TRY(gpu_check(cudaMalloc(&memory, bytes), "the decoder's weights"));
    const luna_err err = gpu_check(
        cudaMemcpy(memory, data, bytes, cudaMemcpyHostToDevice), "bringing weights");
    if (err != LUNA_OK) (void)cudaFree(memory);
    if (err == LUNA_OK) *out = memory;
    lane->weight_bytes += err == LUNA_OK ? bytes : 0;
    return err;
}

static luna_err pack_last(gpu_lane *lane, const packer *p, void **out)
{
    const size_t bytes = gpu_conv_last_bytes((int)p->in);
    void *fragments = malloc(bytes);
    if (!fragments) return luna_error(LUNA_NO_MEMORY, "no memory for a weight");
    gpu_conv_last_pack(lane->type, p->from, (int)p->out, (int)p->in, fragments);
    const luna_err err = to_device(lane, fragments, bytes, out);
    free(fragments);
    return err;
}

static luna_err pack_narrow(gpu_lane *lane, const packer *p, bool folded, void **out)
{
    const size_t bytes = gpu_narrow_weight_bytes(folded);
    void *packed = malloc(bytes);
    if (!packed) return luna_error(LUNA_NO_MEMORY, "no memory for a weight");
    gpu_narrow_pack(lane->type, p->from, folded, packed);
    const luna_err err = to_device(lane, packed, bytes, out);
    free(packed);
    return err;
}

static luna_err pack(gpu_lane *lane, packer *p, gpu_form form, void **out)
{
    if (form == GPU_FORM_LAST) return pack_last(lane, p, out);
    if (form == GPU_FORM_NARROW || form == GPU_FORM_NARROW_FOLDED)
        return pack_narrow(lane, p, form == GPU_FORM_NARROW_FOLDED, out);
    const size_t count = packed_count(p, form);
    p->to = calloc(count, sizeof *p->to);
    if (!p->to) return luna_error(LUNA_NO_MEMORY, "no memory for a weight");
    if (form == GPU_FORM_FOLDED)
        pack_folded(p);
    else
        pack_conv(p);
    if (lane->type != GPU_FP32) gpu_narrow(lane->type, p->to, count);
    const luna_err err = to_device(lane, p->to, count * gpu_size(lane->type), out);
    free(p->to);
    return err;
}

//  Times 2^exponent, which rounds nothing.
static void scale(float *values, size_t count, int exponent)
{
    const float power = ldexpf(1.0F, exponent);
    for (size_t i = 0; exponent != 0 && i < count; i++) values[i] *= power;
}

static luna_err make(gpu_lane *lane, const luna_node *node, size_t from_channels,
                     gpu_weight *weight)
{
    float *values = NULL;
    const luna_weight *item = &lane->weights->item[weight->number];
    LUNA_TRY(luna_backend_floats(item, &values));
    scale(values, item->count, weight->exponent);
    packer p = {.from = values,
                .in = from_channels,
                .out = node->channels,
                .in_room = gpu_room(from_channels),
                .out_room = gpu_room(node->channels),
                .kernel = node->kernel};
    const luna_err err = pack(lane, &p, weight->form, &weight->data);
    free(values);
    return err;
}

static luna_err keep(gpu_lane *lane, const gpu_weight *weight)
{
    gpu_weight *larger = realloc(lane->kept, (lane->kept_count + 1) * sizeof *lane->kept);
    if (!larger) return luna_error(LUNA_NO_MEMORY, "no memory for a weight");
    lane->kept = larger;
    lane->kept[lane->kept_count++] = *weight;
    return LUNA_OK;
}

//  One made before, or NULL.
static const gpu_weight *find(const gpu_lane *lane, const gpu_weight *wanted)
{
    for (size_t i = 0; i < lane->kept_count; i++) {
        const gpu_weight *is = &lane->kept[i];
        if (is->number == wanted->number && is->form == wanted->form &&
            is->exponent == wanted->exponent && is->beside == wanted->beside &&
            is->beside_exponent == wanted->beside_exponent)
            return is;
    }
    return NULL;
}

static luna_err keep_made(gpu_lane *lane, const gpu_weight *weight, const void **out)
{
    const luna_err err = keep(lane, weight);
    if (err != LUNA_OK) (void)cudaFree(weight->data);
    if (err == LUNA_OK) *out = weight->data;
    return err;
}

luna_err gpu_lane_weight(gpu_lane *lane, const luna_node *node, size_t from_channels,
                         gpu_form form, int exponent, const void **out)
{
    gpu_weight weight = {
        .number = node->weight, .form = form, .exponent = exponent, .beside = LUNA_NONE};
    const gpu_weight *is = find(lane, &weight);
    if (is) {
        *out = is->data;
        return LUNA_OK;
    }
    LUNA_TRY(make(lane, node, from_channels, &weight));
    return keep_made(lane, &weight, out);
}

//  ---- fused ------------------------------------------------------------------------

//  A weight's values times 2^exponent.
static luna_err scaled(const gpu_lane *lane, int number, int exponent, float **out)
{
    const luna_weight *item = &lane->weights->item[number];
    LUNA_TRY(luna_backend_floats(item, out));
    scale(*out, item->count, exponent);
    return LUNA_OK;
}

static luna_err bring_fused(gpu_lane *lane, const gpu_fused_weights *weights, void **out)
{
    const size_t bytes = gpu_fused_weight_bytes(weights);
    void *packed = malloc(bytes);
    if (!packed) return luna_error(LUNA_NO_MEMORY, "no memory for a weight");
    gpu_fused_pack(lane->type, weights, packed);
    const luna_err err = to_device(lane, packed, bytes, out);
    free(packed);
    return err;
}

static luna_err make_fused(gpu_lane *lane, const gpu_fused_request *r, void **out)
{
    float *weight = NULL, *shortcut = NULL;
    luna_err err = scaled(lane, r->node->weight, r->exponent, &weight);
    if (err == LUNA_OK && r->beside)
        err = scaled(lane, r->beside->weight, r->beside_exponent, &shortcut);
    const gpu_fused_weights weights = {.from = (int)r->from_channels,
                                       .beside = r->beside ? (int)r->beside_channels : 0,
                                       .to = (int)r->node->channels,
                                       .folded = r->folded,
                                       .weight = weight,
                                       .shortcut = shortcut};
    if (err == LUNA_OK) err = bring_fused(lane, &weights, out);
    free(weight);
    free(shortcut);
    return err;
}

luna_err gpu_lane_fused(gpu_lane *lane, const gpu_fused_request *r, const void **out)
{
    gpu_weight weight = {.number = r->node->weight,
                         .form = r->folded ? GPU_FORM_FUSED_FOLDED : GPU_FORM_FUSED,
                         .exponent = r->exponent,
                         .beside = r->beside ? r->beside->weight : LUNA_NONE,
                         .beside_exponent = r->beside ? r->beside_exponent : 0};
    const gpu_weight *is = find(lane, &weight);
    if (is) {
        *out = is->data;
        return LUNA_OK;
    }
    LUNA_TRY(make_fused(lane, r, &weight.data));
    return keep_made(lane, &weight, out);
}

void gpu_lane_free(gpu_lane *lane)
{
    for (size_t i = 0; i < lane->kept_count; i++) (void)cudaFree(lane->kept[i].data);
    free(lane->kept);
    lane->kept = NULL;
    lane->kept_count = 0;
    lane->weight_bytes = 0;
}
