//  The last convolution, to planes of pixels.

#include "kernel_test.h"

static void one_conv_last(gpu_type type, int in, int out, int height, int width,
                          gpu_act act, bool with_pairs)
{
    gpu_pair *dp = NULL;
    subject x = new_subject(type, in, height, width, 2.0F, 0.0F);
    gpu_pair *pairs = random_pairs(in, &dp);
    const size_t pixels = gpu_pixels(&x.extent);
    float *weight = rounded_weight(type, (size_t)(in * out) * 9, 0.2F);
    float *bias = random_floats((size_t)out, 1.0F, 0.0F);
    float *db = to_device(bias, (size_t)out * 4);
    const size_t bytes = gpu_conv_last_bytes(in);
    void *fragments = malloc(bytes);
    assert_non_null(fragments);
    gpu_conv_last_pack(type, weight, out, in, fragments);
    void *df = to_device(fragments, bytes);
    for (size_t i = 0; i < x.count; i++) {
        const gpu_pair pair = with_pairs ? pairs[i / pixels] : (gpu_pair){1.0F, 0.0F};
        x.values[i] = (float)act_of(act, (double)pair.scale * x.values[i] + pair.offset);
    }
    double *wanted = doubles((size_t)out * pixels);
    conv_definition(x.values, &x.extent, weight, out, 3, wanted);
    for (size_t i = 0; i < (size_t)out * pixels; i++) wanted[i] += bias[i / pixels];
    const gpu_last_args args = {x.extent, out, df, db, with_pairs ? dp : NULL, act};
    float *planes = device_room((size_t)out * pixels * 4);
    ok(gpu_conv_last(&args, x.device, planes, NULL));
    float *is = from_device(planes, (size_t)out * pixels);
    const gpu_extent result = {type, out, height, width};
    compare("conv last", &result, is, wanted);
    void *gone[] = {dp, db, df, planes};
    for (int i = 0; i < 4; i++) ok(cudaFree(gone[i]));
    void *lost[] = {pairs, weight, bias, fragments, wanted, is};
    for (int i = 0; i < 6; i++) free(lost[i]);
    free_subject(&x);
}

static void last_convolutions(void **state)
{
    (void)state;
    static const int in[] = {8, 24, 64, 96, 128};
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 10; i++)
            one_conv_last(types[t], in[i % 5], 1 + (int)random_below(GPU_LAST_CHANNELS),
                          1 + (int)random_below(40), 1 + (int)random_below(70),
                          i % 3 ? GPU_SILU : GPU_LINEAR, i % 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_convolutions),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
