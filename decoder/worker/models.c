#include "decoder/worker/models.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"

#define KNOWN_MAX 1024  //  files whose channels are remembered

//  Which version of which file, read in which way.
typedef struct model_key {
    char *path;
    off_t size;
    struct timespec changed;
    ino_t inode;
    luna_vae_precision precision;
    float scale;
    float shift;
} model_key;

typedef struct model {
    struct model *next;  //  used less recently
    model_key key;
    luna_vae *vae;
    uint64_t bytes;
} model;

typedef struct known {
    model_key key;
    luna_err err;
    size_t channels;
    size_t packed;
} known;

struct luna_models {
    luna_models_options options;
    model *first;
    known *known;
    size_t known_count;
};

luna_err luna_models_new(const luna_models_options *options, luna_models **out)
{
    luna_models *models = calloc(1, sizeof *models);
    known *memory = calloc(KNOWN_MAX, sizeof *memory);
    if (!models || !memory) {
        free(models);
        free(memory);
        return luna_error(LUNA_NO_MEMORY, "no memory for the list of models");
    }
    models->options = *options;
    models->known = memory;
    *out = models;
    return LUNA_OK;
}

static void model_free(model *gone)
{
    luna_vae_close(&gone->vae);
    free(gone->key.path);
    free(gone);
}

void luna_models_free(luna_models **held)
{
    luna_models *models = *held;
    if (!models) return;
    while (models->first) {
        model *next = models->first->next;
        model_free(models->first);
        models->first = next;
    }
    for (size_t i = 0; i < models->known_count; i++) free(models->known[i].key.path);
    free(models->known);
    free(models);
    *held = NULL;
}

//  ---- keys ---------------------------------------------------------------------------

//  Borrows the entry's path.
static luna_err key_of(const luna_vae_entry *entry, model_key *out)
{
    struct stat info;
    if (stat(entry->path, &info) != 0)
        return luna_error_errno(LUNA_NOT_FOUND, "cannot find the VAE %s", entry->path);
    *out = (model_key){.path = entry->path,
                       .size = info.st_size,
                       .changed = info.st_mtim,
                       .inode = info.st_ino,
                       .precision = entry->precision,
                       .scale = entry->latent_scale,
                       .shift = entry->latent_shift};
    return LUNA_OK;
}

static bool is_same(const model_key *a, const model_key *b)
{
    const float scale_apart = a->scale - b->scale, shift_apart = a->shift - b->shift;
    return strcmp(a->path, b->path) == 0 && a->size == b->size && a->inode == b->inode &&
           a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec && a->precision == b->precision &&
           !(scale_apart < 0 || scale_apart > 0) && !(shift_apart < 0 || shift_apart > 0);
}

//  ---- the cache ----------------------------------------------------------------------

//  Moves the model of this key to the front.
static model *find(luna_models *models, const model_key *key)
{
    for (model **at = &models->first; *at; at = &(*at)->next) {
        if (!is_same(&(*at)->key, key)) continue;
        model *found = *at;
        *at = found->next;
        found->next = models->first;
        models->first = found;
        return found;
    }
    return NULL;
}

//  Leaves the first `count_max`, of these those within `bytes_max`, and always one.
static void evict(luna_models *models)
{
    uint64_t bytes = 0;
    size_t count = 0;
    model **at = &models->first;
    while (*at) {
        model *here = *at;
        bytes += here->bytes;
        if (count++ == 0 ||
            (count <= models->options.count_max && bytes <= models->options.bytes_max)) {
            at = &here->next;
            continue;
        }
        luna_log(LUNA_LOG_INFO, "vae_unloaded", "path=\"%s\"", here->key.path);
        *at = here->next;
        model_free(here);
    }
}

