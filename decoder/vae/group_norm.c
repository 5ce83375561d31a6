#include "decoder/vae/group_norm.h"

#include <math.h>

//  The channels of one group that lie in one block: `lanes` values every `block` floats.
typedef struct run {
    size_t start;  //  index of the first value
    size_t lanes;
} run;

static run run_at(const luna_group_norm *n, size_t channel, size_t end)
{
    const size_t lane = channel % n->block;
    const size_t left = end - channel, room = n->block - lane;
    return (run){.start = channel / n->block * n->pixels * n->block + lane,
                 .lanes = left < room ? left : room};
}

static double sum(const luna_group_norm *n, const float *x, run r)
{
    double total = 0.0;
    for (size_t p = 0; p < n->pixels; p++)
        for (size_t i = 0; i < r.lanes; i++) total += x[r.start + p * n->block + i];
    return total;
}

static double sum_squares(const luna_group_norm *n, const float *x, run r, double mean)
{
    double total = 0.0;
    for (size_t p = 0; p < n->pixels; p++)
        for (size_t i = 0; i < r.lanes; i++) {
            const double off = x[r.start + p * n->block + i] - mean;
            total += off * off;
        }
    return total;
}

typedef struct group_stats {
    double mean;
    double scale;  //  1 / sqrt(variance + epsilon)
} group_stats;

//  In double to the end: with x * scale + offset in float a mean far from zero would take
//  the low bits of every value with it.
static void apply(const luna_group_norm *n, const float *x, float *out, size_t channel,
                  const group_stats *stats)
{
    const double scale = stats->scale * n->weight[channel], bias = n->bias[channel];
    const size_t start = run_at(n, channel, channel + 1).start;
    for (size_t p = 0; p < n->pixels; p++) {
        const size_t at = start + p * n->block;
        out[at] = (float)((x[at] - stats->mean) * scale + bias);
    }
}

void luna_group_norm_run(const luna_group_norm *norm, const float *x, float *out)
{
    const size_t width = norm->channels / norm->groups;
    const double values = (double)width * (double)norm->pixels;
    for (size_t begin = 0; begin < norm->channels; begin += width) {
        double total = 0.0, squares = 0.0;
        const size_t end = begin + width;
        for (size_t c = begin; c < end; c += run_at(norm, c, end).lanes)
            total += sum(norm, x, run_at(norm, c, end));
        const double mean = total / values;
        for (size_t c = begin; c < end; c += run_at(norm, c, end).lanes)
            squares += sum_squares(norm, x, run_at(norm, c, end), mean);
        const group_stats stats = {.mean = mean,
                                   .scale = 1.0 / sqrt(squares / values + norm->epsilon)};
        for (size_t c = begin; c < end; c++) apply(norm, x, out, c, &stats);
    }
}
