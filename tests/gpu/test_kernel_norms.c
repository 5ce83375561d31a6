//  Group norm and RMS norm.

#include "kernel_test.h"

typedef struct norm_case {
    int channels, groups, height, width;
    float centre;
    bool pending;
} norm_case;

static void norm_definition(const subject *x, const norm_case *c, const float *pending,
                            const float *weight, const float *bias, double *wanted)
{
    const size_t pixels = gpu_pixels(&x->extent);
    const size_t each = (size_t)(c->channels / c->groups) * pixels;
    for (size_t g = 0; g < (size_t)c->groups; g++) {
        double mean = 0.0, variance = 0.0;
        for (size_t i = g * each; i < (g + 1) * each; i++)
            mean += ((double)x->values[i] + pending[i / pixels]) / (double)each;
        for (size_t i = g * each; i < (g + 1) * each; i++) {
            const double off = (double)x->values[i] + pending[i / pixels] - mean;
            variance += off * off / (double)each;
        }
        for (size_t i = g * each; i < (g + 1) * each; i++)
            wanted[i] = ((double)x->values[i] + pending[i / pixels] - mean) /
                            sqrt(variance + 1e-6) * weight[i / pixels] +
                        bias[i / pixels];
    }
}

static void one_group_norm(gpu_type type, const norm_case *c)
{
    subject x = new_subject(type, c->channels, c->height, c->width, 2.0F, c->centre);
    const size_t n = (size_t)c->channels;
    float *weight = random_floats(n, 1.0F, 0.0F), *bias = random_floats(n, 1.0F, 0.0F);
    float *pending = random_floats(n, c->pending ? 1.0F : 0.0F, 0.0F);
    float *dw = to_device(weight, n * 4), *db = to_device(bias, n * 4);
    float *dp = to_device(pending, n * 4);
    const gpu_norm norm = {x.extent, c->groups, 1e-6F, dw, db, c->pending ? dp : NULL};
    void *scratch = device_room(gpu_norm_scratch(&norm));
    gpu_pair *pairs = device_room(gpu_room(n) * sizeof *pairs);
    double *wanted = doubles(x.count);
    norm_definition(&x, c, pending, weight, bias, wanted);
    ok(gpu_norm_pairs(&norm, x.device, scratch, pairs, NULL));
    float *first = from_device(pairs, 2 * gpu_room(n));
    ok(gpu_norm_pairs(&norm, x.device, scratch, pairs, NULL));
    float *second = from_device(pairs, 2 * gpu_room(n));
    assert_memory_equal(first, second, 2 * gpu_room(n) * sizeof *first);
    ok(gpu_apply(&x.extent, pairs, GPU_LINEAR, x.device, x.device, NULL));
    compare_device("group norm", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    void *gone[] = {dw, db, dp, scratch, pairs};
    for (int i = 0; i < 5; i++) ok(cudaFree(gone[i]));
    float *lost[] = {weight, bias, pending, first, second};
    for (int i = 0; i < 5; i++) free(lost[i]);
    free(wanted);
    free_subject(&x);
}

static void group_norms(void **state)
{
    (void)state;
    static const norm_case cases[] = {
        {512, 32, 16, 16, 0, false}, {256, 32, 33, 17, 0, true},
        {128, 32, 64, 50, 1, true},  {96, 32, 21, 19, 0, false},
        {192, 32, 9, 40, -3, true},  {384, 32, 13, 8, 0, false},
        {256, 4, 12, 12, 0, false},  {12, 3, 7, 5, 0, true},
        {12, 4, 1, 1, 0, false},     {128, 32, 300, 300, 0.5F, false},
        {1024, 32, 5, 3, 0, false},  {8, 1, 100, 3, 0, false}};
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            one_group_norm(types[t], &cases[i]);
}

//  A mean a hundred times the spread: the difference of sums of squares in fp32 would be
//  wrong in the third digit.
static void group_norm_far_from_zero(void **state)
{
    (void)state;
    const norm_case far = {64, 32, 120, 90, 200.0F, false};
    one_group_norm(GPU_FP32, &far);
}

static void one_rms_norm(gpu_type type, int channels, int height, int width, gpu_act act)
{
    subject x = new_subject(type, channels, height, width, 4.0F, 0.0F);
    const size_t n = (size_t)channels, pixels = gpu_pixels(&x.extent);
    float *weight = random_floats(n, 1.0F, 0.0F), *dw = to_device(weight, n * 4);
    double *wanted = doubles(x.count);
    for (size_t p = 0; p < pixels; p++) {
        double squares = 0.0;
        for (size_t c = 0; c < n; c++)
            squares += (double)x.values[c * pixels + p] * x.values[c * pixels + p];
        const double scale = sqrt((double)n) / fmax(sqrt(squares), 1e-12);
        for (size_t c = 0; c < n; c++)
            wanted[c * pixels + p] =
                act_of(act, x.values[c * pixels + p] * scale * weight[c]);
    }
    ok(gpu_rms_norm(&x.extent, 1e-12F, dw, act, x.device, x.device, NULL));
    compare_device("rms norm", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(dw));
    free(weight);
    free(wanted);
    free_subject(&x);
}

static void rms_norms(void **state)
{
    (void)state;
    static const int channels[] = {5, 16, 96, 192, 384, 700};
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
            one_rms_norm(types[t], channels[i], 1 + (int)random_below(30),
                         1 + (int)random_below(30), i % 2 ? GPU_SILU : GPU_LINEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_norms),
        cmocka_unit_test(group_norm_far_from_zero),
        cmocka_unit_test(rms_norms),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
