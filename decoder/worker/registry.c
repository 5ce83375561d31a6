#include "decoder/worker/registry.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/file.h"
#include "decoder/worker/registry_list.h"

#define SHOWN_BYTES 120  //  of a job's own word in a sentence

luna_registry *luna_registry_new(void)
{
    return calloc(1, sizeof(luna_registry));
}

void luna_registry_free(luna_registry **registry)
{
    if (!*registry) return;
    luna_entries_clear(&(*registry)->named);
    luna_entries_clear(&(*registry)->files);
    free((*registry)->roots);
    free(*registry);
    *registry = NULL;
}

//  ---- [vae NAME] -------------------------------------------------------------------

static luna_err set_text(char **slot, const char *value)
{
    char *copy = strdup(value);
    if (!copy) return luna_error(LUNA_NO_MEMORY, "no memory for a VAE's settings");
    free(*slot);
    *slot = copy;
    return LUNA_OK;
}

static luna_err set_float(float *slot, const char *key, const char *value)
{
    char *end = NULL;
    const float number = strtof(value, &end);
    if (end == value || *end || !(number > -1e6F && number < 1e6F))
        return luna_error(LUNA_CONFIG, "%s = %s is not a number", key, value);
    *slot = number;
    return LUNA_OK;
}

static luna_err set_path(char **slot, const char *value)
{
    char absolute[LUNA_MAX_PATH_BYTES];
    LUNA_TRY(luna_path_absolute(value, absolute, sizeof absolute));
    return set_text(slot, absolute);
}

luna_err luna_registry_set(luna_registry *registry, const char *name, const char *key,
                           const char *value)
{
    if (strcmp(name, "auto") == 0)
        return luna_error(LUNA_CONFIG,
                          "a VAE cannot be called auto; choose another name");
    luna_vae_entry *entry = luna_entries_named(&registry->named, name);
    if (!entry) return luna_error(LUNA_NO_MEMORY, "no memory for VAE %s", name);
    if (strcmp(key, "path") == 0) return set_path(&entry->path, value);
    if (strcmp(key, "models") == 0) return set_text(&entry->models, value);
    if (strcmp(key, "latent_scale") == 0)
        return set_float(&entry->latent_scale, key, value);
    if (strcmp(key, "latent_shift") == 0)
        return set_float(&entry->latent_shift, key, value);
    if (strcmp(key, "precision") == 0) {
        if (luna_vae_precision_parse(value, &entry->precision) == LUNA_OK) return LUNA_OK;
        return luna_error(LUNA_CONFIG, "precision = %s: use auto, fp32, fp16 or bf16",
                          value);
    }
    return luna_error(LUNA_CONFIG,
                      "a [vae NAME] section has no key %s; it has path, models, "
                      "precision, latent_scale and latent_shift",
                      key);
}

luna_err luna_registry_roots(luna_registry *registry, const char *roots)
{
    for (size_t i = 0; i < registry->named.count; i++)
        if (!registry->named.items[i]->path)
            return luna_error(LUNA_CONFIG, "[vae %s] has no path; add path = FILE",
                              registry->named.items[i]->name);
    LUNA_TRY(set_text(&registry->roots, roots));
    return luna_registry_scan(registry);
}

size_t luna_registry_count(const luna_registry *registry)
{
    return registry->named.count + registry->files.count;
}

const luna_vae_entry *luna_registry_at(const luna_registry *registry, size_t index)
{
    if (index < registry->named.count) return registry->named.items[index];
    return registry->files.items[index - registry->named.count];
}

//  ---- which one is meant -------------------------------------------------------------

//  Candidates of one step, and the sentence's list of them.
typedef struct matches {
    const luna_vae_entry *first;
    size_t count;
    char list[600];
} matches;

static void list_add(char *list, size_t room, const luna_vae_entry *entry)
{
    const size_t used = strlen(list);
    const char *name = entry->below ? entry->below : entry->name;
    if (used + strlen(name) + 8 < room)
        snprintf(list + used, room - used, "%s%s", used ? ", " : "", name);
    else if (used < 4 || strcmp(list + used - 3, "...") != 0)
        snprintf(list + used, room - used, ", ...");
}

static void match_add(matches *found, const luna_vae_entry *entry)
{
    if (found->count++ == 0) found->first = entry;
    list_add(found->list, sizeof found->list, entry);
}

static bool is_below(const luna_vae_entry *entry, luna_text word)
{
    if (!entry->below) return false;
    const size_t stem = strlen(entry->below) - strlen(LUNA_VAE_EXTENSION);
    return luna_text_is(word, entry->below) ||
           (word.len == stem && memcmp(word.data, entry->below, stem) == 0);
}

static bool fits_step(const luna_vae_entry *entry, luna_text word, int step)
{
    switch (step) {
        case 0:
            return !entry->below && luna_text_is(word, entry->name);
        case 1:
            return luna_text_is(word, entry->path);
        case 2:
            return is_below(entry, word);
        default:
            return entry->below && luna_text_is(word, entry->name);
    }
}

static void find_named(const luna_registry *registry, luna_text word, matches *found)
{
    for (int step = 0; step < 4 && found->count == 0; step++)
        for (size_t i = 0; i < luna_registry_count(registry); i++) {
            const luna_vae_entry *entry = luna_registry_at(registry, i);
            if (fits_step(entry, word, step)) match_add(found, entry);
        }
    //  The same file reached over two roots is one choice.
    if (found->count > 1 && luna_text_is(word, found->first->path)) found->count = 1;
}

//  ---- auto ------------------------------------------------------------------------

typedef struct fitting {
    const luna_vae_question *question;
    luna_vae_probe *probe;
    void *context;
} fitting;

