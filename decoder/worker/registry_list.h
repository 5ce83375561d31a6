//  registry_list.h - the registry's lists, and the look into its roots

#ifndef LUNA_WORKER_REGISTRY_LIST_H
#define LUNA_WORKER_REGISTRY_LIST_H

#include "decoder/worker/registry.h"

#define LUNA_VAE_EXTENSION  ".safetensors"
#define LUNA_VAE_MAX_FILES  10000  //  below all roots
#define LUNA_VAE_MAX_LEVELS 16     //  folders below a root

typedef struct luna_entries {
    luna_vae_entry **items;
    size_t count;
    size_t room;
} luna_entries;

struct luna_registry {
    luna_entries named;  //  the [vae NAME] sections, as they came
    luna_entries files;  //  what the roots hold, by path
    char *roots;         //  PATHS; NULL before luna_registry_roots
};

//  The entry of this name, made when there is none; NULL without memory.
luna_vae_entry *luna_entries_named(luna_entries *entries, const char *name);
void luna_entries_clear(luna_entries *entries);

//  Reads the roots anew. A file that an entry names already is left out. A root that
//  is missing is logged and passed over. LUNA_NO_MEMORY leaves the old list.
LUNA_MUST_USE luna_err luna_registry_scan(luna_registry *registry);

#endif
