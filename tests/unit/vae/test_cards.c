//  Devices by name: what is one, and which of the cards it means.

#include "decoder/vae/cards.h"
#include "vae/vae_test.h"

static const luna_card cards[] = {
    {"GPU-8f3a2b10-1111-4000-8000-000000000001", "First"},
    {"GPU-8f3a2b10-2222-4000-8000-000000000002", "Second"},
    {"GPU-11e5c9d7-3333-4000-8000-000000000003", "Third"},
};
enum { COUNT = 3 };

static luna_device_word parsed(const char *device)
{
    luna_device_word word;
    if (luna_device_parse(device, &word) != LUNA_OK)
        fail_msg("%s: %s", device, luna_error_text());
    return word;
}

static void words(void **state)
{
    (void)state;
    assert_int_equal(parsed("auto").kind, LUNA_DEVICE_AUTO);
    assert_int_equal(parsed("cpu").kind, LUNA_DEVICE_CPU);
    assert_int_equal(parsed("reference").kind, LUNA_DEVICE_REFERENCE);
    assert_int_equal(parsed("cuda:0").kind, LUNA_DEVICE_NUMBER);
    assert_int_equal(parsed("cuda:12").number, 12);
    assert_int_equal(parsed("cuda:GPU-8").kind, LUNA_DEVICE_UUID);
    assert_string_equal(parsed("cuda:GPU-8f3A").uuid, "GPU-8f3A");
    assert_int_equal(parsed("cuda:MIG-8f3a").kind, LUNA_DEVICE_INSTANCE);
}

static void no_words(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "Auto",
        "cuda",
        "cuda:",
        "cuda:-1",
        "cuda: 1",
        "cuda:1x",
        "cuda:0x1",
        "cuda:1234",
        "cuda:GPU",
        "cuda:GPU-",
        "cuda:GPU-zz",
        "cuda:MIG-",
        "cpu:0",
        "cuda:GPU-8f3a2b10-1111-4000-8000-000000000001-and-more-digits-0123456789"};
    luna_device_word word;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (luna_device_parse(wrong[i], &word) != LUNA_USAGE)
            fail_msg("'%s' passed", wrong[i]);
}

static void expect(const char *device, int wanted)
{
    int index = -1;
    const luna_device_word word = parsed(device);
    if (luna_card_choose(cards, COUNT, &word, &index) != LUNA_OK)
        fail_msg("%s: %s", device, luna_error_text());
    assert_int_equal(index, wanted);
}

static void the_card_meant(void **state)
{
    (void)state;
    expect("cuda:0", 0);
    expect("cuda:2", 2);
    expect("cuda:GPU-1", 2);
    expect("cuda:gpu-11E5C9D7", 2);
    expect("cuda:GPU-8f3a2b10-2", 1);
    expect("cuda:GPU-8f3a2b10-1111-4000-8000-000000000001", 0);
}

static void expect_none(const char *device, size_t count, const char *says)
{
    int index = -1;
    const luna_device_word word = parsed(device);
    assert_int_equal(luna_card_choose(cards, count, &word, &index), LUNA_UNAVAILABLE);
    if (!strstr(luna_error_text(), says)) fail_msg("%s: %s", device, luna_error_text());
    for (size_t i = 0; i < count; i++)
        assert_non_null(strstr(luna_error_text(), cards[i].uuid));
}

static void no_card_or_several(void **state)
{
    (void)state;
    expect_none("cuda:3", COUNT, "no GPU has this number; there are: cuda:0 First (GPU-");
    expect_none("cuda:GPU-9", COUNT, "no GPU has a UUID that begins so");
    expect_none("cuda:GPU-8f3a2b10", COUNT, "several GPUs");
    expect_none("cuda:0", 0, "there are: none");
}

//  However many there are, the sentence ends.
static void a_long_list(void **state)
{
    (void)state;
    luna_card many[LUNA_CARDS_MAX];
    int index;
    const luna_device_word word = parsed("cuda:99");
    for (size_t i = 0; i < LUNA_CARDS_MAX; i++) many[i] = cards[i % COUNT];
    assert_int_equal(luna_card_choose(many, LUNA_CARDS_MAX, &word, &index),
                     LUNA_UNAVAILABLE);
    assert_true(strlen(luna_error_text()) < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),          cmocka_unit_test(no_words),
        cmocka_unit_test(the_card_meant), cmocka_unit_test(no_card_or_several),
        cmocka_unit_test(a_long_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
