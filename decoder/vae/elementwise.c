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

//  sqrt(channels) / max(sqrt(sum of squares), epsilon) of one pixel.
static double rms_scale(const luna_shape *shape, float epsilon, const float *x)
{
    double squares = 0.0;
    const size_t area = shape->height * shape->width;
    for (size_t c = 0; c < shape->channels; c++)
        squares += (double)x[c * area] * x[c * area];
    const double length = sqrt(squares);
    return sqrt((double)shape->channels) / (length < epsilon ? epsilon : length);
}

void luna_rms_norm_run(const luna_shape *shape, float epsilon, const float *weight,
                       const float *x, float *out)
{
    const size_t area = shape->height * shape->width;
    for (size_t p = 0; p < area; p++) {
        const double scale = rms_scale(shape, epsilon, x + p);
        for (size_t c = 0; c < shape->channels; c++)
            out[c * area + p] = (float)(x[c * area + p] * scale * weight[c]);
    }
}

void luna_batch_norm_inverse_run(const luna_shape *shape, float epsilon,
                                 const float *weight, const float *bias, const float *x,
                                 float *out)
{
    const size_t area = shape->height * shape->width;
    for (size_t c = 0; c < shape->channels; c++) {
        const float deviation = sqrtf(weight[c] + epsilon);
        for (size_t p = 0; p < area; p++)
            out[c * area + p] = x[c * area + p] * deviation + bias[c];
    }
}
