#include "decoder/vae/elementwise.h"

#include <math.h>

static float one(const luna_node *node, float x)
{
    //  Written so that NaN stays NaN: it must be seen at the end, not hidden.
    if (node->op == LUNA_OP_RELU) return x < 0.0F ? 0.0F : x;
    if (node->op == LUNA_OP_SILU) return x / (1.0F + expf(-x));
    if (node->op == LUNA_OP_TANH_CLAMP) return node->scale * tanhf(x / node->scale);
    return (x - node->shift) * node->scale;
}

void luna_elementwise_run(const luna_node *node, const float *x, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) out[i] = one(node, x[i]);
}

void luna_unpack_run(const luna_shape *result, const float *x, float *out)
{
    const size_t h = result->height, w = result->width;
    for (size_t c = 0; c < result->channels; c++)
        for (size_t y = 0; y < h; y++)
            for (size_t column = 0; column < w; column++) {
                const size_t from = 4 * c + 2 * (y % 2) + column % 2;
                out[(c * h + y) * w + column] =
                    x[(from * (h / 2) + y / 2) * (w / 2) + column / 2];
            }
}

void luna_upsample_run(const luna_shape *result, const float *x, float *out)
{
    const size_t h = result->height, w = result->width;
    for (size_t c = 0; c < result->channels; c++)
        for (size_t y = 0; y < h; y++)
            for (size_t column = 0; column < w; column++)
                out[(c * h + y) * w + column] =
                    x[(c * (h / 2) + y / 2) * (w / 2) + column / 2];
}
