//  Softmax of rows, from and to every type that attention uses.

#include "kernel_test.h"

static void one_softmax(gpu_type from, gpu_type to, size_t rows, size_t count,
                        float spread)
{
    //  The scores as a value of `rows` pixels: rows of channels.
    subject x = new_subject(from, (int)count, 1, (int)rows, spread, 0.0F);
    const gpu_extent result = {to, (int)count, 1, (int)rows};
    void *y = device_room(gpu_bytes(&result));
    double *wanted = doubles(x.count);
    for (size_t r = 0; r < rows; r++) {
        double most = -INFINITY, sum = 0.0;
        for (size_t i = 0; i < count; i++) most = fmax(most, x.values[i * rows + r]);
        for (size_t i = 0; i < count; i++) sum += exp(x.values[i * rows + r] - most);
        for (size_t i = 0; i < count; i++)
            wanted[i * rows + r] = exp(x.values[i * rows + r] - most) / sum;
    }
    ok(gpu_softmax(from, x.device, to, y, rows, count, NULL));
    float *is = planes_of(&result, y);
    for (size_t i = 0; i < x.count; i++)
        if (!(fabs(is[i] - wanted[i]) <=
              (to == GPU_BF16 ? 5e-3 : 1e-3) * wanted[i] + 1e-7))
            fail_msg("softmax of %zu: %g, not %g", count, (double)is[i], wanted[i]);
    check_room(&result, y);
    ok(cudaFree(y));
    free(is);
    free(wanted);
    free_subject(&x);
}

static void softmaxes(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 7, 64, 777, 4096, 5001};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        one_softmax(GPU_FP16, GPU_FP16, 1 + random_below(20), counts[i], 20.0F);
        one_softmax(GPU_FP32, GPU_BF16, 1 + random_below(20), counts[i], 60.0F);
        one_softmax(GPU_FP32, GPU_FP32, 1 + random_below(20), counts[i], 90.0F);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmaxes),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
