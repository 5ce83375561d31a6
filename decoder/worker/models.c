#include "decoder/worker/models.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

typedef enum engine_state {
    ENGINE_ASKED,
    ENGINE_LOADING,
    ENGINE_READY,
    ENGINE_FAILED,  //  no longer in the list
    ENGINE_CLOSING  //  found by nobody; in the list, for its memory counts
} engine_state;

struct luna_engine {
    luna_models *models;
    luna_engine *next;  //  used less recently
    luna_file_key file;
    char *name;  //  of the entry, for the log
    luna_vae_precision precision;
    float scale;
    float shift;
    uint64_t turn;   //  of its load: the smallest is first
    uint64_t bytes;  //  once it is being loaded
    size_t holders;
    bool listed;
    luna_vae *vae;
    luna_err err;
    char detail[1024];
    atomic_int state;  //  what is above of a load is written before
};

struct luna_models {
    luna_models_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;  //  for the loading thread: a load, a release, the end
    luna_engine *first;   //  of those asked for, loading or ready
    luna_engine *wants_room;
    uint64_t turn;
    bool stopped;
};

static engine_state state_of(const luna_engine *engine)
{
    return (engine_state)atomic_load(&engine->state);
}

static void engine_free(luna_engine *gone)
{
    if (!gone) return;
    luna_vae_close(&gone->vae);
    luna_file_key_free(&gone->file);
    free(gone->name);
    free(gone);
}

//  ---- the list, locked --------------------------------------------------------------

static void unlist(luna_engine *engine)
{
    luna_engine **at = &engine->models->first;
    while (*at && *at != engine) at = &(*at)->next;
    if (*at) *at = engine->next;
    engine->next = NULL;
    engine->listed = false;
}

static void put_first(luna_engine *engine)
{
    engine->next = engine->models->first;
    engine->models->first = engine;
    engine->listed = true;
}

static bool is_same(float a, float b)
{
    return !(a < b || a > b);
}

static luna_engine *find(luna_models *models, const luna_vae_entry *entry,
                         const luna_file_key *file)
{
    luna_engine *at = models->first;
    while (at &&
           !(state_of(at) != ENGINE_CLOSING && luna_file_key_equal(&at->file, file) &&
             at->precision == entry->precision &&
             is_same(at->scale, entry->latent_scale) &&
             is_same(at->shift, entry->latent_shift)))
        at = at->next;
    return at;
}

static luna_engine *next_asked(const luna_models *models)
{
    luna_engine *next = NULL;
    for (luna_engine *at = models->first; at; at = at->next)
        if (state_of(at) == ENGINE_ASKED && (!next || at->turn < next->turn)) next = at;
    return next;
}

//  ---- room, locked ------------------------------------------------------------------

static bool takes_memory(const luna_engine *engine)
{
    return state_of(engine) == ENGINE_READY || state_of(engine) == ENGINE_CLOSING;
}

static bool has_room(const luna_models *models, const luna_engine *wanted)
{
    uint64_t bytes = wanted->bytes;
    size_t count = 1;
    for (const luna_engine *at = models->first; at; at = at->next) {
        if (!takes_memory(at)) continue;
        bytes += at->bytes;
        count++;
    }
    return count == 1 ||
           (count <= models->options.count_max && bytes <= models->options.bytes_max);
}

//  The one used longest ago that nobody holds.
static luna_engine *evictable(const luna_models *models)
{
    luna_engine *found = NULL;
    for (luna_engine *at = models->first; at; at = at->next)
        if (state_of(at) == ENGINE_READY && at->holders == 0) found = at;
    return found;
}

