#include "decoder/image/quality.h"

#include <stdlib.h>

#define VARIANCE_WHOLE     3000.0
#define EDGE_DENSITY_WHOLE (0.05 * 255.0)

//  Luma in thousandths of a level: 0 to 255000. Sums of whole numbers stay exact.
//  The first byte of a sample is its upper one.
static int32_t luma(const uint8_t *pixel, size_t sample_bytes)
{
    return 299 * pixel[0] + 587 * pixel[sample_bytes] + 114 * pixel[2 * sample_bytes];
}

typedef struct sums {
    double squares;  //  of the distance from `origin`
    int64_t values;
    int64_t across, down;
} sums;

//  Variance is taken around the first pixel's luma, so that nothing cancels.
static void add_row(const luna_pixels *p, size_t y, int32_t origin, sums *to)
{
    const size_t sample = p->sample_bytes, step = p->channels * sample;
    const size_t stride = p->width * step;
    const uint8_t *row = p->data + y * stride;
    int64_t squares = 0;  //  a row of 10^6 pixels: below 10^17
    for (size_t x = 0; x < p->width; x++) {
        const uint8_t *at = row + x * step;
        const int32_t here = luma(at, sample), distance = here - origin;
        squares += (int64_t)distance * distance;
        to->values += distance;
        if (x > 0) to->across += abs(here - luma(at - step, sample));
        if (y > 0) to->down += abs(here - luma(at - stride, sample));
    }
    to->squares += (double)squares;
}

static double at_most_one(double value)
{
    return value < 1.0 ? value : 1.0;
}

static double mean(int64_t sum, size_t count)
{
    return count ? (double)sum / (double)count : 0.0;
}

luna_quality luna_image_quality(const luna_pixels *p)
{
    const size_t count = p->width * p->height;
    sums all = {0};
    const int32_t origin = luma(p->data, p->sample_bytes);
    for (size_t y = 0; y < p->height; y++) add_row(p, y, origin, &all);
    const double middle = mean(all.values, count);
    const double variance = all.squares / (double)count - middle * middle;
    const double across = mean(all.across, (p->width - 1) * p->height);
    const double down = mean(all.down, p->width * (p->height - 1));
    return (luna_quality){
        .variance = at_most_one((variance > 0 ? variance : 0) / 1e6 / VARIANCE_WHOLE),
        .edge_density = at_most_one((across + down) / 2 / 1e3 / EDGE_DENSITY_WHOLE)};
}