static bool fits(const fitting *with, const luna_vae_entry *entry, bool any_rank)
{
    luna_vae_fit fit;
    const luna_vae_question *q = with->question;
    if (with->probe(with->context, entry, &fit) != LUNA_OK) return false;
    return (any_rank || q->rank == fit.rank) &&
           (q->channels == fit.channels ||
            (fit.packed_channels && q->channels == fit.packed_channels));
}

static bool is_for_model(const luna_vae_entry *entry, luna_text model)
{
    if (!entry->models || !model.len) return false;
    char name[LUNA_MAX_NAME_BYTES + 1];
    luna_text_copy(model, name, sizeof name);
    const char *at = entry->models;
    while (*at) {
        char pattern[256];
        const size_t len = strcspn(at, ",");
        const size_t lead = strspn(at, " ");
        const size_t from = lead < len ? lead : len;
        luna_text_copy((luna_text){at + from, len - from}, pattern, sizeof pattern);
        if (*pattern && fnmatch(pattern, name, 0) == 0) return true;
        at += len + (at[len] == ',');
    }
    return false;
}

static void find_fitting(const luna_registry *registry, const fitting *with,
                         matches *found)
{
    const luna_entries *named = &registry->named;
    for (size_t i = 0; i < named->count; i++)
        if (is_for_model(named->items[i], with->question->model_name) &&
            fits(with, named->items[i], true))
            match_add(found, named->items[i]);
    const luna_entries *tiers[] = {named, &registry->files};
    for (size_t tier = 0; tier < 2 && found->count == 0; tier++)
        for (size_t i = 0; i < tiers[tier]->count; i++)
            if (fits(with, tiers[tier]->items[i], false))
                match_add(found, tiers[tier]->items[i]);
}

//  "a latent of 16 channels in 5 dimensions".
static void describe_latent(const luna_vae_question *question, char *out, size_t room)
{
    snprintf(out, room, "a latent of %zu channels in %zu dimensions", question->channels,
             question->rank);
}

//  ---- answers ---------------------------------------------------------------------

static void list_all(const luna_registry *registry, char *list, size_t room)
{
    list[0] = '\0';
    for (size_t i = 0; i < luna_registry_count(registry); i++)
        list_add(list, room, luna_registry_at(registry, i));
}

static luna_err none_found(const luna_registry *registry,
                           const luna_vae_question *question, bool automatic)
{
    char list[600], word[SHOWN_BYTES], latent[SHOWN_BYTES];
    describe_latent(question, latent, sizeof latent);
    list_all(registry, list, sizeof list);
    luna_text_copy(question->vae, word, sizeof word);
    if (!*list)
        return luna_error(LUNA_UNKNOWN_VAE,
                          "this decoder has no VAE; set [vae] roots to a folder with "
                          "*.safetensors files or add a [vae NAME] section");
    if (automatic)
        return luna_error(LUNA_UNKNOWN_VAE, "no VAE here fits %s; there are: %s", latent,
                          list);
    return luna_error(LUNA_UNKNOWN_VAE, "no VAE is called '%s'; there are: %s", word,
                      list);
}

static luna_err several_found(const luna_vae_question *question, bool automatic,
                              const matches *found)
{
    char word[SHOWN_BYTES], latent[SHOWN_BYTES];
    luna_text_copy(question->vae, word, sizeof word);
    describe_latent(question, latent, sizeof latent);
    if (automatic)
        return luna_error(LUNA_UNKNOWN_VAE, "several VAEs fit %s; name one of: %s",
                          latent, found->list);
    return luna_error(LUNA_UNKNOWN_VAE, "several VAEs are called '%s'; name one of: %s",
                      word, found->list);
}

static bool has_parent_part(luna_text path)
{
    for (size_t i = 0; i + 2 <= path.len; i++) {
        const bool starts = i == 0 || path.data[i - 1] == '/';
        const bool ends = i + 2 == path.len || path.data[i + 2] == '/';
        if (starts && ends && path.data[i] == '.' && path.data[i + 1] == '.') return true;
    }
    return false;
}

static bool is_in_a_root(const luna_registry *registry, luna_text path)
{
    char root[LUNA_MAX_PATH_BYTES];
    for (size_t i = 0; luna_paths_at(registry->roots, i, root, sizeof root); i++) {
        const size_t len = strlen(root);
        if (path.len > len && memcmp(path.data, root, len) == 0 &&
            (path.data[len] == '/' || (len && root[len - 1] == '/')))
            return true;
    }
    return false;
}

static luna_err check_path(const luna_registry *registry, luna_text word)
{
    const bool absolute = word.len && word.data[0] == '/';
    if (!has_parent_part(word) && (!absolute || is_in_a_root(registry, word)))
        return LUNA_OK;
    char shown[SHOWN_BYTES];
    luna_text_copy(word, shown, sizeof shown);
    return luna_error(LUNA_FORBIDDEN,
                      "the VAE path '%s' is outside [vae] roots; name a file below one",
                      shown);
}

luna_err luna_registry_resolve(luna_registry *registry, const luna_vae_question *question,
                               luna_vae_probe *probe, void *context,
                               const luna_vae_entry **out)
{
    const bool automatic = !question->vae.len || luna_text_is(question->vae, "auto");
    const fitting with = {question, probe, context};
    matches found = {0};
    for (int look = 0; look < 2 && found.count == 0; look++) {
        if (look == 1) LUNA_TRY(luna_registry_scan(registry));
        if (automatic)
            find_fitting(registry, &with, &found);
        else
            find_named(registry, question->vae, &found);
    }
    if (found.count == 0) {
        if (!automatic) LUNA_TRY(check_path(registry, question->vae));
        return none_found(registry, question, automatic);
    }
    if (found.count > 1) return several_found(question, automatic, &found);
    *out = found.first;
    return LUNA_OK;
}
