#include "decoder/worker/takes.h"

#include <stdlib.h>

#include "decoder/worker/file_key.h"

#define KNOWN_MAX 1024  //  files that are remembered; the oldest is forgotten

typedef struct known {
    luna_file_key key;
    float scale;  //  a TAESD decoder that none is known for is no model
    float shift;
    luna_err err;
    luna_vae_fit fit;
} known;

struct luna_takes {
    size_t next;
    known known[KNOWN_MAX];  //  those without a path are free
};

luna_takes *luna_takes_new(void)
{
    return calloc(1, sizeof(luna_takes));
}

void luna_takes_free(luna_takes **takes)
{
    if (!*takes) return;
    for (size_t i = 0; i < KNOWN_MAX; i++) luna_file_key_free(&(*takes)->known[i].key);
    free(*takes);
    *takes = NULL;
}

static bool is_same(float a, float b)
{
    return !(a < b || a > b);
}

static const known *recall(const luna_takes *takes, const luna_vae_entry *entry,
                           const luna_file_key *key)
{
    for (size_t i = 0; i < KNOWN_MAX && takes->known[i].key.path; i++) {
        const known *each = &takes->known[i];
        if (is_same(each->scale, entry->latent_scale) &&
            is_same(each->shift, entry->latent_shift) &&
            luna_file_key_equal(&each->key, key))
            return each;
    }
    return NULL;
}

//  Only what the file itself says is remembered: a lack of memory may pass.
static void remember(luna_takes *takes, const luna_file_key *key, const known *what)
{
    const bool lasting = what->err == LUNA_OK || what->err == LUNA_BAD_MODEL ||
                         what->err == LUNA_UNSUPPORTED;
    luna_file_key copy;
    if (!lasting || luna_file_key_copy(key, &copy) != LUNA_OK) return;
    known *slot = &takes->known[takes->next++ % KNOWN_MAX];
    luna_file_key_free(&slot->key);
    *slot = *what;
    slot->key = copy;
}

static known look(const luna_vae_entry *entry)
{
    luna_vae_options options = luna_vae_options_default();
    luna_vae_info info = {0};
    options.latent_scale = entry->latent_scale;
    options.latent_shift = entry->latent_shift;
    const luna_err err = luna_vae_inspect(entry->path, &options, &info);
    return (known){.scale = entry->latent_scale,
                   .shift = entry->latent_shift,
                   .err = err,
                   .fit = {.channels = info.latent_channels,
                           .packed_channels = info.packed_channels,
                           .rank = info.latent_rank}};
}

luna_err luna_takes_probe(void *context, const luna_vae_entry *entry, luna_vae_fit *out)
{
    luna_takes *takes = context;
    luna_file_key key;
    LUNA_TRY(luna_file_key_of(entry->path, &key));
    const known *seen = recall(takes, entry, &key);
    known fresh;
    if (!seen) {
        fresh = look(entry);
        remember(takes, &key, &fresh);
        seen = &fresh;
    }
    *out = seen->fit;
    return seen->err;
}
