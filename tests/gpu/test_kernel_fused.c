//  The fused convolution: norm, activation, residual or shortcut and the next norm's
//  statistics in one.

#include "kernel_test.h"

//  A card made of lanes takes its time (lanes/lanes.h).
#ifdef LUNA_LANES
enum { CASES = 6, SIDE_MOST = 20, CHUNKS_MOST = 2, RUNS = 2 };
#else
enum { CASES = 16, SIDE_MOST = 70, CHUNKS_MOST = 4, RUNS = 3 };
#endif

typedef struct fused_case {
    gpu_type type;
    int from, beside, to, height, width;
    bool folded, norm, residual;
    float spread;  //  of x
} fused_case;

typedef struct fused_data {
    subject x, beside, residual;
    float *weight, *shortcut, *bias;
    gpu_pair *pairs;
    gpu_fused_args args;
    gpu_extent result;
    gpu_parts parts;
    void *y;
} fused_data;

static void *pack_fused(const fused_case *c, const fused_data *d)
{
    const gpu_fused_weights weights = {.from = c->from,
                                       .beside = c->beside,
                                       .to = c->to,
                                       .folded = c->folded,
                                       .weight = d->weight,
                                       .shortcut = d->shortcut};
    const size_t bytes = gpu_fused_weight_bytes(&weights);
    void *packed = malloc(bytes);
    assert_non_null(packed);
    gpu_fused_pack(c->type, &weights, packed);
    void *device = to_device(packed, bytes);
    free(packed);
    return device;
}

static fused_data new_fused(const fused_case *c)
{
    fused_data d = {.parts = {c->height, c->width, c->folded}};
    const int grow = c->folded ? 2 : 1, beside = c->beside ? c->beside : 8;
    const size_t parts = gpu_part_count(&d.parts) * (size_t)c->to / GPU_PART_CHANNELS;
    gpu_pair *pairs = NULL;
    d.result = (gpu_extent){c->type, c->to, grow * c->height, grow * c->width};
    d.x = new_subject(c->type, c->from, c->height, c->width, c->spread, 0.5F);
    d.beside = new_subject(c->type, beside, c->height, c->width, 1.0F, 0.0F);
    d.residual = new_subject(c->type, c->to, d.result.height, d.result.width, 3.0F, 5.0F);
    d.weight = random_floats((size_t)c->to * (size_t)c->from * 9,
                             1.0F / sqrtf(9.0F * (float)c->from), 0.0F);
    d.shortcut =
        random_floats((size_t)c->to * (size_t)beside, 1.0F / sqrtf((float)beside), 0.0F);
    d.bias = random_floats((size_t)c->to, 1.0F, 0.0F);
    d.pairs = random_pairs(c->from, &pairs);
    d.y = device_room(gpu_bytes(&d.result));
    d.args = (gpu_fused_args){.from = d.x.extent,
                              .channels = c->to,
                              .folded = c->folded,
                              .pairs = c->norm ? pairs : NULL,
                              .weight = pack_fused(c, &d),
                              .bias = to_device(d.bias, (size_t)c->to * sizeof *d.bias),
                              .residual = c->residual ? d.residual.device : NULL,
                              .beside = c->beside ? d.beside.device : NULL,
                              .beside_channels = c->beside,
                              .parts = device_room(parts * sizeof(gpu_moments))};
    return d;
}

//  The value that the convolution reads, enlarged and activated, as the card rounds it.
static double fused_input(const fused_case *c, const fused_data *d, int channel, int y,
                          int x)
{
    if (y < 0 || x < 0 || y >= d->result.height || x >= d->result.width) return 0.0;
    const int grow = c->folded ? 2 : 1;
    const size_t at =
        ((size_t)channel * (size_t)c->height + (size_t)(y / grow)) * (size_t)c->width +
        (size_t)(x / grow);
    const double v = d->x.values[at];
    return c->norm
               ? act_of(GPU_SILU, d->pairs[channel].scale * v + d->pairs[channel].offset)
               : v;
}

static double fused_value(const fused_case *c, const fused_data *d, int channel, int y,
                          int x)
{
    const size_t pixel = (size_t)y * (size_t)d->result.width + (size_t)x;
    const size_t pixels = gpu_pixels(&d->result);
    double sum = d->bias[channel];
    for (int i = 0; i < c->from; i++)
        for (int tap = 0; tap < 9; tap++)
            sum += (double)d->weight[((size_t)channel * (size_t)c->from + (size_t)i) * 9 +
                                     (size_t)tap] *
                   fused_input(c, d, i, y + tap / 3 - 1, x + tap % 3 - 1);
    for (int i = 0; i < c->beside; i++)
        sum += (double)d->shortcut[(size_t)channel * (size_t)c->beside + (size_t)i] *
               d->beside.values[(size_t)i * pixels + pixel];
    return c->residual ? sum + d->residual.values[(size_t)channel * pixels + pixel] : sum;
}