//  Frees an engine that nobody holds. Unlocked while it is closed, which may take long.
static void end_engine(luna_engine *gone)
{
    luna_models *models = gone->models;
    if (state_of(gone) == ENGINE_READY)
        luna_log(LUNA_LOG_INFO, "vae_unloaded", "vae=\"%s\" path=\"%s\"", gone->name,
                 gone->file.path);
    atomic_store(&gone->state, ENGINE_CLOSING);
    pthread_mutex_unlock(&models->lock);
    luna_vae_close(&gone->vae);
    pthread_mutex_lock(&models->lock);
    if (gone->listed) unlist(gone);
    engine_free(gone);
    pthread_cond_broadcast(&models->news);
}

static bool spare(luna_models *models)
{
    luna_engine *gone;
    bool any = false;
    for (; (gone = evictable(models)); any = true) end_engine(gone);
    return any;
}

bool luna_models_spare(luna_models *models)
{
    pthread_mutex_lock(&models->lock);
    const bool any = spare(models);
    pthread_mutex_unlock(&models->lock);
    return any;
}

//  Whether somebody still waits for the load.
static bool is_wanted(const luna_engine *engine)
{
    return engine->holders > 0 && !engine->models->stopped;
}

//  Returns without room when the load is not wanted any more.
static void make_room(luna_models *models, luna_engine *wanted)
{
    while (is_wanted(wanted) && !has_room(models, wanted)) {
        luna_engine *gone = evictable(models);
        models->wants_room = wanted;
        if (gone)
            end_engine(gone);
        else
            pthread_cond_wait(&models->news, &models->lock);
    }
    models->wants_room = NULL;
}

//  ---- loading -----------------------------------------------------------------------

static luna_vae_options options_of(const luna_engine *engine)
{
    const luna_models_options *from = &engine->models->options;
    luna_vae_options options = luna_vae_options_default();
    options.device = from->device;
    options.threads = from->threads;
    options.memory_limit_bytes = from->memory_limit_bytes;
    options.step = from->step;
    options.step_context = from->context;
    options.precision = engine->precision;
    options.latent_scale = engine->scale;
    options.latent_shift = engine->shift;
    return options;
}

static bool loading(void *context)
{
    const luna_engine *engine = context;
    luna_models *models = engine->models;
    if (models->options.step) models->options.step(models->options.context);
    pthread_mutex_lock(&models->lock);
    const bool wanted = is_wanted(engine);
    pthread_mutex_unlock(&models->lock);
    return wanted;
}

static void log_load(const luna_engine *engine, int64_t start_ms)
{
    const luna_vae_info *info = luna_vae_describe(engine->vae);
    luna_log(LUNA_LOG_INFO, "vae_loaded",
             "vae=\"%s\" family=%s variant=\"%s\" channels=%zu device=%s precision=%s "
             "read_bytes=%llu ms=%lld path=\"%s\"",
             engine->name, info->family, info->variant, info->latent_channels,
             info->device, info->precision, (unsigned long long)info->read_bytes,
             (long long)(luna_now_ms() - start_ms), engine->file.path);
}

//  The key must be that of the bytes which were read. Some network file systems give a
//  file another inode at every look: that alone is no change.
static luna_err check_unchanged(const luna_engine *engine)
{
    luna_file_key now;
    if (luna_file_key_of(engine->file.path, &now) == LUNA_OK &&
        now.bytes == engine->file.bytes && now.changed_ns == engine->file.changed_ns)
        return LUNA_OK;
    return luna_error(LUNA_IO, "the VAE %s was changed while it was loaded; try again",
                      engine->file.path);
}

//  The device was there at start.
static luna_err as_device(luna_err err)
{
    return err == LUNA_UNAVAILABLE ? luna_error(LUNA_DEVICE, "%s", luna_error_text())
                                   : err;
}

static luna_err open_engine(luna_engine *engine)
{
    luna_vae_options options = options_of(engine);
    options.loading = loading;
    options.loading_context = engine;
    const int64_t start_ms = luna_now_ms();
    luna_err err = luna_vae_open(engine->file.path, &options, &engine->vae);
    //  When there is no memory for it beside those that nobody holds, they go.
    if (err == LUNA_NO_MEMORY && luna_models_spare(engine->models))
        err = luna_vae_open(engine->file.path, &options, &engine->vae);
    LUNA_TRY(as_device(err));
    LUNA_TRY(check_unchanged(engine));
    log_load(engine, start_ms);
    return LUNA_OK;
}

