#include "decoder/worker/worker.h"

#include <czmq.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "decoder/image/encode.h"
#include "decoder/sink/files.h"
#include "decoder/vae/backend.h"
#include "decoder/worker/link.h"
#include "decoder/worker/models.h"
#include "decoder/worker/pipeline.h"

#define ROOTS_MAX 64
#define SWEEP_MS  10000  //  of a start, at most
#define VAES_MAX  1000   //  names a hello can hold

typedef struct worker {
    const luna_decoder_settings *settings;
    luna_registry *registry;
    char device[LUNA_DEVICE_BYTES];
    int signal_fd;
    bool image_started;
    luna_sink *sink;
    luna_attempts *attempts;
    luna_models *models;
    luna_pipeline *pipeline;
    char **vaes;  //  their names, as they were at start
    luna_msg_vae *announced;
    size_t vae_count;
} worker;

//  Every thread inherits the mask, so signals reach the descriptor only.
static luna_err take_signals(worker *self)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return luna_error(LUNA_INTERNAL, "cannot block signals");
    self->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (self->signal_fd < 0) return luna_error_errno(LUNA_IO, "cannot watch signals");
    zsys_handler_set(NULL);
    return LUNA_OK;
}

static luna_err find_device(worker *self)
{
    const luna_backend *backend = NULL;
    int index = 0;
    LUNA_TRY(luna_backend_find(self->settings->device, &backend, &index));
    luna_backend_name(backend, index, self->device);
    return LUNA_OK;
}

static void sweep(worker *self)
{
    luna_swept swept;
    const int64_t start_ns = luna_now_ns();
    const luna_err err = luna_sink_sweep(
        self->sink, (int64_t)self->settings->keep_records_ms, SWEEP_MS, &swept);
    if (err != LUNA_OK)
        luna_log(LUNA_LOG_WARNING, "sweep_failed", "detail=\"%s\"", luna_error_text());
    if (err == LUNA_OK && (swept.removed || swept.passed_over))
        luna_log(LUNA_LOG_INFO, "swept",
                 "removed=%llu passed_over=%llu ms=%lld "
                 "of=\"temporary files of decoders that died\"",
                 (unsigned long long)swept.removed, (unsigned long long)swept.passed_over,
                 (long long)((luna_now_ns() - start_ns) / 1000000));
}

static luna_err open_sink(worker *self)
{
    char *paths = malloc((size_t)ROOTS_MAX * LUNA_SINK_PATH_BYTES);
    const char *roots[ROOTS_MAX];
    luna_files_options options = {.roots = roots, .access = self->settings->access};
    if (!paths) return luna_error(LUNA_NO_MEMORY, "no memory for the output roots");
    while (options.count < ROOTS_MAX) {
        char *path = paths + options.count * LUNA_SINK_PATH_BYTES;
        if (!luna_paths_at(self->settings->output_roots, options.count, path,
                           LUNA_SINK_PATH_BYTES))
            break;
        roots[options.count++] = path;
    }
    const luna_err err = luna_files_open(&options, &self->sink);
    free(paths);
    LUNA_TRY(err);
    sweep(self);
    return LUNA_OK;
}

//  The decode thread may look into the roots again; the link has its own copy.
static luna_err list_vaes(worker *self)
{
    const size_t known = luna_registry_count(self->registry);
    const size_t count = known < VAES_MAX ? known : VAES_MAX;
    self->vaes = calloc(count + 1, sizeof *self->vaes);
    self->announced = calloc(count + 1, sizeof *self->announced);
    if (!self->vaes || !self->announced)
        return luna_error(LUNA_NO_MEMORY, "no memory for the names of the VAEs");
    for (size_t i = 0; i < count; i++) {
        self->vaes[i] = strdup(luna_registry_at(self->registry, i)->name);
        if (!self->vaes[i])
            return luna_error(LUNA_NO_MEMORY, "no memory for the name of a VAE");
        self->announced[i].name = luna_text_of(self->vaes[i]);
        self->vae_count++;
    }
    if (count == 0)
        luna_log(LUNA_LOG_WARNING, "no_vae",
                 "next=\"set [vae] roots or add a [vae NAME] section\"");
    return LUNA_OK;
}

