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

static void an_offer_waits_and_comes_back(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_jobs_init(&jobs, 1000);
    luna_entry *first = add(&jobs, 1, 10), *second = add(&jobs, 2, 10);
    luna_jobs_offered(&jobs, first, 1000);
    assert_int_equal(luna_jobs_deadline(&jobs), 1100);
    assert_int_equal(luna_jobs_unsettled(&jobs), 2);
    assert_ptr_equal(luna_jobs_next(&jobs), second);
    assert_int_equal(luna_jobs_overdue(&jobs, 1100, 500), 1);
    assert_ptr_equal(luna_jobs_next(&jobs), first);
    luna_jobs_offered(&jobs, first, 1000);
    luna_jobs_grant(&jobs, first);
    assert_ptr_equal(luna_jobs_next(&jobs), first);
    assert_true(first->granted);
    luna_jobs_sent(&jobs, first, 1000);
    assert_false(first->granted);
    luna_jobs_grant(&jobs, first);  //  under way already
    assert_false(first->granted);
    luna_jobs_grant(&jobs, second);
    luna_jobs_offered(&jobs, second, 1000);
    luna_jobs_again_all(&jobs);
    assert_int_equal(luna_jobs_count(&jobs, LUNA_ENTRY_QUEUED), 2);
    assert_false(second->granted);
    luna_jobs_clear(&jobs);
}

//  ---- in memory and on disk -------------------------------------------------------

static void write_down(luna_jobs *jobs, luna_entry *entry)
{
    assert_ptr_equal(luna_jobs_unkept(jobs), entry);
    luna_jobs_writing(jobs, entry);
    assert_false(luna_jobs_kept(entry));
    luna_jobs_written(jobs, entry, true, true);
    assert_true(luna_jobs_kept(entry));
}

static size_t release_all(luna_buffer *chain)
{
    size_t count = 0;
    for (luna_buffer *at = chain; at; at = at->next) count++;
    luna_buffer_release_chain(chain);
    return count;
}

static void kept_messages_leave_the_memory_latest_first(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_entry *entry[5];
    luna_jobs_init(&jobs, 100);
    for (uint8_t i = 0; i < 5; i++) entry[i] = add(&jobs, i, 20);
    for (int i = 0; i < 4; i++) write_down(&jobs, entry[i]);
    luna_jobs_sent(&jobs, entry[0], 0);
    assert_int_equal(luna_jobs_reserve(&jobs, 30), LUNA_BUSY);
    assert_int_equal(release_all(luna_jobs_evict(&jobs, 30)), 2);
    assert_int_equal(entry[3]->place, LUNA_BODY_DISK);
    assert_int_equal(entry[2]->place, LUNA_BODY_DISK);
    assert_int_equal(entry[1]->place, LUNA_BODY_BOTH);
    assert_int_equal(luna_jobs_reserve(&jobs, 30), LUNA_OK);
    luna_jobs_unreserve(&jobs, 30);
    //  What is under way and what is not written yet stay.
    assert_int_equal(release_all(luna_jobs_evict(&jobs, 100)), 1);
    assert_int_equal(jobs.memory_bytes, 40);
    assert_int_equal(jobs.bytes, 100);
    assert_int_equal(jobs.kept_bytes, 80);
    assert_int_equal(luna_jobs_kept_count(&jobs), 4);
    luna_jobs_clear(&jobs);
}

static void a_message_is_read_back_in_its_turn(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_entry *entry[3];
    luna_jobs_init(&jobs, 60);
    for (uint8_t i = 0; i < 3; i++) write_down(&jobs, entry[i] = add(&jobs, i, 20));
    assert_null(luna_jobs_wanted(&jobs, 3));
    assert_int_equal(release_all(luna_jobs_evict(&jobs, 60)), 3);
    assert_int_equal(jobs.memory_bytes, 0);
    assert_ptr_equal(luna_jobs_wanted(&jobs, 3), entry[0]);
    luna_jobs_reading(&jobs, entry[0]);
    assert_int_equal(jobs.memory_bytes, 20);
    assert_ptr_equal(luna_jobs_wanted(&jobs, 3), entry[1]);
    assert_null(luna_jobs_wanted(&jobs, 1));
    luna_jobs_read(&jobs, entry[0], luna_pool_take(pool, 20));
    assert_int_equal(entry[0]->place, LUNA_BODY_BOTH);
    luna_jobs_reading(&jobs, entry[1]);
    luna_jobs_read(&jobs, entry[1], NULL);  //  not now
    assert_int_equal(jobs.memory_bytes, 20);
    //  Settled while it is being read: the memory is no longer booked.
    luna_jobs_reading(&jobs, entry[2]);
    assert_null(luna_jobs_settle(&jobs, entry[2], LUNA_CANCELLED, "no"));
    assert_int_equal(jobs.memory_bytes, 20);
    luna_jobs_clear(&jobs);
}

//  Later jobs fill the memory and cannot leave it: the next one is read back all the
//  same.
static void the_next_job_is_read_into_a_full_memory(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_entry *entry[3];
    luna_jobs_init(&jobs, 40);
    for (uint8_t i = 0; i < 2; i++) write_down(&jobs, entry[i] = add(&jobs, i, 20));
    assert_int_equal(release_all(luna_jobs_evict(&jobs, 40)), 2);
    entry[2] = add(&jobs, 2, 40);
    assert_null(luna_jobs_evict(&jobs, 20));
    assert_ptr_equal(luna_jobs_wanted(&jobs, 3), entry[0]);
    luna_jobs_reading(&jobs, entry[0]);
    assert_null(luna_jobs_wanted(&jobs, 3));
    luna_jobs_read(&jobs, entry[0], luna_pool_take(pool, 20));
    assert_int_equal(luna_jobs_reserve(&jobs, 10), LUNA_BUSY);
    luna_jobs_sent(&jobs, entry[0], 0);
    assert_null(luna_jobs_wanted(&jobs, 3));  //  one at a time
    luna_buffer_release(luna_jobs_settle(&jobs, entry[0], LUNA_OK, NULL));
    assert_ptr_equal(luna_jobs_wanted(&jobs, 3), entry[1]);
    luna_jobs_clear(&jobs);
}

static void what_cannot_be_written_stays(void **state)
{
    (void)state;
    luna_jobs jobs;
    luna_jobs_init(&jobs, 100);
    luna_entry *first = add(&jobs, 1, 20), *second = add(&jobs, 2, 20);
    luna_jobs_writing(&jobs, first);
    luna_jobs_written(&jobs, first, false, true);
    assert_ptr_equal(luna_jobs_unkept(&jobs), first);
    luna_jobs_writing(&jobs, first);
    luna_jobs_written(&jobs, first, false, false);
    assert_ptr_equal(luna_jobs_unkept(&jobs), second);
    assert_int_equal(luna_jobs_kept_count(&jobs), 0);
    assert_int_equal(jobs.memory_bytes, 40);
    luna_jobs_clear(&jobs);
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
        cmocka_unit_test(an_offer_waits_and_comes_back),
        cmocka_unit_test(kept_messages_leave_the_memory_latest_first),
        cmocka_unit_test(a_message_is_read_back_in_its_turn),
        cmocka_unit_test(the_next_job_is_read_into_a_full_memory),
        cmocka_unit_test(what_cannot_be_written_stays),
        cmocka_unit_test(buffers_are_used_again),
    };
    return cmocka_run_group_tests(tests, open_pool, close_pool);
}
