#include "decoder/worker/worker.h"

#include <czmq.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/home.h"
#include "decoder/image/encode.h"
#include "decoder/sink/files.h"
#include "decoder/vae/backend.h"
#include "decoder/vae/memory_budget.h"
#include "decoder/vae/selftest.h"
#include "decoder/worker/accept.h"
#include "decoder/worker/link.h"
#include "decoder/worker/models.h"
#include "decoder/worker/pipeline.h"

#define ROOTS_MAX    64
#define SWEEP_MS     10000  //  of a start, at most
#define VAES_MAX     1000   //  names a hello can hold
#define FULL_WAIT_MS 10000  //  between two looks at a card that is full

typedef struct worker {
    const luna_decoder_settings *settings;
    luna_address broker;
    luna_registry *registry;
    const luna_backend *backend;
    int device_index;
    char device[LUNA_DEVICE_BYTES];
    int signal_fd;
    bool image_started;
    luna_sink *sink;
    luna_attempts *attempts;
    luna_models *models;
    luna_pipeline *pipeline;
    char hash_cache[LUNA_MAX_PATH_BYTES];  //  "": none
    char **vaes;                           //  their names, as they were at start
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

//  ---- the device -----------------------------------------------------------------

//  From now on by its own name: `auto` must not become the CPU when the GPU fails.
static luna_err find_device(worker *self)
{
    luna_card cards[LUNA_CARDS_MAX];
    size_t count = 0;
    int index = 0;
    LUNA_TRY(luna_backend_find(self->settings->device, &self->backend, &index));
    luna_backend_name(self->backend, index, self->device);
    self->device_index = index;
    if (!self->backend->cards) {
        if (strcmp(self->settings->device, "auto") == 0)
            luna_log(LUNA_LOG_INFO, "no_gpu", "detail=\"%s\" next=\"the CPU decodes\"",
                     luna_error_text());
        return LUNA_OK;
    }
    LUNA_TRY(self->backend->cards(cards, LUNA_CARDS_MAX, &count));
    if ((size_t)index < count)
        luna_log(LUNA_LOG_INFO, "device", "device=%s card=\"%s\" uuid=%s with=\"%s\"",
                 self->device, cards[index].name, cards[index].uuid,
                 self->backend->describe());
    return LUNA_OK;
}

//  Before anything of ours is on the card. The engines take what is free by themselves.
static luna_err tell_memory(const worker *self)
{
    luna_backend_memory memory;
    const size_t told = self->settings->memory_limit_bytes;
    if (!self->backend->memory) return LUNA_OK;
    LUNA_TRY(self->backend->memory(self->device_index, &memory));
    luna_log(LUNA_LOG_INFO, "memory", "device=%s limit=%zu by=\"%s\" free=%zu total=%zu",
             self->device,
             told ? told : luna_memory_budget(memory.free_bytes, memory.total_bytes),
             told ? "memory_limit" : "what is free, less a reserve", memory.free_bytes,
             memory.total_bytes);
    return LUNA_OK;
}

//  True when a signal came meanwhile.
static bool wait_for_signal(const worker *self, int ms)
{
    struct pollfd poll_fd = {.fd = self->signal_fd, .events = POLLIN};
    return poll(&poll_fd, 1, ms) > 0;
}

//  A card that others fill is waited for; one that decodes wrongly gets no work.
static luna_err test_device(const worker *self)
{
    luna_selftest_result result;
    luna_err err;
    while ((err = luna_selftest(self->device, LUNA_VAE_PRECISION_AUTO, &result)) ==
           LUNA_NO_MEMORY) {
        luna_log(LUNA_LOG_WARNING, "device_full",
                 "detail=\"%s\" next=\"tried again every %d s\"", luna_error_text(),
                 FULL_WAIT_MS / 1000);
        if (wait_for_signal(self, FULL_WAIT_MS))
            return luna_error(LUNA_CANCELLED, "stopped before there was memory");
    }
    LUNA_TRY(err);
    luna_log(LUNA_LOG_INFO, "device_tested",
             "device=%s distance_db=%.1f needed_db=%.0f open_ms=%.0f first_ms=%.0f "
             "second_ms=%.1f",
             self->device, result.distance_db, result.needed_db, result.open_ms,
             result.decode_ms, result.again_ms);
    return LUNA_OK;
}

static luna_err start_device(worker *self)
{
    LUNA_TRY(find_device(self));
    LUNA_TRY(tell_memory(self));
    return test_device(self);
}

//  ---- everything else --------------------------------------------------------------

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

static void loaded(void *attempts)
{
    luna_attempts_wake(attempts);
}

static void find_hash_cache(worker *self)
{
    char folder[LUNA_MAX_PATH_BYTES];
    if (luna_home_cache(folder, sizeof folder) != LUNA_OK ||
        luna_path_join(self->hash_cache, sizeof self->hash_cache, folder, "vae-sha256") !=
            LUNA_OK)
        self->hash_cache[0] = '\0';
}

static luna_err start_pipeline(worker *self)
{
    const luna_decoder_settings *settings = self->settings;
    LUNA_TRY(luna_attempts_new(&self->attempts));
    const luna_models_options models = {
        .device = self->device,
        .threads = (int)settings->cpu_threads,
        .memory_limit_bytes = settings->memory_limit_bytes,
        .count_max = settings->models_max,
        .bytes_max = settings->models_max_bytes,
        .step = step,
        .loaded = loaded,
        .context = self->attempts};
    LUNA_TRY(luna_models_new(&models, &self->models));
    find_hash_cache(self);
    LUNA_TRY(luna_image_start());
    self->image_started = true;
    const luna_pipeline_options pipeline = {
        .attempts = self->attempts,
        .registry = self->registry,
        .models = self->models,
        .sink = self->sink,
        .hash_cache = self->hash_cache[0] ? self->hash_cache : NULL,
        .encode_threads = settings->encode_threads,
        .pixels_max = settings->pixels_max_bytes};
    return luna_pipeline_start(&pipeline, &self->pipeline);
}

//  A broker on another machine knows this one by its key alone.
static luna_err find_broker(worker *self)
{
    char key[LUNA_KEY_TEXT_BYTES];
    const luna_decoder_settings *settings = self->settings;
    LUNA_TRY(luna_address_parse(settings->broker, &self->broker));
    LUNA_TRY(luna_address_keys(&self->broker, settings->key_file));
    if (!self->broker.remote) return LUNA_OK;
    luna_key_text(&self->broker.own.open, key);
    luna_log(LUNA_LOG_INFO, "remote",
             "broker=%s key=%s next=\"its allowed_keys must list this key\"",
             self->broker.endpoint, key);
    return LUNA_OK;
}

static luna_err start(worker *self)
{
    LUNA_TRY(take_signals(self));
    LUNA_TRY(find_broker(self));
    LUNA_TRY(start_device(self));
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
    const luna_link_options options = {
        .control = settings->broker,
        .broker = &self->broker,
        .name = settings->name,
        .device = self->device,
        .vaes = self->announced,
        .vae_count = self->vae_count,
        .formats = luna_accept_formats(),
        .credit_jobs = settings->credit_jobs,
        .credit_bytes = settings->credit_bytes,
        .stop_ms = (int64_t)settings->stop_timeout_ms,
        //  (One step may take a CPU very long.)
        .hang_ms = self->backend->cards ? (int64_t)settings->hang_timeout_ms : 0,
        .signal_fd = self->signal_fd,
        .attempts = self->attempts,
        .pipeline = self->pipeline};
    return luna_link_run(&options, end);
}

//  Without cleaning up: a decode cannot be interrupted and its memory cannot be freed
//  under it, and a device that failed may never answer again.
static void end_at_once(const worker *self, luna_link_end end)
{
    const bool broken = end == LUNA_LINK_BROKEN;
    const int code = broken ? luna_err_exit(LUNA_DEVICE) : 0;
    luna_log(broken ? LUNA_LOG_ERROR : LUNA_LOG_WARNING, "stopped",
             "exit=%d reason=\"%s\" next=\"%s\"", code,
             broken ? "the device failed" : "the image in hand took too long",
             broken ? "the jobs are given back; start this decoder again"
                    : "the broker gives the job to another decoder");
    luna_pipeline_leave(self->pipeline);
    zsys_shutdown();  //  waits for the last messages to leave
    _exit(code);
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

luna_err luna_worker_serve(const luna_decoder_settings *settings, luna_registry *registry)
{
    worker self = {.settings = settings, .registry = registry, .signal_fd = -1};
    luna_link_end end = LUNA_LINK_STOPPED;
    luna_err err = start(&self);
    const bool stopped = err == LUNA_CANCELLED;  //  by a signal
    if (err == LUNA_OK) err = run(&self, &end);
    if (err == LUNA_OK && end != LUNA_LINK_STOPPED) end_at_once(&self, end);
    clean_up(&self);
    if (stopped) err = LUNA_OK;
    if (err == LUNA_OK) luna_log(LUNA_LOG_INFO, "stopped", "exit=0");
    return err;
}
