#include "decoder/worker/pipeline.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "decoder/image/encode.h"
#include "decoder/worker/decode.h"
#include "decoder/worker/pool.h"

struct luna_pipeline {
    luna_pipeline_options options;
    luna_pool *pool;
    pthread_t thread;
    atomic_bool idle;
    atomic_bool broken;
};

//  The jobs that wait must not be tried on a device that failed.
static void give_up(luna_pipeline *pipeline)
{
    atomic_store(&pipeline->broken, true);
    luna_attempts_stop(pipeline->options.attempts);
}

static void run_attempt(luna_pipeline *pipeline, luna_attempt *attempt)
{
    const luna_decode decode = {.attempt = attempt,
                                .registry = pipeline->options.registry,
                                .models = pipeline->options.models,
                                .sink = pipeline->options.sink,
                                .pool = pipeline->pool,
                                .attempts = pipeline->options.attempts};
    const luna_err err = luna_decode_attempt(&decode);
    if (err != LUNA_OK) luna_attempt_fail(attempt, err);
    if (err == LUNA_DEVICE) give_up(pipeline);
    luna_attempt_decoded(attempt);
    luna_attempt_release(&attempt);
}

static void *serve(void *context)
{
    luna_pipeline *pipeline = context;
    luna_attempt *attempt;
    while ((attempt = luna_attempts_take(pipeline->options.attempts)))
        run_attempt(pipeline, attempt);
    luna_pool_stop(&pipeline->pool);
    atomic_store(&pipeline->idle, true);
    luna_attempts_nudge(pipeline->options.attempts);
    return NULL;
}

luna_err luna_pipeline_start(const luna_pipeline_options *options, luna_pipeline **out)
{
    luna_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) return luna_error(LUNA_NO_MEMORY, "no memory for the pipeline");
    pipeline->options = *options;
    const luna_pool_options pool = {.threads = options->encode_threads,
                                    .tasks_max = options->encode_threads + 1,
                                    .bytes_max = options->pixels_max,
                                    .thread_end = luna_image_thread_end};
    luna_err err = luna_pool_start(&pool, &pipeline->pool);
    if (err == LUNA_OK && pthread_create(&pipeline->thread, NULL, serve, pipeline) != 0)
        err = luna_error(LUNA_NO_MEMORY, "cannot start the decode thread");
    if (err != LUNA_OK) {
        luna_pool_stop(&pipeline->pool);
        free(pipeline);
        return err;
    }
    *out = pipeline;
    return LUNA_OK;
}

bool luna_pipeline_is_idle(const luna_pipeline *pipeline)
{
    return atomic_load(&pipeline->idle);
}

bool luna_pipeline_is_broken(const luna_pipeline *pipeline)
{
    return atomic_load(&pipeline->broken);
}

void luna_pipeline_stop(luna_pipeline **pipeline)
{
    if (!*pipeline) return;
    pthread_join((*pipeline)->thread, NULL);
    free(*pipeline);
    *pipeline = NULL;
}
