//  Which tensor of a file is meant, and the old scale of ComfyUI's first .latent files.

#include "common/latent_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void write_file(const char *path, const char *const *names, size_t count)
{
    luna_tensor_spec specs[4] = {0};
    luna_safetensors_writer *writer = NULL;
    const float values[2] = {1.0F, -4.0F};
    for (size_t i = 0; i < count; i++) {
        const size_t size = strcmp(names[i], "latent_format_version_0") == 0 ? 0 : 2;
        specs[i] = (luna_tensor_spec){
            .name = names[i], .dtype = LUNA_DTYPE_F32, .rank = 1, .shape = {size}};
    }
    assert_int_equal(luna_safetensors_create(path, specs, count, &writer), LUNA_OK);
    for (size_t i = 0; i < count; i++)
        if (specs[i].shape[0])
            assert_int_equal(luna_safetensors_append(writer, values, sizeof values),
                             LUNA_OK);
    assert_int_equal(luna_safetensors_commit(&writer), LUNA_OK);
}

static void comfyui_file(void **state)
{
    (void)state;
    luna_latent_file latents;
    write_file("a.latent", (const char *[]){"latent_tensor", "latent_format_version_0"},
               2);
    assert_int_equal(luna_latent_file_open("a.latent", &latents), LUNA_OK);
    assert_string_equal(latents.tensor.name, "latent_tensor");
    assert_null(latents.scaled);
    assert_true(((const float *)latents.tensor.data)[1] == -4.0F);
    luna_latent_file_close(&latents);
    assert_int_equal(unlink("a.latent"), 0);
}

static void old_file_is_scaled(void **state)
{
    (void)state;
    luna_latent_file latents;
    write_file("a.latent", (const char *[]){"latent_tensor"}, 1);
    assert_int_equal(luna_latent_file_open("a.latent:latent_tensor", &latents), LUNA_OK);
    const float *values = latents.tensor.data;
    assert_int_equal(latents.tensor.dtype, LUNA_DTYPE_F32);
    assert_int_equal(latents.tensor.bytes, 8);
    assert_true(values[0] == 1.0F / 0.18215F && values[1] == -4.0F * (1.0F / 0.18215F));
    luna_latent_file_close(&latents);
    assert_int_equal(unlink("a.latent"), 0);
}

static void choosing_a_tensor(void **state)
{
    (void)state;
    luna_latent_file latents;
    write_file("one", (const char *[]){"x"}, 1);
    write_file("two", (const char *[]){"x", "y"}, 2);
    write_file("odd:name", (const char *[]){"z"}, 1);
    assert_int_equal(luna_latent_file_open("one", &latents), LUNA_OK);
    assert_string_equal(latents.tensor.name, "x");
    assert_null(latents.scaled);
    luna_latent_file_close(&latents);
    assert_int_equal(luna_latent_file_open("two", &latents), LUNA_BAD_REQUEST);
    assert_non_null(strstr(luna_error_text(), "'x', 'y'"));
    assert_int_equal(luna_latent_file_open("two:y", &latents), LUNA_OK);
    assert_string_equal(latents.tensor.name, "y");
    luna_latent_file_close(&latents);
    assert_int_equal(luna_latent_file_open("two:w", &latents), LUNA_NOT_FOUND);
    assert_non_null(strstr(luna_error_text(), "no tensor 'w'"));
    assert_int_equal(luna_latent_file_open("odd:name", &latents), LUNA_OK);
    assert_string_equal(latents.tensor.name, "z");
    luna_latent_file_close(&latents);
    assert_int_equal(luna_latent_file_open("odd:name:z", &latents), LUNA_OK);
    luna_latent_file_close(&latents);
    assert_int_equal(luna_latent_file_open("absent:x", &latents), LUNA_NOT_FOUND);
    assert_int_equal(unlink("one") + unlink("two") + unlink("odd:name"), 0);
}

static void test_data_carries_its_workflow(void **state)
{
    (void)state;
    static const char *const names[] = {"astronaut", "coffee", "chelsea"};
    for (int i = 0; i < 3; i++) {
        char path[4096];
        luna_latent_file latents;
        snprintf(path, sizeof path, "%s/%s.latent", getenv("LUNA_TEST_DATA"), names[i]);
        assert_int_equal(luna_latent_file_open(path, &latents), LUNA_OK);
        assert_int_equal(latents.tensor.dtype, LUNA_DTYPE_F16);
        assert_int_equal(latents.tensor.shape[1], i == 0 ? 128 : 32);
        assert_non_null(strstr(luna_safetensors_metadata(latents.file, "prompt", NULL),
                               "879352461234567890"));
        assert_non_null(
            strstr(luna_safetensors_metadata(latents.file, "workflow", NULL), names[i]));
        luna_latent_file_close(&latents);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comfyui_file),
        cmocka_unit_test(old_file_is_scaled),
        cmocka_unit_test(choosing_a_tensor),
        cmocka_unit_test(test_data_carries_its_workflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