//  All borders and a sample of the rest: the definition in double is slow.
static void compare_fused(const fused_case *c, const fused_data *d, const float *is)
{
    const int height = d->result.height, width = d->result.width;
    const size_t pixels = gpu_pixels(&d->result);
    for (int i = 0; i < 3000; i++) {
        const int channel = (int)random_below((size_t)c->to);
        int y = (int)random_below((size_t)height), x = (int)random_below((size_t)width);
        if (i % 4 == 0) y = i % 8 ? 0 : height - 1;
        if (i % 5 == 0) x = i % 10 ? 0 : width - 1;
        const double wanted = fused_value(c, d, channel, y, x);
        const double got =
            is[(size_t)channel * pixels + (size_t)y * (size_t)width + (size_t)x];
        if (!(fabs(got - wanted) <= tolerance(c->type) * 4.0 * (double)c->spread))
            fail_msg(
                "fused %s %d+%d to %d, %dx%d%s: channel %d at %d, %d is %.7g, not %.7g",
                type_names[c->type], c->from, c->beside, c->to, c->height, c->width,
                c->folded ? " folded" : "", channel, y, x, got, wanted);
    }
}

//  The norm by the statistics that were left is the norm by the value itself.
static void compare_parts(const fused_case *c, const fused_data *d)
{
    const size_t room = (size_t)c->to;
    float *ones = random_floats(room, 0.0F, 1.0F),
          *device = to_device(ones, room * sizeof *ones);
    const gpu_norm norm = {.from = d->result,
                           .groups = c->to / 16,
                           .epsilon = 1e-6F,
                           .weight = device,
                           .bias = device};
    void *scratch = device_room(gpu_norm_scratch(&norm));
    gpu_pair *pairs[2];
    float *is[2];
    for (int i = 0; i < 2; i++) pairs[i] = device_room(room * sizeof(gpu_pair));
    ok(gpu_norm_pairs(&norm, d->y, scratch, pairs[0], NULL));
    ok(gpu_norm_pairs_of_parts(&norm, &d->parts, d->args.parts, pairs[1], NULL));
    for (int i = 0; i < 2; i++) is[i] = from_device(pairs[i], 2 * room);
    for (size_t i = 0; i < 2 * room; i++)
        if (!(fabs((double)is[0][i] - is[1][i]) <= 1e-4 * (1.0 + fabs((double)is[0][i]))))
            fail_msg("pair %zu of the parts is %.7g, of the value %.7g", i / 2,
                     (double)is[1][i], (double)is[0][i]);
    for (int i = 0; i < 2; i++) {
        free(is[i]);
        ok(cudaFree(pairs[i]));
    }
    ok(cudaFree(scratch));
    ok(cudaFree(device));
    free(ones);
}

static void free_fused(fused_data *d)
{
    const void *device[] = {d->args.pairs, d->args.weight, d->args.bias, d->args.parts,
                            d->y};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        ok(cudaFree((void *)(uintptr_t)device[i]));
    free_subject(&d->x);
    free_subject(&d->beside);
    free_subject(&d->residual);
    free(d->weight);
    free(d->shortcut);
    free(d->bias);
    free(d->pairs);
}

//  Where that is a question of blocks, few at first, so that each goes through several
//  tiles.
static cudaError_t start(gpu_fuser fuser, const fused_data *d, int run)
{
    if (fuser == GPU_FUSER_WGMMA)
        return gpu_conv_wgmma(&d->args, d->x.device, d->y, run == 0 ? 2 : 132, NULL);
    return gpu_conv_mma(&d->args, d->x.device, d->y, fuser == GPU_FUSER_MMA_HALF, NULL);
}

static void one_fused(gpu_fuser fuser, const fused_case *c)
{
    fused_data d = new_fused(c);
    float *first = NULL;
    for (int i = 0; i < RUNS; i++) {
        ok(start(fuser, &d, i));
        float *is = planes_of(&d.result, d.y);
        if (first)
            assert_memory_equal(is, first,
                                gpu_pixels(&d.result) * (size_t)c->to * sizeof *is);
        else
            compare_fused(c, &d, is);
        free(first);
        first = is;
    }
    compare_parts(c, &d);
    free(first);
    free_fused(&d);
}

static void skip_before(int major)
{
    struct cudaDeviceProp card;
    ok(cudaGetDeviceProperties(&card, 0));
    if (card.major >= major && (major != 9 || card.major == 9)) return;
    print_message("the card does not have this fused convolution\n");
    skip();
}

static void all_kinds(gpu_fuser fuser)
{
    for (int i = 0; i < CASES; i++) {
        const fused_case c = {
            .type = types[i % 2],
            .from = 64 * (1 + (int)random_below(CHUNKS_MOST)),
            .beside = i % 3 == 0 ? 64 * (1 + (int)random_below(CHUNKS_MOST)) : 0,
            .to = 128 * (1 + (int)random_below(2)),
            .height = 1 + (int)random_below(SIDE_MOST),
            .width = 1 + (int)random_below(SIDE_MOST),
            .folded = i % 3 == 1,
            .norm = i % 4 != 1,
            .residual = i % 4 > 1,
            .spread = i % 5 == 4 ? 200.0F : 2.0F};
        one_fused(fuser, &c);
    }
}

static void by_wgmma(void **state)
{
    (void)state;
    skip_before(9);
    all_kinds(GPU_FUSER_WGMMA);
}

static void by_mma(void **state)
{
    (void)state;
    skip_before(8);
    all_kinds(GPU_FUSER_MMA);
}

static void by_mma_with_short_sums_in_half(void **state)
{
    (void)state;
    skip_before(8);
    all_kinds(GPU_FUSER_MMA_HALF);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_wgmma),
        cmocka_unit_test(by_mma),
        cmocka_unit_test(by_mma_with_short_sums_in_half),
    };
    fresh_seed();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
