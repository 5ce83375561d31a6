//  Maps of each value: scale, offset and activation; sums of two values and a bias.

#include "kernel_test.h"

static void one_apply(gpu_type type, gpu_act act, int channels, int height, int width)
{
    gpu_pair *device = NULL;
    subject x = new_subject(type, channels, height, width, 9.0F, 0.0F);
    gpu_pair *pairs = random_pairs(channels, &device);
    double *wanted = doubles(x.count);
    const size_t pixels = gpu_pixels(&x.extent);
    for (size_t i = 0; i < x.count; i++) {
        const gpu_pair pair = pairs[i / pixels];
        wanted[i] = act == GPU_TANH
                        ? pair.offset * tanh((double)pair.scale * x.values[i])
                        : act_of(act, (double)pair.scale * x.values[i] + pair.offset);
    }
    ok(gpu_apply(&x.extent, device, act, x.device, x.device, NULL));
    compare_device("apply", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(device));
    free(pairs);
    free(wanted);
    free_subject(&x);
}

static void applies(void **state)
{
    (void)state;
    static const int channels[] = {3, 8, 64, 96, 128, 200, 384, 512, 1024};
    for (int t = 0; t < 3; t++)
        for (int act = GPU_LINEAR; act <= GPU_TANH; act++)
            for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
                one_apply(types[t], (gpu_act)act, channels[i], 1 + (int)random_below(40),
                          1 + (int)random_below(40));
}

static void one_add(gpu_type type, int channels, int height, int width, bool with_z,
                    bool with_bias, gpu_act act)
{
    subject x = new_subject(type, channels, height, width, 3.0F, 0.0F);
    subject z = new_subject(type, channels, height, width, 3.0F, 1.0F);
    const size_t room = gpu_room((size_t)channels), pixels = gpu_pixels(&x.extent);
    float *bias = floats(room);
    for (int c = 0; c < channels; c++) bias[c] = random_float();
    float *device_bias = to_device(bias, room * sizeof *bias);
    double *wanted = doubles(x.count);
    for (size_t i = 0; i < x.count; i++)
        wanted[i] = act_of(act, (double)x.values[i] + (with_z ? z.values[i] : 0.0) +
                                    (with_bias ? bias[i / pixels] : 0.0));
    ok(gpu_add(&x.extent, x.device, with_z ? z.device : NULL,
               with_bias ? device_bias : NULL, act, x.device, NULL));
    compare_device("add", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(device_bias));
    free(bias);
    free(wanted);
    free_subject(&x);
    free_subject(&z);
}

static void adds(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int kind = 0; kind < 8; kind++)
            one_add(types[t], 5 + (int)random_below(300), 1 + (int)random_below(30),
                    1 + (int)random_below(30), kind & 1, kind & 2,
                    kind & 4 ? GPU_RELU : GPU_LINEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applies),
        cmocka_unit_test(adds),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