static void step(void *attempts)
{
    luna_attempts_tick(attempts);
}

static luna_err start_pipeline(worker *self)
{
    const luna_decoder_settings *settings = self->settings;
    LUNA_TRY(luna_attempts_new(&self->attempts));
    const luna_models_options models = {
        .device = settings->device,
        .threads = (int)settings->cpu_threads,
        .memory_limit_bytes = settings->memory_limit_bytes,
        .count_max = settings->models_max,
        .bytes_max = settings->models_max_bytes,
        .step = step,
        .step_context = self->attempts};
    LUNA_TRY(luna_models_new(&models, &self->models));
    LUNA_TRY(luna_image_start());
    self->image_started = true;
    const luna_pipeline_options pipeline = {.attempts = self->attempts,
                                            .registry = self->registry,
                                            .models = self->models,
                                            .sink = self->sink,
                                            .encode_threads = settings->encode_threads,
                                            .pixels_max = settings->pixels_max_bytes};
    return luna_pipeline_start(&pipeline, &self->pipeline);
}

static luna_err start(worker *self)
{
    LUNA_TRY(take_signals(self));
    LUNA_TRY(find_device(self));
    LUNA_TRY(open_sink(self));
    LUNA_TRY(list_vaes(self));
    LUNA_TRY(start_pipeline(self));
    luna_log(LUNA_LOG_INFO, "started",
             "name=\"%s\" device=%s vaes=%zu encode_threads=%llu version=%s",
             self->settings->name, self->device, self->vae_count,
             (unsigned long long)self->settings->encode_threads, LUNA_VERSION);
    return LUNA_OK;
}

static luna_err run(worker *self, luna_link_end *end)
{
    const luna_decoder_settings *settings = self->settings;
    const luna_link_options options = {.control = settings->broker,
                                       .name = settings->name,
                                       .device = self->device,
                                       .vaes = self->announced,
                                       .vae_count = self->vae_count,
                                       .credit_jobs = settings->credit_jobs,
                                       .credit_bytes = settings->credit_bytes,
                                       .stop_ms = (int64_t)settings->stop_timeout_ms,
                                       .signal_fd = self->signal_fd,
                                       .attempts = self->attempts,
                                       .pipeline = self->pipeline};
    return luna_link_run(&options, end);
}

//  The decode cannot be interrupted, and its memory cannot be freed under it.
static void end_at_once(void)
{
    luna_log(LUNA_LOG_WARNING, "stopped",
             "reason=\"the image in hand took too long\" next=\"the broker gives the job "
             "to another decoder\"");
    zsys_shutdown();  //  waits for the last messages to leave
    _exit(0);
}

static void clean_up(worker *self)
{
    if (self->attempts) luna_attempts_stop(self->attempts);
    luna_pipeline_stop(&self->pipeline);
    if (self->image_started) luna_image_stop();
    luna_models_free(&self->models);
    luna_attempts_free(&self->attempts);
    luna_sink_close(&self->sink);
    for (size_t i = 0; i < self->vae_count; i++) free(self->vaes[i]);
    free(self->vaes);
    free(self->announced);
    if (self->signal_fd >= 0) close(self->signal_fd);
}

luna_err luna_worker_serve(const luna_decoder_settings *settings, luna_registry *registry,
                           int *exit_code)
{
    worker self = {.settings = settings, .registry = registry, .signal_fd = -1};
    luna_link_end end = LUNA_LINK_STOPPED;
    luna_err err = start(&self);
    if (err == LUNA_OK) err = run(&self, &end);
    if (err == LUNA_OK && end == LUNA_LINK_HURRIED) end_at_once();
    clean_up(&self);
    if (err == LUNA_OK) {
        *exit_code = end == LUNA_LINK_BROKEN ? luna_err_exit(LUNA_DEVICE) : 0;
        luna_log(LUNA_LOG_INFO, "stopped", "exit=%d", *exit_code);
    }
    return err;
}
