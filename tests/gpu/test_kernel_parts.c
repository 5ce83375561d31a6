//  Group norm from statistics that are there already, against its definition in double.

#include "gpu_test.h"

typedef struct parts_case {
    gpu_parts parts;
    int groups, width;  //  channels of a group
    float centre, spread;
} parts_case;

typedef struct parts_data {
    gpu_norm norm;
    size_t count, runs;
    float *weight, *bias;
    gpu_moments *moments, *device;
    gpu_pair *pairs;
} parts_data;

//  Pixels of a part: squares of 16, cut off at the picture's border.
static double part_pixels(const gpu_parts *p, size_t part)
{
    const int square = (int)(p->folded ? part / 4 : part), columns = (p->width + 15) / 16;
    const int down = p->height - square / columns * 16;
    const int across = p->width - square % columns * 16;
    return (double)((down < 16 ? down : 16) * (across < 16 ? across : 16));
}

static parts_data new_parts(const parts_case *c)
{
    parts_data d = {.count = gpu_part_count(&c->parts)};
    const int grow = c->parts.folded ? 2 : 1;
    const size_t channels = (size_t)(c->groups * c->width);
    d.runs = channels / GPU_PART_CHANNELS;
    d.weight = random_floats(channels, 1.0F, 0.0F);
    d.bias = random_floats(channels, 1.0F, 0.0F);
    d.moments = calloc(d.runs * d.count, sizeof *d.moments);
    assert_non_null(d.moments);
    for (size_t i = 0; i < d.runs * d.count; i++) {
        const float n = (float)part_pixels(&c->parts, i % d.count) * GPU_PART_CHANNELS;
        d.moments[i].mean = c->centre + c->spread * random_float();
        d.moments[i].squares = n * c->spread * (1.1F + random_float());
    }
    d.device = to_device(d.moments, d.runs * d.count * sizeof *d.moments);
    d.pairs = device_room(gpu_room(channels) * sizeof *d.pairs);
    d.norm = (gpu_norm){
        .from = {GPU_FP16, (int)channels, grow * c->parts.height, grow * c->parts.width},
        .groups = c->groups,
        .epsilon = 1e-6F,
        .weight = to_device(d.weight, channels * sizeof *d.weight),
        .bias = to_device(d.bias, channels * sizeof *d.bias)};
    return d;
}

static void free_parts(parts_data *d)
{
    void *device[] = {d->device, d->pairs, (void *)(uintptr_t)d->norm.weight,
                      (void *)(uintptr_t)d->norm.bias};
    for (int i = 0; i < 4; i++) ok(cudaFree(device[i]));
    free(d->weight);
    free(d->bias);
    free(d->moments);
}

static float *pairs_of(parts_data *d, const parts_case *c)
{
    ok(gpu_norm_pairs_of_parts(&d->norm, &c->parts, d->device, d->pairs, NULL));
    return from_device(d->pairs, 2 * (size_t)d->norm.from.channels);
}

//  Mean and 1 / deviation of one group, by their definition.
static void group_definition(const parts_data *d, const parts_case *c, size_t group,
                             double *mean, double *scale)
{
    const size_t runs = d->runs / (size_t)c->groups, first = group * runs * d->count;
    double all = 0.0, sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < runs * d->count; i++) {
        const double n = part_pixels(&c->parts, i % d->count) * GPU_PART_CHANNELS;
        all += n;
        sum += n * (double)d->moments[first + i].mean;
    }
    *mean = sum / all;
    for (size_t i = 0; i < runs * d->count; i++) {
        const double n = part_pixels(&c->parts, i % d->count) * GPU_PART_CHANNELS;
        const double off = (double)d->moments[first + i].mean - *mean;
        squares += (double)d->moments[first + i].squares + n * off * off;
    }
    *scale = 1.0 / sqrt(squares / all + 1e-6);
}

static void one_parts(const parts_case *c)
{
    parts_data d = new_parts(c);
    float *is = pairs_of(&d, c), *again = pairs_of(&d, c);
    const size_t channels = (size_t)d.norm.from.channels;
    assert_memory_equal(is, again, 2 * channels * sizeof *is);
    for (size_t i = 0; i < channels; i++) {
        double mean, scale;
        group_definition(&d, c, i / (size_t)c->width, &mean, &scale);
        const double to = scale * (double)d.weight[i], offset = d.bias[i] - mean * to;
        if (!(fabs((double)is[2 * i] - to) <= 2e-6 * fabs(to)) ||
            !(fabs((double)is[2 * i + 1] - offset) <= 2e-6 * (1.0 + fabs(mean * to))))
            fail_msg(
                "%dx%d%s, %d groups of %d: channel %zu has %.8g, %.8g, not %.8g, "
                "%.8g",
                c->parts.width, c->parts.height, c->parts.folded ? " folded" : "",
                c->groups, c->width, i, (double)is[2 * i], (double)is[2 * i + 1], to,
                offset);
    }
    free(is);
    free(again);
    free_parts(&d);
}

static void sizes_and_groups(void **state)
{
    (void)state;
    static const parts_case fixed[] = {{{1024, 1024, false}, 32, 4, 0.3F, 1.0F},
                                       {{512, 512, true}, 32, 8, 0.0F, 1.0F},
                                       {{128, 128, false}, 32, 16, 0.0F, 1.0F},
                                       {{1080, 1928, false}, 32, 4, 1.0F, 1.0F},
                                       {{1, 1, false}, 1, 4, 0.0F, 1.0F},
                                       {{300, 200, true}, 2, 256, -1.0F, 0.5F}};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) one_parts(&fixed[i]);
    for (int i = 0; i < 20; i++) {
        const parts_case c = {
            {1 + (int)random_below(200), 1 + (int)random_below(200), i % 2},
            1 + (int)random_below(40),
            4 * (1 + (int)random_below(20)),
            random_float(),
            0.1F + (float)random_below(3)};
        one_parts(&c);
    }
}

//  Means a thousand times their distances: sums of squares in fp32 would be noise.
static void far_from_zero(void **state)
{
    (void)state;
    static const parts_case cases[] = {{{700, 900, false}, 32, 4, 1000.0F, 1.0F},
                                       {{256, 256, true}, 32, 8, -3000.0F, 2.0F}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) one_parts(&cases[i]);
}

//  What is no number in one part makes its group's pairs none, and no other's.
static void not_numbers_are_seen(void **state)
{
    (void)state;
    const parts_case c = {{200, 100, false}, 8, 8, 0.0F, 1.0F};
    static const gpu_moments bad[] = {{NAN, 1.0F}, {INFINITY, 1.0F}, {0.0F, INFINITY}};
    for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
        parts_data d = new_parts(&c);
        const size_t group = random_below(8), each = d.runs / 8 * d.count;
        ok(cudaMemcpy(d.device + group * each + random_below(each), &bad[b],
                      sizeof bad[b], cudaMemcpyHostToDevice));
        float *is = pairs_of(&d, &c);
        for (size_t i = 0; i < 64; i++)
            assert_int_equal(isfinite(is[2 * i]) && isfinite(is[2 * i + 1]),
                             i / 8 != group);
        free(is);
        free_parts(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_groups),
        cmocka_unit_test(far_from_zero),
        cmocka_unit_test(not_numbers_are_seen),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
