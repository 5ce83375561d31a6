//  The convolution of tiny decoders: from 64 channels to 64, with bias, residual and
//  ReLU, or with the nearest 2 x 2 before it.

#include "kernel_test.h"

enum { CHANNELS = GPU_NARROW_CHANNELS, CASES = 24, RUNS = 3 };

typedef struct narrow_case {
    gpu_type type;
    int height, width;
    bool folded, bias, residual, relu;
} narrow_case;

static void *pack(const narrow_case *c, const float *weight)
{
    const size_t bytes = gpu_narrow_weight_bytes(c->folded);
    void *packed = malloc(bytes);
    assert_non_null(packed);
    gpu_narrow_pack(c->type, weight, c->folded, packed);
    void *device = to_device(packed, bytes);
    free(packed);
    return device;
}

//  Each pixel as 2 x 2.
static float *enlarged(const subject *x)
{
    const size_t width = (size_t)x->extent.width, wide = 2 * width;
    float *out = floats(4 * x->count);
    for (size_t i = 0; i < 4 * x->count; i++) {
        const size_t row = i / wide / 2, column = i % wide / 2;
        out[i] = x->values[row * width + column];
    }
    return out;
}

//  The definition, as large as the result.
static double *wanted_of(const narrow_case *c, const subject *x, const float *weight,
                         const float *bias, const subject *r)
{
    double *wanted = doubles(r->count);
    float *large = c->folded ? enlarged(x) : NULL;
    const size_t pixels = gpu_pixels(&r->extent);
    conv_definition(large ? large : x->values, &r->extent, weight, CHANNELS, 3, wanted);
    for (size_t i = 0; i < r->count; i++) {
        if (c->bias) wanted[i] += bias[i / pixels];
        if (c->residual) wanted[i] += r->values[i];
        if (c->relu) wanted[i] = act_of(GPU_RELU, wanted[i]);
    }
    free(large);
    return wanted;
}

//  Few multiprocessors at first, so that a block goes through several tiles; the same
//  bits each time.
static void compare_runs(const gpu_narrow_args *args, const subject *x,
                         const gpu_extent *to, const double *wanted)
{
    static const int multiprocessors[RUNS] = {2, 132, 7};
    const size_t bytes = gpu_bytes(to);
    void *y = device_room(bytes);
    uint8_t *first = NULL;
    for (int i = 0; i < RUNS; i++) {
        ok(cudaMemset(y, 0xff, bytes));
        ok(gpu_conv_narrow(args, x->device, y, multiprocessors[i], NULL));
        if (i == 0) compare_device("conv narrow", to, y, wanted);
        uint8_t *is = (uint8_t *)from_device(y, bytes / sizeof(float));
        if (first) assert_memory_equal(is, first, bytes);
        if (first) free(is);
        if (!first) first = is;
    }
    free(first);
    ok(cudaFree(y));
}

static void one_narrow(const narrow_case *c)
{
    const int grow = c->folded ? 2 : 1;
    subject x = new_subject(c->type, CHANNELS, c->height, c->width, 1.0F, 0.2F);
    subject r =
        new_subject(c->type, CHANNELS, grow * c->height, grow * c->width, 1.0F, 0.0F);
    float *weight = random_floats((size_t)CHANNELS * CHANNELS * 9, 0.06F, 0.0F);
    float *bias = random_floats(CHANNELS, 1.0F, 0.0F);
    double *wanted = wanted_of(c, &x, weight, bias, &r);
    float *device_bias = to_device(bias, CHANNELS * sizeof *bias);
    void *packed = pack(c, weight);
    const gpu_narrow_args args = {.from = x.extent,
                                  .folded = c->folded,
                                  .weight = packed,
                                  .bias = c->bias ? device_bias : NULL,
                                  .residual = c->residual ? r.device : NULL,
                                  .relu = c->relu};
    compare_runs(&args, &x, &r.extent, wanted);
    ok(cudaFree(device_bias));
    ok(cudaFree(packed));
    free(wanted);
    free(bias);
    free(weight);
    free_subject(&x);
    free_subject(&r);
}

static bool has_it(void)
{
    struct cudaDeviceProp card;
    ok(cudaGetDeviceProperties(&card, 0));
    if (card.major == 9 && card.minor == 0) return true;
    print_message("the card does not have this convolution\n");
    return false;
}

static void as_defined(void **state)
{
    (void)state;
    if (!has_it()) skip();
    for (int i = 0; i < CASES; i++) {
        const bool folded = i % 3 == 2;
        const size_t most = folded ? 24 : 50;
        const narrow_case c = {.type = types[i % 2],
                               .height = 1 + (int)random_below(most),
                               .width = 1 + (int)random_below(most),
                               .folded = folded,
                               .bias = i % 4 != 1,
                               .residual = !folded && i % 4 > 1,
                               .relu = i / 2 % 2 == 0};
        one_narrow(&c);
    }
}

//  ReLU must not hide it.
static void not_a_number_shows(void **state)
{
    (void)state;
    if (!has_it()) skip();
    const uint16_t bad = 0x7e00;
    const size_t at = random_below(20 * 20), channel = random_below(CHANNELS);
    subject x = new_subject(GPU_FP16, CHANNELS, 20, 20, 1.0F, 0.0F);
    float *weight = random_floats((size_t)CHANNELS * CHANNELS * 9, 0.06F, 0.0F);
    const narrow_case c = {.type = GPU_FP16};
    void *packed = pack(&c, weight), *y = device_room(gpu_bytes(&x.extent));
    const gpu_narrow_args args = {.from = x.extent, .weight = packed, .relu = true};
    ok(cudaMemcpy((uint16_t *)x.device + at * CHANNELS + channel, &bad, 2,
                  cudaMemcpyHostToDevice));
    ok(gpu_conv_narrow(&args, x.device, y, 132, NULL));
    float *is = planes_of(&x.extent, y);
    for (size_t i = 0; i < x.count; i++) {
        const size_t row = i / 20 % 20, column = i % 20;
        const bool near = row + 1 >= at / 20 && row <= at / 20 + 1 &&
                          column + 1 >= at % 20 && column <= at % 20 + 1;
        assert_true((isfinite(is[i]) != 0) == !near);
    }
    free(is);
    free(weight);
    ok(cudaFree(y));
    ok(cudaFree(packed));
    free_subject(&x);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_defined),
        cmocka_unit_test(not_a_number_shows),
    };
    fresh_seed();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
