//  The plain convolution, for what cuDNN does not take.

#include "kernel_test.h"

typedef struct conv_case {
    int in, out, kernel, height, width;
    bool bias, residual, relu;
} conv_case;

static void one_conv_plain(gpu_type type, const conv_case *c)
{
    subject x = new_subject(type, c->in, c->height, c->width, 1.0F, 0.0F);
    subject r = new_subject(type, c->out, c->height, c->width, 1.0F, 0.0F);
    const size_t taps = (size_t)(c->kernel * c->kernel);
    float *weight = rounded_weight(type, (size_t)(c->in * c->out) * taps, 0.2F);
    float *bias = floats(gpu_room((size_t)c->out));
    for (int o = 0; o < c->out; o++) bias[o] = random_float();
    float *db = to_device(bias, gpu_room((size_t)c->out) * 4);
    gpu_device device = {.index = 0};
    luna_weight item = {.name = "w",
                        .dtype = LUNA_DTYPE_F32,
                        .data = weight,
                        .count = (size_t)(c->in * c->out) * taps};
    luna_weights weights = {.count = 1};
    weights.item[0] = item;
    gpu_lane lane = {.device = &device, .type = type, .weights = &weights};
    const luna_node node = {
        .weight = 0, .channels = (size_t)c->out, .kernel = (size_t)c->kernel};
    const void *dw = NULL;
    assert_int_equal(gpu_lane_weight(&lane, &node, (size_t)c->in, GPU_FORM_CONV, 0, &dw),
                     LUNA_OK);
    void *y = device_room(gpu_bytes(&r.extent));
    const gpu_conv_args args = {x.extent,
                                c->out,
                                c->kernel,
                                dw,
                                c->bias ? db : NULL,
                                c->residual ? r.device : NULL,
                                c->relu ? GPU_RELU : GPU_LINEAR};
    double *wanted = doubles(r.count);
    const size_t pixels = gpu_pixels(&x.extent);
    conv_definition(x.values, &x.extent, weight, c->out, c->kernel, wanted);
    for (size_t i = 0; i < r.count; i++) {
        wanted[i] +=
            (c->bias ? bias[i / pixels] : 0.0F) + (c->residual ? r.values[i] : 0.0F);
        if (c->relu && wanted[i] < 0.0) wanted[i] = 0.0;
    }
    ok(gpu_conv_plain(&args, x.device, y, NULL));
    compare_device("conv plain", &r.extent, y, wanted);
    check_room(&r.extent, y);
    ok(cudaFree(y));
    ok(cudaFree(db));
    gpu_lane_free(&lane);
    free(wanted);
    free(bias);
    free(weight);
    free_subject(&x);
    free_subject(&r);
}

static void plain_convolutions(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 12; i++) {
            const conv_case c = {1 + (int)random_below(70),
                                 1 + (int)random_below(90),
                                 i % 2 ? 3 : 1,
                                 1 + (int)random_below(20),
                                 1 + (int)random_below(20),
                                 i & 2,
                                 i & 4,
                                 i & 8};
            one_conv_plain(types[t], &c);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_convolutions),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
