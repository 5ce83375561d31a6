//  Values that move: unpacking of channels into pixels, enlarging to twice the size.

#include "kernel_test.h"

static void one_move(gpu_type type, int channels, int height, int width, bool packed)
{
    subject x =
        new_subject(type, packed ? 4 * channels : channels, height, width, 1.0F, 0.0F);
    const gpu_extent to = {type, channels, 2 * height, 2 * width};
    const size_t w = (size_t)to.width, h = (size_t)to.height;
    void *y = device_room(gpu_bytes(&to));
    double *wanted = doubles(gpu_pixels(&to) * (size_t)channels);
    for (size_t i = 0; i < gpu_pixels(&to) * (size_t)channels; i++) {
        const size_t c = i / (w * h), row = i / w % h, column = i % w;
        const size_t from = packed ? 4 * c + 2 * (row % 2) + column % 2 : c;
        wanted[i] = x.values[(from * (h / 2) + row / 2) * (w / 2) + column / 2];
    }
    ok(packed ? gpu_unpack(&to, x.device, y, NULL)
              : gpu_upsample(&to, x.device, y, NULL));
    compare_device("move", &to, y, wanted);
    check_room(&to, y);
    ok(cudaFree(y));
    free(wanted);
    free_subject(&x);
}

static void moves(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int packed = 0; packed < 2; packed++)
            for (int i = 0; i < 4; i++)
                one_move(types[t], 1 + (int)random_below(70), 1 + (int)random_below(20),
                         1 + (int)random_below(20), packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
