//  registry.h - the VAEs this decoder can serve, and which one a job means
//
//  Known are the `[vae NAME]` entries of the settings and every *.safetensors file
//  below the `[vae] roots`. A job can only ever name one of these: a path is looked
//  up in the list, never opened. Symbolic links to files count (they are the
//  operator's doing), links to folders are not followed.
//
//  What a job may say, first match wins:
//      the name of an entry                        flux
//      the path of an entry or of a file           /models/vae/sdxl/ae.safetensors
//      a path below a root, extension or not       sdxl/ae.safetensors, sdxl/ae
//      the name of a file without its extension    ae
//      auto, or nothing: the entry that takes the latent's channels and whose `models`
//      patterns match the job's model; else, of the VAEs that take its channels and its
//      rank, the only entry; else the only file. Several at any of these steps is an
//      error that lists them.
//
//  The rank tells Wan 2.1's and Qwen-Image's latents, [N, 16, 1, H, W] in ComfyUI, from
//  those of SD3 and FLUX.1, [N, 16, H, W]. An entry's patterns are the operator's word,
//  which holds for latents that lost or gained the 1 on their way.
//
//  Thread: one at a time.

#ifndef LUNA_WORKER_REGISTRY_H
#define LUNA_WORKER_REGISTRY_H

#include "decoder/vae/vae.h"
#include "proto/message.h"

typedef struct luna_registry luna_registry;

typedef struct luna_vae_entry {
    char *name;    //  the entry's, or the file's without its extension
    char *path;    //  absolute
    char *below;   //  path below its root; NULL for an entry of the settings
    char *models;  //  patterns as in the shell, separated by ','; NULL for none
    luna_vae_precision precision;
    float latent_scale;  //  as in luna_vae_options
    float latent_shift;
} luna_vae_entry;

//  An empty registry, NULL without memory; luna_registry_free nulls the pointer.
luna_registry *luna_registry_new(void);
void luna_registry_free(luna_registry **registry);

//  One line of a `[vae NAME]` section: path, models, precision, latent_scale or
//  latent_shift. LUNA_CONFIG with a sentence for anything else.
LUNA_MUST_USE luna_err luna_registry_set(luna_registry *registry, const char *name,
                                         const char *key, const char *value);

//  The folders to look in, a PATHS value, and whether every entry has a path
//  (LUNA_CONFIG). Looks at once; a root that is missing is logged and looked for
//  again later. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_registry_roots(luna_registry *registry, const char *roots);

//  Entries first, then files by path; valid until the next resolve.
size_t luna_registry_count(const luna_registry *registry);
const luna_vae_entry *luna_registry_at(const luna_registry *registry, size_t index);

//  The latents a VAE takes; see luna_vae_info.
typedef struct luna_vae_fit {
    size_t channels;
    size_t packed_channels;  //  0: only `channels`
    size_t rank;
} luna_vae_fit;

//  Tells which; an error: the VAE cannot be used, and `auto` passes it over.
typedef luna_err luna_vae_probe(void *context, const luna_vae_entry *entry,
                                luna_vae_fit *out);

typedef struct luna_vae_question {
    luna_text vae;         //  as the job has it
    luna_text model_name;  //  for `auto`
    size_t channels;       //  of the latent, for `auto`
    size_t rank;           //  the same
} luna_vae_question;

//  The one VAE that is meant; looks into the roots again when there is none.
//  LUNA_FORBIDDEN: a path outside every root, or with "..". LUNA_UNKNOWN_VAE: none,
//  or several; the sentence lists the choices. *out is valid until the next call.
LUNA_MUST_USE luna_err luna_registry_resolve(luna_registry *registry,
                                             const luna_vae_question *question,
                                             luna_vae_probe *probe, void *context,
                                             const luna_vae_entry **out);

#endif
