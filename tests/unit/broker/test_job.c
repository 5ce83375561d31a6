//  The table of ids and the heaps against plain arrays, with random additions and
//  removals; and the marks of images.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
//  cmocka wants the four before it
#include "broker/id_table.h"
#include "broker/job.h"

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { JOBS = 3000, STEPS = 60000 };

typedef struct model {
    luna_job *jobs;  //  JOBS of them
    bool *in;        //  which are in
    size_t count;
    uint64_t random;
} model;

static uint64_t draw(model *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random % below;
}

static model *new_model(uint64_t seed)
{
    model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->jobs = calloc(JOBS, sizeof *m->jobs);
    m->in = calloc(JOBS, sizeof *m->in);
    assert_non_null(m->jobs);
    assert_non_null(m->in);
    m->random = seed;
    for (uint32_t i = 0; i < JOBS; i++) {
        //  Ids that differ in few bits only: the worst a producer would do.
        memcpy(m->jobs[i].id.byte + (i % 2 ? 0 : 12), &i, sizeof i);
        m->jobs[i].order = i;
    }
    return m;
}

static void free_model(model *m)
{
    free(m->jobs);
    free(m->in);
    free(m);
}

static void table_finds_exactly_what_is_in(void **state)
{
    (void)state;
    model *m = new_model(7);
    luna_id_table table = {0};
    assert_null(luna_id_table_find(&table, &m->jobs[0].id));
    for (int step = 0; step < STEPS; step++) {
        const size_t i = draw(m, JOBS);
        assert_ptr_equal(luna_id_table_find(&table, &m->jobs[i].id),
                         m->in[i] ? &m->jobs[i] : NULL);
        if (m->in[i]) {
            luna_id_table_remove(&table, &m->jobs[i].id);
            m->count--;
        } else {
            assert_int_equal(luna_id_table_reserve(&table), LUNA_OK);
            luna_id_table_add(&table, &m->jobs[i]);
            m->count++;
        }
        m->in[i] = !m->in[i];
        assert_int_equal(table.count, m->count);
    }
    size_t walked = 0;
    const luna_job *job;
    for (size_t at = 0; (job = luna_id_table_next(&table, &at)); walked++)
        assert_true(m->in[job - m->jobs]);
    assert_int_equal(walked, m->count);
    for (size_t i = 0; i < JOBS; i++)
        assert_ptr_equal(luna_id_table_find(&table, &m->jobs[i].id),
                         m->in[i] ? &m->jobs[i] : NULL);
    free(table.slots);
    free_model(m);
}

//  The least of the model's, by brute force.
static const luna_job *least(const model *m)
{
    const luna_job *best = NULL;
    for (size_t i = 0; i < JOBS; i++)
        if (m->in[i] && (!best || luna_job_ranks_before(&m->jobs[i], best)))
            best = &m->jobs[i];
    return best;
}

static void heap_gives_the_least(void **state)
{
    (void)state;
    model *m = new_model(11);
    luna_job_heap heap = {.before = luna_job_ranks_before};
    assert_null(luna_job_heap_first(&heap));
    for (int step = 0; step < STEPS; step++) {
        const size_t i = draw(m, JOBS);
        if (m->in[i]) {
            luna_job_heap_remove(&heap, &m->jobs[i]);
        } else {
            m->jobs[i].rank_ms = (int64_t)draw(m, 50);
            assert_int_equal(luna_job_heap_reserve(&heap, heap.count + 1), LUNA_OK);
            luna_job_heap_push(&heap, &m->jobs[i]);
        }
        m->in[i] = !m->in[i];
        if (step % 64 == 0) assert_ptr_equal(luna_job_heap_first(&heap), least(m));
    }
    const luna_job *before = NULL;
    for (luna_job *first; (first = luna_job_heap_first(&heap)); before = first) {
        if (before) assert_true(luna_job_ranks_before(before, first));
        luna_job_heap_remove(&heap, first);
    }
    free(heap.at);
    free_model(m);
}

static void a_rebuilt_heap_is_in_order(void **state)
{
    (void)state;
    model *m = new_model(13);
    luna_job_heap heap = {.before = luna_job_expires_before, .kind = LUNA_HEAP_DEADLINE};
    assert_int_equal(luna_job_heap_reserve(&heap, JOBS), LUNA_OK);
    for (size_t i = 0; i < JOBS; i++) luna_job_heap_push(&heap, &m->jobs[i]);
    for (size_t i = 0; i < JOBS; i++) m->jobs[i].expires_ms = (int64_t)draw(m, 500);
    luna_job_heap_rebuild(&heap);
    int64_t before_ms = 0;
    for (luna_job *first; (first = luna_job_heap_first(&heap));) {
        assert_true(before_ms <= first->expires_ms);
        before_ms = first->expires_ms;
        luna_job_heap_remove(&heap, first);
    }
    free(heap.at);
    free_model(m);
}

//  ---- images --------------------------------------------------------------------

static uint32_t mark(luna_job *job, uint64_t input, uint64_t index)
{
    const luna_msg_image image = {.input = input, .index = index};
    return luna_job_mark_saved(job, &image, 1);
}

//  Every pair is tried; exactly those of the batches count, once each.
static void only_images_of_the_batches_are_marked(void **state)
{
    (void)state;
    luna_job job = {.batches = {3, 1, 9}, .images = 13};
    for (int round = 0; round < 2; round++)
        for (uint64_t input = 0; input < 8; input++)
            for (uint64_t index = 0; index < 20; index++) {
                const bool has = input < 3 && index < job.batches[input];
                assert_int_equal(luna_job_has_image(&job, input, index), has);
                assert_int_equal(mark(&job, input, index), has && round == 0);
                assert_int_equal(luna_job_image_saved(&job, input, index), has);
            }
    assert_int_equal(job.images_done, 13);
    assert_int_equal(mark(&job, 0, UINT64_MAX), 0);
    assert_int_equal(mark(&job, UINT64_MAX, 0), 0);
    free(job.saved);
}

static void marks_of_one_image_touch_no_other(void **state)
{
    (void)state;
    luna_job job = {.batches = {2, 5, 1, 8, 7}, .images = 23};
    assert_int_equal(mark(&job, 1, 4), 1);
    assert_int_equal(mark(&job, 4, 6), 1);
    uint32_t saved = 0;
    for (uint64_t input = 0; input < 5; input++)
        for (uint64_t index = 0; index < 8; index++)
            saved += luna_job_image_saved(&job, input, index);
    assert_int_equal(saved, 2);
    free(job.saved);
}

//  Without batches any input may have any of the images.
static void unknown_batches_are_taken_as_they_come(void **state)
{
    (void)state;
    luna_job job = {.images = 4};
    assert_int_equal(mark(&job, 4, 3), 1);
    assert_int_equal(mark(&job, 0, 3), 1);
    assert_int_equal(mark(&job, 0, 4), 0);
    assert_int_equal(mark(&job, 5, 0), 0);
    assert_true(luna_job_image_saved(&job, 4, 3));
    assert_false(luna_job_image_saved(&job, 3, 3));
    assert_int_equal(job.images_done, 2);
    free(job.saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_finds_exactly_what_is_in),
        cmocka_unit_test(heap_gives_the_least),
        cmocka_unit_test(a_rebuilt_heap_is_in_order),
        cmocka_unit_test(only_images_of_the_batches_are_marked),
        cmocka_unit_test(marks_of_one_image_touch_no_other),
        cmocka_unit_test(unknown_batches_are_taken_as_they_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
