//  The encode pool: what waits and what runs is bounded in number and bytes.

#include "kit.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "decoder/worker/pool.h"

typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    size_t running;
    size_t ran;
    size_t ended;  //  threads
} gate;

static gate the_gate;

typedef struct gated {
    luna_task task;
} gated;

static void wait_until_running(size_t count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_MS / 1000;
    int err = 0;
    pthread_mutex_lock(&the_gate.lock);
    while (the_gate.running != count && err == 0)
        err = pthread_cond_timedwait(&the_gate.changed, &the_gate.lock, &until);
    pthread_mutex_unlock(&the_gate.lock);
    assert_int_equal(err, 0);
}

static void pass_gate(luna_task *task)
{
    pthread_mutex_lock(&the_gate.lock);
    the_gate.running++;
    pthread_cond_broadcast(&the_gate.changed);
    while (!the_gate.open) pthread_cond_wait(&the_gate.changed, &the_gate.lock);
    the_gate.running--;
    the_gate.ran++;
    pthread_mutex_unlock(&the_gate.lock);
    free(task);
}

static void thread_end(void)
{
    pthread_mutex_lock(&the_gate.lock);
    the_gate.ended++;
    pthread_mutex_unlock(&the_gate.lock);
}

static void open_gate(void)
{
    pthread_mutex_lock(&the_gate.lock);
    the_gate.open = true;
    pthread_cond_broadcast(&the_gate.changed);
    pthread_mutex_unlock(&the_gate.lock);
}

static luna_pool *start(size_t threads, size_t tasks, size_t bytes)
{
    the_gate =
        (gate){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    const luna_pool_options options = {threads, tasks, bytes, thread_end};
    luna_pool *pool = NULL;
    assert_int_equal(luna_pool_start(&options, &pool), LUNA_OK);
    return pool;
}

static void submit(luna_pool *pool, size_t bytes)
{
    gated *task = calloc(1, sizeof *task);
    assert_non_null(task);
    task->task.run = pass_gate;
    task->task.bytes = bytes;
    luna_pool_submit(pool, &task->task);
}

typedef struct reserver {
    luna_pool *pool;
    size_t bytes;
    bool got;
} reserver;

static void *reserve(void *context)
{
    reserver *self = context;
    luna_pool_reserve(self->pool, self->bytes);
    pthread_mutex_lock(&the_gate.lock);
    self->got = true;
    pthread_mutex_unlock(&the_gate.lock);
    return NULL;
}

static bool has_got(reserver *self)
{
    pthread_mutex_lock(&the_gate.lock);
    const bool got = self->got;
    pthread_mutex_unlock(&the_gate.lock);
    return got;
}

//  With every task at the gate nobody gives room back, so the reserver can only get
//  room before the gate opens if the bound is broken.
static void waits_for_room(luna_pool *pool, size_t bytes)
{
    reserver self = {.pool = pool, .bytes = bytes};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reserve, &self), 0);
    for (int i = 0; i < 1000; i++) {
        assert_false(has_got(&self));
        sched_yield();
    }
    open_gate();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(self.got);
    luna_pool_unreserve(pool, bytes);
}

static void tasks_are_bounded(void **state)
{
    (void)state;
    luna_pool *pool = start(2, 3, 1000);
    for (int i = 0; i < 3; i++) {
        luna_pool_reserve(pool, 1);
        submit(pool, 1);
    }
    wait_until_running(2);
    waits_for_room(pool, 1);
    luna_pool_stop(&pool);
    assert_null(pool);
    assert_int_equal(the_gate.ran, 3);
    assert_int_equal(the_gate.ended, 2);
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    luna_pool *pool = start(2, 10, 100);
    luna_pool_reserve(pool, 60);
    submit(pool, 60);
    luna_pool_reserve(pool, 40);
    submit(pool, 40);
    waits_for_room(pool, 1);
    luna_pool_stop(&pool);
    assert_int_equal(the_gate.ran, 2);
}

static void one_larger_than_all_is_let_in_alone(void **state)
{
    (void)state;
    luna_pool *pool = start(1, 10, 100);
    luna_pool_reserve(pool, 5000);
    submit(pool, 5000);
    waits_for_room(pool, 1);
    luna_pool_stop(&pool);
    assert_int_equal(the_gate.ran, 1);
}

static void what_is_queued_runs_before_the_end(void **state)
{
    (void)state;
    luna_pool *pool = start(1, 50, 1000);
    for (int i = 0; i < 50; i++) {
        luna_pool_reserve(pool, 1);
        submit(pool, 1);
    }
    open_gate();
    luna_pool_stop(&pool);
    assert_int_equal(the_gate.ran, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_bounded), cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(one_larger_than_all_is_let_in_alone),
        cmocka_unit_test(what_is_queued_runs_before_the_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
