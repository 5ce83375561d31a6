#include "decoder/worker/pool.h"

#include <pthread.h>
#include <stdlib.h>

struct luna_pool {
    luna_pool_options options;
    pthread_mutex_t lock;
    pthread_cond_t work;   //  a task came, or the end
    pthread_cond_t space;  //  a task has run
    luna_task *first;
    luna_task **last;
    size_t tasks;  //  reserved
    size_t bytes;
    bool ending;
    size_t started;
    pthread_t threads[];
};

static bool has_room(const luna_pool *pool, size_t bytes)
{
    return pool->tasks == 0 || (pool->tasks < pool->options.tasks_max &&
                                pool->bytes < pool->options.bytes_max &&
                                bytes <= pool->options.bytes_max - pool->bytes);
}

void luna_pool_reserve(luna_pool *pool, size_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    while (!has_room(pool, bytes)) pthread_cond_wait(&pool->space, &pool->lock);
    pool->tasks++;
    pool->bytes += bytes;
    pthread_mutex_unlock(&pool->lock);
}

void luna_pool_unreserve(luna_pool *pool, size_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    pool->tasks--;
    pool->bytes -= bytes;
    pthread_cond_signal(&pool->space);
    pthread_mutex_unlock(&pool->lock);
}

void luna_pool_submit(luna_pool *pool, luna_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->last = task;
    pool->last = &task->next;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

//  Waits for a task; NULL when the pool ends and none is left.
static luna_task *next_task(luna_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (!pool->first && !pool->ending) pthread_cond_wait(&pool->work, &pool->lock);
    luna_task *task = pool->first;
    if (task) pool->first = task->next;
    if (!pool->first) pool->last = &pool->first;
    pthread_mutex_unlock(&pool->lock);
    return task;
}

static void *serve(void *context)
{
    luna_pool *pool = context;
    luna_task *task;
    while ((task = next_task(pool))) {
        const size_t bytes = task->bytes;
        task->run(task);
        luna_pool_unreserve(pool, bytes);
    }
    if (pool->options.thread_end) pool->options.thread_end();
    return NULL;
}

luna_err luna_pool_start(const luna_pool_options *options, luna_pool **out)
{
    luna_pool *pool =
        calloc(1, sizeof *pool + options->threads * sizeof pool->threads[0]);
    if (!pool) return luna_error(LUNA_NO_MEMORY, "no memory for the encode threads");
    pool->options = *options;
    pool->last = &pool->first;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->space, NULL);
    while (pool->started < options->threads &&
           pthread_create(&pool->threads[pool->started], NULL, serve, pool) == 0)
        pool->started++;
    if (pool->started < options->threads) {
        luna_pool_stop(&pool);
        return luna_error(LUNA_NO_MEMORY, "cannot start %zu encode threads",
                          options->threads);
    }
    *out = pool;
    return LUNA_OK;
}

void luna_pool_stop(luna_pool **held)
{
    luna_pool *pool = *held;
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->started; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->space);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    *held = NULL;
}
