//  A card's memory: what a decode may take of it, and what happens when there is less
//  than was thought.

#include "decoder/vae/memory_budget.h"
#include "vae/vae_test.h"

static const size_t mib = (size_t)1 << 20, gib = (size_t)1 << 30;

static void the_budget_leaves_a_reserve(void **state)
{
    (void)state;
    //  A sixteenth of the card, between half a GiB and two.
    assert_int_equal(luna_memory_budget(79 * gib, 80 * gib), 77 * gib);
    assert_int_equal(luna_memory_budget(10 * gib, 16 * gib), 9 * gib);
    assert_int_equal(luna_memory_budget(6 * gib, 6 * gib), 6 * gib - 512 * mib);
    //  Of little, a quarter.
    assert_int_equal(luna_memory_budget(400 * mib, 16 * gib), 300 * mib);
    assert_int_equal(luna_memory_budget(4, 16 * gib), 3);
    //  None is not the same as no limit.
    assert_int_equal(luna_memory_budget(0, 16 * gib), 1);
    assert_int_equal(luna_memory_budget(0, 0), 1);
}

static void a_sub_batch_is_what_fits(void **state)
{
    (void)state;
    assert_int_equal(luna_sub_batch(0, 5 * gib, gib, 4), 4);
    assert_int_equal(luna_sub_batch(8 * gib, 4 * gib, gib, 4), 4);
    assert_int_equal(luna_sub_batch(8 * gib - 1, 4 * gib, gib, 4), 3);
    assert_int_equal(luna_sub_batch(5 * gib, 4 * gib, gib, 4), 1);
    //  One is always tried; what it then needs stands in the error.
    assert_int_equal(luna_sub_batch(5 * gib - 1, 4 * gib, gib, 4), 1);
    assert_int_equal(luna_sub_batch(gib, 4 * gib, gib, 4), 1);
    assert_int_equal(luna_sub_batch(8 * gib, 4 * gib, 0, 4), 4);
    assert_int_equal(luna_sub_batch(8 * gib, 4 * gib, gib, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_budget_leaves_a_reserve),
        cmocka_unit_test(a_sub_batch_is_what_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