static luna_err load(luna_models *models, const luna_vae_entry *entry, model *into)
{
    luna_vae_options options = luna_vae_options_default();
    options.device = models->options.device;
    options.threads = models->options.threads;
    options.memory_limit_bytes = models->options.memory_limit_bytes;
    options.step = models->options.step;
    options.step_context = models->options.step_context;
    options.precision = entry->precision;
    options.latent_scale = entry->latent_scale;
    options.latent_shift = entry->latent_shift;
    const int64_t start_ms = luna_now_ms();
    LUNA_TRY(luna_vae_open(entry->path, &options, &into->vae));
    const luna_vae_info *info = luna_vae_describe(into->vae);
    into->bytes = 4 * info->parameter_count;
    luna_log(LUNA_LOG_INFO, "vae_loaded",
             "vae=\"%s\" family=%s variant=\"%s\" channels=%zu device=%s precision=%s "
             "ms=%lld path=\"%s\"",
             entry->name, info->family, info->variant, info->latent_channels,
             info->device, info->precision, (long long)(luna_now_ms() - start_ms),
             entry->path);
    return LUNA_OK;
}

bool luna_models_keep_only(luna_models *models, const luna_vae *vae)
{
    bool any = false;
    for (model **at = &models->first; *at;) {
        model *here = *at;
        if (here->vae == vae) {
            at = &here->next;
            continue;
        }
        luna_log(LUNA_LOG_INFO, "vae_unloaded", "path=\"%s\" reason=\"memory is short\"",
                 here->key.path);
        *at = here->next;
        model_free(here);
        any = true;
    }
    return any;
}

//  The device was there at start.
static luna_err as_device(luna_err err)
{
    return err == LUNA_UNAVAILABLE ? luna_error(LUNA_DEVICE, "%s", luna_error_text())
                                   : err;
}

//  Alone, when there is no memory for it beside the others.
static luna_err load_somehow(luna_models *models, const luna_vae_entry *entry,
                             model *into)
{
    luna_err err = load(models, entry, into);
    if (err == LUNA_NO_MEMORY && luna_models_keep_only(models, NULL))
        err = load(models, entry, into);
    return as_device(err);
}

static luna_err add(luna_models *models, const luna_vae_entry *entry,
                    const model_key *key, model **out)
{
    model *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return luna_error(LUNA_NO_MEMORY, "no memory for the VAE %s", entry->path);
    fresh->key = *key;
    fresh->key.path = strdup(key->path);
    const luna_err err = fresh->key.path
                             ? load_somehow(models, entry, fresh)
                             : luna_error(LUNA_NO_MEMORY, "no memory for a path");
    if (err != LUNA_OK) {
        model_free(fresh);
        return err;
    }
    fresh->next = models->first;
    models->first = fresh;
    evict(models);
    *out = fresh;
    return LUNA_OK;
}

luna_err luna_models_get(luna_models *models, const luna_vae_entry *entry, luna_vae **out)
{
    model_key key;
    LUNA_TRY(key_of(entry, &key));
    model *found = find(models, &key);
    if (!found) LUNA_TRY(add(models, entry, &key, &found));
    *out = found->vae;
    return LUNA_OK;
}

//  ---- what fits ----------------------------------------------------------------------

static known *recall(luna_models *models, const model_key *key)
{
    for (size_t i = 0; i < models->known_count; i++)
        if (is_same(&models->known[i].key, key)) return &models->known[i];
    return NULL;
}

//  Only what the file itself says is remembered: a lack of memory may pass.
static void remember(luna_models *models, const model_key *key, const known *what)
{
    const bool lasting = what->err == LUNA_OK || what->err == LUNA_BAD_MODEL ||
                         what->err == LUNA_UNSUPPORTED;
    char *path = lasting && models->known_count < KNOWN_MAX ? strdup(key->path) : NULL;
    if (!path) return;
    known *slot = &models->known[models->known_count++];
    *slot = *what;
    slot->key = *key;
    slot->key.path = path;
}

luna_err luna_models_probe(void *context, const luna_vae_entry *entry, size_t *channels,
                           size_t *packed)
{
    luna_models *models = context;
    model_key key;
    LUNA_TRY(key_of(entry, &key));
    const known *seen = recall(models, &key);
    known fresh = {0};
    if (!seen) {
        luna_vae *vae = NULL;
        fresh.err = luna_models_get(models, entry, &vae);
        if (fresh.err == LUNA_OK) {
            fresh.channels = luna_vae_describe(vae)->latent_channels;
            fresh.packed = luna_vae_describe(vae)->packed_channels;
        }
        remember(models, &key, &fresh);
        seen = &fresh;
    }
    *channels = seen->channels;
    *packed = seen->packed;
    return seen->err;
}
