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

//  out = x * scale + offset of each lane's channel.
static void apply_lane(const luna_group_norm *n, const float *x, float *out, size_t start,
                       const double factor[2])
{
    const float scale = (float)factor[0], offset = (float)factor[1];
    for (size_t p = 0; p < n->pixels; p++) {
        const size_t at = start + p * n->block;
        out[at] = x[at] * scale + offset;
    }
}

static void apply(const luna_group_norm *n, const float *x, float *out, size_t begin,
                  const double stats[2])
{
    const size_t end = begin + n->channels / n->groups;
    for (size_t c = begin; c < end; c++) {
        const double scale = stats[1] * n->weight[c];
        const double factor[2] = {scale, n->bias[c] - stats[0] * scale};
        apply_lane(n, x, out, run_at(n, c, c + 1).start, factor);
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
        const double stats[2] = {mean, 1.0 / sqrt(squares / values + norm->epsilon)};
        apply(norm, x, out, begin, stats);
    }
}