//  What it will take, from the header.
static luna_err measure(luna_engine *engine)
{
    const luna_vae_options options = options_of(engine);
    luna_vae_info info;
    LUNA_TRY(luna_vae_inspect(engine->file.path, &options, &info));
    engine->bytes = 4 * info.parameter_count;
    return LUNA_OK;
}

static luna_err load(luna_models *models, luna_engine *engine)
{
    LUNA_TRY(measure(engine));
    pthread_mutex_lock(&models->lock);
    make_room(models, engine);
    const bool wanted = is_wanted(engine);
    pthread_mutex_unlock(&models->lock);
    if (wanted) return open_engine(engine);
    return luna_error(LUNA_CANCELLED, "nobody waits for the VAE %s any more",
                      engine->file.path);
}

static void note_failure(luna_engine *engine, luna_err err)
{
    engine->err = err;
    strncpy(engine->detail, luna_error_text(), sizeof engine->detail - 1);
    luna_vae_close(&engine->vae);
    if (err == LUNA_CANCELLED)
        luna_log(LUNA_LOG_INFO, "vae_load_given_up", "vae=\"%s\" path=\"%s\"",
                 engine->name, engine->file.path);
    else
        luna_log(LUNA_LOG_WARNING, "vae_not_loaded", "vae=\"%s\" err=%s detail=\"%s\"",
                 engine->name, luna_err_name(err), engine->detail);
}

//  One that was asked for while its load was being given up is begun again. Locked.
static void settle(luna_engine *engine, luna_err err)
{
    if (err == LUNA_OK) {
        atomic_store(&engine->state, ENGINE_READY);
    } else if (err == LUNA_CANCELLED && is_wanted(engine)) {
        atomic_store(&engine->state, ENGINE_ASKED);
    } else {
        unlist(engine);
        atomic_store(&engine->state, ENGINE_FAILED);
        if (engine->holders == 0) engine_free(engine);
    }
}

static void load_next(luna_models *models, luna_engine *engine)
{
    atomic_store(&engine->state, ENGINE_LOADING);
    pthread_mutex_unlock(&models->lock);
    const luna_err err = load(models, engine);
    if (err != LUNA_OK) note_failure(engine, err);
    pthread_mutex_lock(&models->lock);
    settle(engine, err);
    pthread_mutex_unlock(&models->lock);
    if (models->options.loaded) models->options.loaded(models->options.context);
    pthread_mutex_lock(&models->lock);
}

static void *serve(void *context)
{
    luna_models *models = context;
    pthread_mutex_lock(&models->lock);
    while (!models->stopped) {
        luna_engine *next = next_asked(models);
        if (next)
            load_next(models, next);
        else
            pthread_cond_wait(&models->news, &models->lock);
    }
    pthread_mutex_unlock(&models->lock);
    return NULL;
}

//  ---- start and end -----------------------------------------------------------------

luna_err luna_models_new(const luna_models_options *options, luna_models **out)
{
    luna_models *models = calloc(1, sizeof *models);
    if (!models) return luna_error(LUNA_NO_MEMORY, "no memory for the list of models");
    models->options = *options;
    pthread_mutex_init(&models->lock, NULL);
    pthread_cond_init(&models->news, NULL);
    if (pthread_create(&models->thread, NULL, serve, models) != 0) {
        pthread_cond_destroy(&models->news);
        pthread_mutex_destroy(&models->lock);
        free(models);
        return luna_error(LUNA_NO_MEMORY, "cannot start the thread that loads VAEs");
    }
    *out = models;
    return LUNA_OK;
}

