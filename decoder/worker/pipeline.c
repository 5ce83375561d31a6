#include "decoder/worker/pipeline.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "decoder/image/encode.h"
#include "decoder/worker/decode.h"
#include "decoder/worker/pool.h"

#define KEPT_BYTES_MIN (64 << 20)  //  a smaller file is hashed in a blink
#define HASH_WAIT_MS   5000        //  a job's end waits so long for its VAE's hash

struct luna_pipeline {
    luna_pipeline_options options;
    luna_pool *pool;
    luna_decode_tools tools;
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

static void end_attempt(luna_pipeline *pipeline, luna_attempt *attempt, luna_err err)
{
    if (err != LUNA_OK) luna_attempt_fail(attempt, err);
    if (err == LUNA_DEVICE) give_up(pipeline);
    luna_attempt_decoded(attempt);
    luna_attempt_release(&attempt);
}

//  One whose VAE is not in memory yet comes again when it is; the next one has its turn.
static void run_attempt(luna_pipeline *pipeline, luna_attempt *attempt,
                        luna_parking *parking)
{
    luna_decode *decode = parking ? luna_decode_of(parking) : NULL;
    luna_err err = LUNA_OK;
    if (!decode) err = luna_decode_open(&pipeline->tools, attempt, &decode);
    luna_parking *wait = decode && !parking ? luna_decode_parking(decode) : NULL;
    if (wait && !wait->is_over(wait)) {
        luna_attempt_park(attempt, wait);
        return;
    }
    if (err == LUNA_OK) err = luna_decode_run(decode);
    luna_decode_close(&decode);
    end_attempt(pipeline, attempt, err);
}

static void *serve(void *context)
{
    luna_pipeline *pipeline = context;
    luna_attempt *attempt;
    luna_parking *parking = NULL;
    while ((attempt = luna_attempts_take(pipeline->options.attempts, &parking)))
        run_attempt(pipeline, attempt, parking);
    luna_hashes_stop(&pipeline->tools.hashes);
    luna_pool_stop(&pipeline->pool);
    atomic_store(&pipeline->idle, true);
    luna_attempts_nudge(pipeline->options.attempts);
    return NULL;
}

static void free_pipeline(luna_pipeline *pipeline)
{
    luna_hashes_stop(&pipeline->tools.hashes);
    luna_pool_stop(&pipeline->pool);
    luna_takes_free(&pipeline->tools.takes);
    free(pipeline);
}

static void step(void *attempts)
{
    luna_attempts_tick(attempts);
}

static luna_err start_hashes(luna_pipeline *pipeline)
{
    const luna_hashes_options options = {.cache = pipeline->options.hash_cache,
                                         .kept_bytes_min = KEPT_BYTES_MIN,
                                         .wait_ms = HASH_WAIT_MS,
                                         .step = step,
                                         .context = pipeline->options.attempts};
    return luna_hashes_start(&options, &pipeline->tools.hashes);
}

static luna_err start(luna_pipeline *pipeline)
{
    const luna_pipeline_options *options = &pipeline->options;
    const luna_pool_options pool = {.threads = options->encode_threads,
                                    .tasks_max = options->encode_threads + 1,
                                    .bytes_max = options->pixels_max,
                                    .thread_end = luna_image_thread_end};
    pipeline->tools = (luna_decode_tools){.attempts = options->attempts,
                                          .registry = options->registry,
                                          .takes = luna_takes_new(),
                                          .models = options->models,
                                          .sink = options->sink};
    if (!pipeline->tools.takes)
        return luna_error(LUNA_NO_MEMORY, "no memory for what VAEs take");
    LUNA_TRY(start_hashes(pipeline));
    LUNA_TRY(luna_pool_start(&pool, &pipeline->pool));
    pipeline->tools.pool = pipeline->pool;
    if (pthread_create(&pipeline->thread, NULL, serve, pipeline) == 0) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "cannot start the decode thread");
}

luna_err luna_pipeline_start(const luna_pipeline_options *options, luna_pipeline **out)
{
    luna_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) return luna_error(LUNA_NO_MEMORY, "no memory for the pipeline");
    pipeline->options = *options;
    const luna_err err = start(pipeline);
    if (err != LUNA_OK) {
        free_pipeline(pipeline);
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

void luna_pipeline_leave(const luna_pipeline *pipeline)
{
    (void)pthread_detach(pipeline->thread);
}

void luna_pipeline_stop(luna_pipeline **pipeline)
{
    if (!*pipeline) return;
    pthread_join((*pipeline)->thread, NULL);
    free_pipeline(*pipeline);
    *pipeline = NULL;
}
