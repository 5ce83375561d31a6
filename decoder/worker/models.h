//  models.h - the VAE engines in memory: loaded when first needed, kept for later
//
//  The engines used last stay, up to a count and a number of bytes; the one in use
//  always does. A file that was replaced since it was loaded is loaded anew.
//
//  Thread: the decode thread only.

#ifndef LUNA_WORKER_MODELS_H
#define LUNA_WORKER_MODELS_H

#include "decoder/worker/registry.h"

typedef struct luna_models_options {
    const char *device;           //  as in luna_vae_options; must outlive the models
    int threads;                  //  CPU threads of an engine; 0: the library's choice
    size_t memory_limit_bytes;    //  of one decode
    size_t count_max;             //  engines kept, at least 1
    uint64_t bytes_max;           //  their weights, 4 bytes a parameter
    void (*step)(void *context);  //  as in luna_vae_options; may be NULL
    void *step_context;
} luna_models_options;

typedef struct luna_models luna_models;

LUNA_MUST_USE luna_err luna_models_new(const luna_models_options *options,
                                       luna_models **out);

//  Closes every engine; nulls the pointer; NULL is fine.
void luna_models_free(luna_models **models);

//  The engine of an entry, loaded when it is not in memory; valid until the next call.
//  Errors are luna_vae_open's; but a device that was there and is no more has failed:
//  LUNA_DEVICE.
LUNA_MUST_USE luna_err luna_models_get(luna_models *models, const luna_vae_entry *entry,
                                       luna_vae **out);

//  A luna_vae_probe with a luna_models as its context: loads a file it has not seen.
luna_err luna_models_probe(void *models, const luna_vae_entry *entry, size_t *channels,
                           size_t *packed);

//  Closes every engine but this one (NULL: every one), to give memory back; false when
//  there was no other.
bool luna_models_keep_only(luna_models *models, const luna_vae *vae);

#endif
