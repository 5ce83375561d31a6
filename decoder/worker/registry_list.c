#include "decoder/worker/registry_list.h"

#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/config.h"
#include "common/log.h"

static void entry_free(luna_vae_entry *entry)
{
    if (!entry) return;
    free(entry->name);
    free(entry->path);
    free(entry->below);
    free(entry->models);
    free(entry);
}

void luna_entries_clear(luna_entries *entries)
{
    for (size_t i = 0; i < entries->count; i++) entry_free(entries->items[i]);
    free(entries->items);
    *entries = (luna_entries){0};
}

//  Takes the entry over, also when it fails.
static bool add(luna_entries *entries, luna_vae_entry *entry)
{
    if (entry && entries->count == entries->room) {
        const size_t room = entries->room ? 2 * entries->room : 16;
        luna_vae_entry **items = realloc(entries->items, room * sizeof *items);
        if (items) {
            entries->items = items;
            entries->room = room;
        }
    }
    if (!entry || entries->count == entries->room) {
        entry_free(entry);
        return false;
    }
    entries->items[entries->count++] = entry;
    return true;
}

luna_vae_entry *luna_entries_named(luna_entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->count; i++)
        if (strcmp(entries->items[i]->name, name) == 0) return entries->items[i];
    luna_vae_entry *entry = calloc(1, sizeof *entry);
    if (!entry) return NULL;
    entry->name = strdup(name);
    if (!entry->name) {
        entry_free(entry);
        return NULL;
    }
    return add(entries, entry) ? entry : NULL;
}

//  ---- roots --------------------------------------------------------------------------

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool is_model_file(const FTSENT *at)
{
    const size_t extension = strlen(LUNA_VAE_EXTENSION);
    if (at->fts_namelen <= extension ||
        strcmp(at->fts_name + at->fts_namelen - extension, LUNA_VAE_EXTENSION) != 0)
        return false;
    if (at->fts_info == FTS_F) return true;
    struct stat info;
    return at->fts_info == FTS_SL && stat(at->fts_accpath, &info) == 0 &&
           S_ISREG(info.st_mode);
}

static bool is_known(const luna_registry *registry, const luna_entries *files,
                     const char *path)
{
    for (size_t i = 0; i < registry->named.count; i++) {
        const char *named = registry->named.items[i]->path;
        if (named && strcmp(named, path) == 0) return true;
    }
    for (size_t i = 0; i < files->count; i++)
        if (strcmp(files->items[i]->path, path) == 0) return true;
    return false;
}

static luna_vae_entry *file_entry(const FTSENT *at, size_t root_len)
{
    luna_vae_entry *entry = calloc(1, sizeof *entry);
    if (!entry) return NULL;
    const char *below = at->fts_path + root_len;
    while (*below == '/') below++;
    entry->path = strdup(at->fts_path);
    entry->below = strdup(below);
    entry->name = strndup(at->fts_name, at->fts_namelen - strlen(LUNA_VAE_EXTENSION));
    if (entry->path && entry->below && entry->name) return entry;
    entry_free(entry);
    return NULL;
}

static luna_err walk(const luna_registry *registry, FTS *tree, size_t root_len,
                     luna_entries *files)
{
    FTSENT *at;
    while ((at = fts_read(tree)) && files->count < LUNA_VAE_MAX_FILES) {
        const bool hidden = at->fts_level > 0 && at->fts_name[0] == '.';
        if (at->fts_info == FTS_D && (hidden || at->fts_level > LUNA_VAE_MAX_LEVELS))
            (void)fts_set(tree, at, FTS_SKIP);
        if (hidden || !is_model_file(at) || is_known(registry, files, at->fts_path))
            continue;
        if (!add(files, file_entry(at, root_len)))
            return luna_error(LUNA_NO_MEMORY, "no memory for the list of VAE files");
    }
    return LUNA_OK;
}

static luna_err look_into(const luna_registry *registry, char *root, luna_entries *files)
{
    struct stat info;
    if (stat(root, &info) != 0 || !S_ISDIR(info.st_mode)) {
        luna_log(LUNA_LOG_WARNING, "vae_root_missing",
                 "path=\"%s\" next=\"passed over until it is there\"", root);
        return LUNA_OK;
    }
    char *const paths[] = {root, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    if (!tree) return luna_error_errno(LUNA_IO, "cannot look into the VAE root %s", root);
    const luna_err err = walk(registry, tree, strlen(root), files);
    (void)fts_close(tree);
    return err;
}

luna_err luna_registry_scan(luna_registry *registry)
{
    char root[LUNA_MAX_PATH_BYTES];
    luna_entries files = {0};
    luna_err err = LUNA_OK;
    for (size_t i = 0; err == LUNA_OK && registry->roots &&
                       luna_paths_at(registry->roots, i, root, sizeof root);
         i++)
        err = look_into(registry, root, &files);
    if (err != LUNA_OK) {
        luna_entries_clear(&files);
        return err;
    }
    luna_entries_clear(&registry->files);
    registry->files = files;
    return LUNA_OK;
}
