//  Which backend a device's name means, on a machine with a GPU and on one without.

#include "decoder/vae/backend.h"
#include "vae/vae_test.h"

static const luna_backend *find(const char *device, int *index)
{
    const luna_backend *backend = NULL;
    *index = -1;
    if (luna_backend_find(device, &backend, index) != LUNA_OK)
        fail_msg("%s: %s", device, luna_error_text());
    return backend;
}

static void a_cpu_is_always_there(void **state)
{
    (void)state;
    char name[LUNA_DEVICE_BYTES];
    int index;
    const luna_backend *cpu = find("cpu", &index);
    assert_int_equal(index, 0);
    luna_backend_name(cpu, index, name);
    assert_string_equal(name, cpu->device);
    assert_ptr_equal(find("reference", &index), &luna_backend_reference);
}

//  Whatever the machine has, "auto" is something that can be opened.
static void auto_can_be_opened(void **state)
{
    (void)state;
    int index;
    void *opened = NULL;
    static const luna_weights none;
    const luna_backend *backend = find("auto", &index);
    luna_backend_options options = {.weights = &none, .device = index};
    assert_int_equal(backend->precision(LUNA_VAE_PRECISION_AUTO, &options.precision),
                     LUNA_OK);
    assert_int_equal(backend->open(&options, &opened), LUNA_OK);
    backend->close(opened);
}

static void a_card_that_is_not_there(void **state)
{
    (void)state;
    const luna_backend *backend = NULL;
    int index;
    assert_int_equal(luna_backend_find("cuda:999", &backend, &index), LUNA_UNAVAILABLE);
    assert_non_null(strstr(luna_error_text(), "cuda:999"));
    static const char *const wrong[] = {"cuda", "cuda:", "cuda:-1",   "cuda:1x",
                                        "gpu",  "",      "cuda:GPU-", "cuda:GPU-12g"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(luna_backend_find(wrong[i], &backend, &index), LUNA_USAGE);
}

static luna_err no_cards(luna_card *out, size_t room, size_t *count)
{
    (void)out;
    (void)room;
    *count = 0;
    return LUNA_OK;
}

static void cards_have_numbers(void **state)
{
    (void)state;
    char name[LUNA_DEVICE_BYTES];
    const luna_backend numbered = {.device = "cuda", .cards = no_cards};
    luna_backend_name(&numbered, 3, name);
    assert_string_equal(name, "cuda:3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cpu_is_always_there),
        cmocka_unit_test(auto_can_be_opened),
        cmocka_unit_test(a_card_that_is_not_there),
        cmocka_unit_test(cards_have_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
