#include "decoder/vae/attention.h"

#include <math.h>
#include <string.h>

void luna_softmax_run(float *values, size_t count)
{
    float largest = values[0];
    double sum = 0.0;
    for (size_t i = 1; i < count; i++)
        if (values[i] > largest) largest = values[i];
    for (size_t i = 0; i < count; i++) {
        values[i] = expf(values[i] - largest);
        sum += values[i];
    }
    const float scale = (float)(1.0 / sum);
    for (size_t i = 0; i < count; i++) values[i] *= scale;
}

//  The scores of pixel `p` with all others; channel by channel, so that rows are read in
//  order.
static void score(const luna_attention *a, size_t p, float *scores)
{
    const float scale = 1.0F / sqrtf((float)a->channels);
    memset(scores, 0, a->pixels * sizeof *scores);
    for (size_t c = 0; c < a->channels; c++) {
        const float q = a->q[c * a->pixels + p] * scale;
        const float *k = a->k + c * a->pixels;
        for (size_t i = 0; i < a->pixels; i++) scores[i] += q * k[i];
    }
}

static float weigh(const float *weights, const float *v, size_t count)
{
    enum { LANES = 8 };  //  independent sums, for the compiler's vectors
    float sums[LANES] = {0}, sum = 0.0F;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t k = 0; k < LANES; k++) sums[k] += weights[i + k] * v[i + k];
    for (; i < count; i++) sum += weights[i] * v[i];
    for (size_t k = 0; k < LANES; k++) sum += sums[k];
    return sum;
}

void luna_attention_run(const luna_attention *attention, float *scratch, float *out)
{
    const size_t pixels = attention->pixels;
    for (size_t p = 0; p < pixels; p++) {
        score(attention, p, scratch);
        luna_softmax_run(scratch, pixels);
        for (size_t c = 0; c < attention->channels; c++)
            out[c * pixels + p] = weigh(scratch, attention->v + c * pixels, pixels);
    }
}
