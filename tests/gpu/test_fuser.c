//  The choice of a kernel for fused convolutions: made once by trial, then kept. The card
//  under test passes for one of another kind, where there is something to weigh.

#include "gpu_test.h"

#include <dirent.h>
#include <unistd.h>
#include <time.h>

static char folder[] = "/tmp/luna-fuser-XXXXXX";

static gpu_fuser choose(gpu_fusing fusing, float *seconds)
{
    gpu_device device;
    struct timespec from, to;
    assert_int_equal(gpu_device_open(0, &device), LUNA_OK);
    device.properties.major = 8;
    device.properties.minor = 6;
    device.fusing = fusing;
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    if (gpu_fuser_choose(&device) != LUNA_OK) fail_msg("%s", luna_error_text());
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    *seconds = (float)(to.tv_sec - from.tv_sec) + 1e-9F * (float)(to.tv_nsec - from.tv_nsec);
    const gpu_fuser chosen = device.fuser;
    //  Where memory is short it is fused in any case, in fp32 never.
    assert_int_not_equal(gpu_fuser_for(&device, GPU_FP16, true), GPU_FUSER_NONE);
    assert_int_equal(gpu_fuser_for(&device, GPU_FP32, true), GPU_FUSER_NONE);
    gpu_device_close(&device);
    return chosen;
}

static int note_count(void)
{
    int count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += strstr(entry->d_name, ".plan") != NULL;
    (void)closedir(dir);
    return count;
}

static void is_tried_once(void **state)
{
    (void)state;
    float first = 0.0F, second = 0.0F;
    const gpu_fuser chosen = choose(GPU_FUSES_LARGE, &first);
    const int notes = note_count();
    assert_in_range(chosen, GPU_FUSER_NONE, GPU_FUSER_MMA_HALF);
    assert_int_not_equal(chosen, GPU_FUSER_WGMMA);
    assert_int_equal(notes, 2);  //  the library's plan and the choice
    assert_int_equal(choose(GPU_FUSES_LARGE, &second), chosen);
    assert_int_equal(note_count(), notes);
    print_message("chosen: %d, in %.2f s, again in %.3f s\n", (int)chosen, (double)first,
                  (double)second);
}

//  Nothing is tried where everything is to be fused, and nothing kept.
static void is_not_tried_for_a_self_test(void **state)
{
    (void)state;
    float seconds = 0.0F;
    assert_int_equal(choose(GPU_FUSES_ALL, &seconds), GPU_FUSER_MMA);
    assert_int_equal(note_count(), 0);
}

static int new_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/luna-fuser-XXXXXX");
    return mkdtemp(folder) ? setenv("LUNA_CUDA_CACHE", folder, 1) : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    if (!dir) return -1;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_not_tried_for_a_self_test, new_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(is_tried_once, new_folder, drop_folder),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
