//  The table of jobs: order, bounds, deadlines, memory of settled ones.

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "producer/luna/jobs.h"

#include <stdlib.h>

static luna_pool *pool;

static int open_pool(void **state)
{
    (void)state;
    pool = luna_pool_new(1 << 20);
    return pool ? 0 : -1;
}

static int close_pool(void **state)
{
    (void)state;
    luna_pool_free(pool);
    return 0;
}

static luna_entry *add(luna_jobs *jobs, uint8_t number, size_t bytes)
{
    luna_entry *entry = calloc(1, sizeof *entry);
    assert_non_null(entry);
    entry->id.byte[0] = 1;
    entry->id.byte[15] = number;
    entry->bytes = bytes;
    entry->timeout_ms = 100;
    entry->body = luna_pool_take(pool, bytes);
    assert_int_equal(luna_jobs_reserve(jobs, bytes), LUNA_OK);
    assert_int_equal(luna_jobs_add(jobs, entry), LUNA_OK);
    return entry;
}

static void what_comes_back_takes_its_old_place(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_entry *entry[4];
    luna_jobs_init(&jobs, 1000);
    for (uint8_t i = 0; i < 4; i++) entry[i] = add(&jobs, i, 10);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(luna_jobs_next(&jobs), entry[i]);
        luna_jobs_sent(&jobs, entry[i], 0);
    }
    luna_jobs_again(&jobs, entry[1]);
    luna_jobs_again(&jobs, entry[0]);
    luna_jobs_again(&jobs, entry[2]);
    luna_jobs_again(&jobs, entry[3]);  //  not under way: nothing happens
    for (int i = 0; i < 4; i++) {
        assert_ptr_equal(luna_jobs_next(&jobs), entry[i]);
        luna_jobs_sent(&jobs, entry[i], 0);
    }
    assert_null(luna_jobs_next(&jobs));
    luna_jobs_again_all(&jobs);
    assert_int_equal(luna_jobs_count(&jobs, LUNA_ENTRY_FLIGHT), 0);
    assert_ptr_equal(luna_jobs_next(&jobs), entry[0]);
    luna_jobs_clear(&jobs);
}

static void waits_double_up_to_the_limit(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_jobs_init(&jobs, 1000);
    luna_entry *entry = add(&jobs, 1, 10);
    const int64_t waits[] = {100, 200, 400, 500, 500};
    assert_int_equal(luna_jobs_deadline(&jobs), INT64_MAX);
    for (int i = 0; i < 5; i++) {
        luna_jobs_sent(&jobs, entry, 1000);
        assert_int_equal(luna_jobs_deadline(&jobs), 1000 + waits[i]);
        assert_int_equal(luna_jobs_overdue(&jobs, 999 + waits[i], 500), 0);
        assert_int_equal(luna_jobs_overdue(&jobs, 1000 + waits[i], 500), 1);
        assert_int_equal(luna_jobs_count(&jobs, LUNA_ENTRY_FLIGHT), 0);
    }
    luna_jobs_clear(&jobs);
}

static void bytes_are_booked_until_settled(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_jobs_init(&jobs, 100);
    luna_entry *entry = add(&jobs, 1, 60);
    assert_int_equal(luna_jobs_reserve(&jobs, 101), LUNA_TOO_LARGE);
    assert_int_equal(luna_jobs_reserve(&jobs, 41), LUNA_BUSY);
    assert_int_equal(luna_jobs_reserve(&jobs, 40), LUNA_OK);
    luna_jobs_unreserve(&jobs, 40);
    luna_jobs_sent(&jobs, entry, 0);
    assert_int_equal(jobs.bytes, 60);
    luna_buffer_release(luna_jobs_settle(&jobs, entry, LUNA_OK, NULL));
    assert_int_equal(jobs.bytes, 0);
    assert_int_equal(luna_jobs_unsettled(&jobs), 0);
    luna_jobs_clear(&jobs);
}

static void old_receipts_are_forgotten(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_id first;
    luna_jobs_init(&jobs, 1000);
    for (int i = 0; i <= LUNA_SETTLED_MAX; i++) {
        luna_entry *entry = calloc(1, sizeof *entry);
        assert_non_null(entry);
        entry->id.byte[14] = (uint8_t)(i >> 8);
        entry->id.byte[15] = (uint8_t)i;
        if (i == 0) first = entry->id;
        assert_int_equal(luna_jobs_add(&jobs, entry), LUNA_OK);
        assert_null(luna_jobs_settle(&jobs, entry, LUNA_BAD_REQUEST, "no"));
        assert_ptr_equal(luna_jobs_find(&jobs, &entry->id), entry);
    }
    assert_null(luna_jobs_find(&jobs, &first));
    assert_int_equal(luna_jobs_count(&jobs, LUNA_ENTRY_SETTLED), LUNA_SETTLED_MAX);
    luna_jobs_clear(&jobs);
    assert_int_equal(luna_jobs_count(&jobs, LUNA_ENTRY_SETTLED), 0);
}

static void buffers_are_used_again(void **state)
{
    (void)state;
    luna_buffer *first = luna_pool_take(pool, 300000);
    const uint8_t *data = first->data;
    luna_buffer_hold(first);
    luna_buffer_release(first);
    luna_buffer *second = luna_pool_take(pool, 300000);
    assert_ptr_not_equal(second->data, data);
    luna_buffer_release(first);
    luna_buffer *third = luna_pool_take(pool, 290000);
    assert_ptr_equal(third->data, data);
    luna_buffer *large = luna_pool_take(pool, 2 << 20);  //  more than is ever kept
    assert_true(large->capacity >= 2 << 20);
    luna_buffer_release(large);
    luna_buffer_release(second);
    luna_buffer_release(third);
    luna_buffer_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_takes_its_old_place),
        cmocka_unit_test(waits_double_up_to_the_limit),
        cmocka_unit_test(bytes_are_booked_until_settled),
        cmocka_unit_test(old_receipts_are_forgotten),
        cmocka_unit_test(buffers_are_used_again),
    };
    return cmocka_run_group_tests(tests, open_pool, close_pool);
}