static void stop(luna_models *models)
{
    pthread_mutex_lock(&models->lock);
    models->stopped = true;
    pthread_cond_broadcast(&models->news);
    pthread_mutex_unlock(&models->lock);
    pthread_join(models->thread, NULL);
}

void luna_models_free(luna_models **held)
{
    luna_models *models = *held;
    if (!models) return;
    stop(models);
    while (models->first) {
        luna_engine *gone = models->first;
        models->first = gone->next;
        engine_free(gone);
    }
    pthread_cond_destroy(&models->news);
    pthread_mutex_destroy(&models->lock);
    free(models);
    *held = NULL;
}

//  ---- holders -----------------------------------------------------------------------

static luna_err new_engine(luna_models *models, const luna_vae_entry *entry,
                           const luna_file_key *file, luna_engine **out)
{
    luna_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return luna_error(LUNA_NO_MEMORY, "no memory for the VAE %s", entry->path);
    engine->models = models;
    engine->precision = entry->precision;
    engine->scale = entry->latent_scale;
    engine->shift = entry->latent_shift;
    engine->name = strdup(entry->name);
    luna_err err = luna_error(LUNA_NO_MEMORY, "no memory for the name of a VAE");
    if (engine->name) err = luna_file_key_copy(file, &engine->file);
    if (err != LUNA_OK) {
        engine_free(engine);
        return err;
    }
    *out = engine;
    return LUNA_OK;
}

//  Moves the engine of this entry to the front and holds it; `fresh` becomes it when
//  there is none. Returns whether it did.
static bool hold(luna_models *models, const luna_vae_entry *entry, luna_engine *fresh,
                 luna_engine **out)
{
    luna_engine *known = find(models, entry, &fresh->file);
    luna_engine *engine = known ? known : fresh;
    if (known) unlist(known);
    put_first(engine);
    engine->holders++;
    *out = engine;
    if (known) return false;
    engine->turn = models->turn++;
    pthread_cond_broadcast(&models->news);
    return true;
}

luna_err luna_models_ask(luna_models *models, const luna_vae_entry *entry,
                         luna_engine **out)
{
    luna_file_key file;
    luna_engine *fresh = NULL;
    LUNA_TRY(luna_file_key_of(entry->path, &file));
    LUNA_TRY(new_engine(models, entry, &file, &fresh));
    pthread_mutex_lock(&models->lock);
    const bool used = hold(models, entry, fresh, out);
    pthread_mutex_unlock(&models->lock);
    if (!used) engine_free(fresh);
    return LUNA_OK;
}

bool luna_engine_is_loading(const luna_engine *engine)
{
    return state_of(engine) == ENGINE_ASKED || state_of(engine) == ENGINE_LOADING;
}

luna_err luna_engine_result(const luna_engine *engine)
{
    const engine_state state = state_of(engine);
    if (state == ENGINE_READY) return LUNA_OK;
    if (state == ENGINE_FAILED) return luna_error(engine->err, "%s", engine->detail);
    return luna_error(LUNA_BUSY, "the VAE %s is being loaded", engine->name);
}

luna_vae *luna_engine_vae(const luna_engine *engine)
{
    return engine->vae;
}

const luna_file_key *luna_engine_file(const luna_engine *engine)
{
    return &engine->file;
}

//  One without holders stays when it is ready and nobody waits for its room; a
//  load is the loading thread's to end. Locked.
static bool is_over(const luna_engine *engine)
{
    const engine_state state = state_of(engine);
    if (engine->holders || state == ENGINE_LOADING) return false;
    return state != ENGINE_READY || engine->models->wants_room;
}

void luna_engine_release(luna_engine **held)
{
    luna_engine *engine = *held;
    if (!engine) return;
    luna_models *models = engine->models;
    *held = NULL;
    pthread_mutex_lock(&models->lock);
    engine->holders--;
    if (is_over(engine)) end_engine(engine);
    pthread_cond_broadcast(&models->news);
    pthread_mutex_unlock(&models->lock);
}
