//  Which VAE a job means: every way to name one, auto, ambiguity, and paths that try to
//  leave the roots.

#include "kit.h"

#include <sys/stat.h>

#include "decoder/worker/registry.h"

static char here[2048];

static void touch(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

//  roots/a: ae, deep/ae, sdxl; roots/b: four. Names of the form "cN..." take N channels,
//  "vN..." in five dimensions.
static int setup(void **state)
{
    luna_registry *registry = luna_registry_new();
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(mkdir("a", 0700), 0);
    assert_int_equal(mkdir("a/deep", 0700), 0);
    assert_int_equal(mkdir("b", 0700), 0);
    touch("a/ae.safetensors");
    touch("a/deep/ae.safetensors");
    touch("a/c16x.safetensors");
    touch("a/notes.txt");
    touch("b/c4y.safetensors");
    touch("outside.safetensors");
    assert_int_equal(symlink("../outside.safetensors", "b/linked.safetensors"), 0);
    assert_int_equal(symlink("..", "b/up"), 0);
    *state = registry;
    return 0;
}

static int teardown(void **state)
{
    luna_registry *registry = *state;
    luna_registry_free(&registry);
    remove_tree("a");
    remove_tree("b");
    remove_tree("outside.safetensors");
    return 0;
}

static void look(luna_registry *registry)
{
    char roots[8192];
    snprintf(roots, sizeof roots, "%s/a:%s/b", here, here);
    assert_int_equal(luna_registry_roots(registry, roots), LUNA_OK);
}

static luna_err probe(void *context, const luna_vae_entry *entry, luna_vae_fit *out)
{
    (void)context;
    *out = (luna_vae_fit){.rank = entry->name[0] == 'v' ? 5 : 4};
    if (sscanf(entry->name + 1, "%zup%zu", &out->channels, &out->packed_channels) < 1)
        return luna_error(LUNA_BAD_MODEL, "not a model");
    return LUNA_OK;
}

static luna_err ask(luna_registry *registry, luna_vae_question question,
                    const luna_vae_entry **out)
{
    *out = NULL;
    return luna_registry_resolve(registry, &question, probe, NULL, out);
}

static void expect(luna_registry *registry, const char *word, const char *path)
{
    const luna_vae_entry *entry;
    char whole[4096];
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    assert_int_equal(ask(registry, (luna_vae_question){.vae = TEXT(word)}, &entry),
                     LUNA_OK);
    assert_string_equal(entry->path, whole);
}

static void refuse(luna_registry *registry, const char *word, luna_err wanted,
                   const char *says)
{
    const luna_vae_entry *entry;
    assert_int_equal(ask(registry, (luna_vae_question){.vae = TEXT(word)}, &entry),
                     wanted);
    assert_null(entry);
    assert_non_null(strstr(luna_error_text(), says));
}

static void set_path(luna_registry *registry, const char *name, const char *path)
{
    char whole[4096];
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    assert_int_equal(luna_registry_set(registry, name, "path", whole), LUNA_OK);
}

static void every_way_to_name_one(void **state)
{
    luna_registry *registry = *state;
    char whole[4096];
    set_path(registry, "flux", "outside.safetensors");
    look(registry);
    assert_int_equal(luna_registry_count(registry), 6);
    expect(registry, "flux", "outside.safetensors");
    expect(registry, "c16x", "a/c16x.safetensors");
    expect(registry, "deep/ae", "a/deep/ae.safetensors");
    expect(registry, "deep/ae.safetensors", "a/deep/ae.safetensors");
    expect(registry, "c4y.safetensors", "b/c4y.safetensors");
    expect(registry, "linked", "b/linked.safetensors");
    snprintf(whole, sizeof whole, "%s/a/deep/ae.safetensors", here);
    expect(registry, whole, "a/deep/ae.safetensors");
    snprintf(whole, sizeof whole, "%s/outside.safetensors", here);
    expect(registry, whole, "outside.safetensors");
}

static void an_entry_goes_before_a_file(void **state)
{
    luna_registry *registry = *state;
    set_path(registry, "ae", "a/c16x.safetensors");
    look(registry);
    expect(registry, "ae", "a/c16x.safetensors");
}

//  "ae" is below.safetensors of one and the stem of two: the path wins.
static void a_path_goes_before_a_stem(void **state)
{
    luna_registry *registry = *state;
    look(registry);
    expect(registry, "ae", "a/ae.safetensors");
}

static void several_are_listed(void **state)
{
    luna_registry *registry = *state;
    assert_int_equal(mkdir("a/other", 0700), 0);
    touch("a/other/twin.safetensors");
    touch("a/deep/twin.safetensors");
    look(registry);
    refuse(registry, "twin", LUNA_UNKNOWN_VAE, "deep/twin.safetensors");
    refuse(registry, "twin", LUNA_UNKNOWN_VAE, "other/twin.safetensors");
}

static void unknown_names_list_the_choices(void **state)
{
    luna_registry *registry = *state;
    look(registry);
    refuse(registry, "nothing", LUNA_UNKNOWN_VAE, "c16x.safetensors");
    refuse(registry, "nothing\xc3\xa9 '%s%n", LUNA_UNKNOWN_VAE, "%s%n");
}

static void no_path_leaves_the_roots(void **state)
{
    luna_registry *registry = *state;
    char whole[4096];
    look(registry);
    refuse(registry, "../outside.safetensors", LUNA_FORBIDDEN, "outside [vae] roots");
    refuse(registry, "deep/../../outside", LUNA_FORBIDDEN, "outside [vae] roots");
    refuse(registry, "..", LUNA_FORBIDDEN, "outside [vae] roots");
    refuse(registry, "/etc/passwd", LUNA_FORBIDDEN, "outside [vae] roots");
    snprintf(whole, sizeof whole, "%s/outside.safetensors", here);
    refuse(registry, whole, LUNA_FORBIDDEN, "outside [vae] roots");
    snprintf(whole, sizeof whole, "%s/a/../outside.safetensors", here);
    refuse(registry, whole, LUNA_FORBIDDEN, "outside [vae] roots");
    snprintf(whole, sizeof whole, "%s/a2/x.safetensors", here);
    refuse(registry, whole, LUNA_FORBIDDEN, "outside [vae] roots");
    snprintf(whole, sizeof whole, "%s/b/up/outside.safetensors", here);
    refuse(registry, whole, LUNA_UNKNOWN_VAE, "there are");
    snprintf(whole, sizeof whole, "%s/a/notes.txt", here);
    refuse(registry, whole, LUNA_UNKNOWN_VAE, "there are");
}

static luna_err ask_rank(luna_registry *registry, size_t rank, const char *model,
                         const luna_vae_entry **out)
{
    return ask(
        registry,
        (luna_vae_question){
            .vae = TEXT("auto"), .model_name = TEXT(model), .channels = 16, .rank = rank},
        out);
}

static luna_err ask_auto(luna_registry *registry, size_t channels, const char *model,
                         const luna_vae_entry **out)
{
    return ask(registry,
               (luna_vae_question){.vae = TEXT("auto"),
                                   .model_name = TEXT(model),
                                   .channels = channels,
                                   .rank = 4},
               out);
}

static void auto_takes_the_only_one_that_fits(void **state)
{
    luna_registry *registry = *state;
    const luna_vae_entry *entry;
    look(registry);
    assert_int_equal(ask_auto(registry, 16, NULL, &entry), LUNA_OK);
    assert_string_equal(entry->name, "c16x");
    assert_int_equal(ask(registry, (luna_vae_question){.channels = 4, .rank = 4}, &entry),
                     LUNA_OK);
    assert_string_equal(entry->name, "c4y");
    assert_int_equal(ask_auto(registry, 32, NULL, &entry), LUNA_UNKNOWN_VAE);
    assert_non_null(strstr(luna_error_text(), "32 channels"));
    assert_non_null(strstr(luna_error_text(), "c16x"));
}

static void auto_prefers_entries_and_counts_packed_channels(void **state)
{
    luna_registry *registry = *state;
    const luna_vae_entry *entry;
    set_path(registry, "c4p16", "outside.safetensors");
    look(registry);
    assert_int_equal(ask_auto(registry, 16, NULL, &entry), LUNA_OK);
    assert_string_equal(entry->name, "c4p16");
    assert_int_equal(ask_auto(registry, 4, NULL, &entry), LUNA_OK);
    assert_string_equal(entry->name, "c4p16");
}

static void auto_asks_the_model_map_first(void **state)
{
    luna_registry *registry = *state;
    const luna_vae_entry *entry;
    set_path(registry, "c4sd", "a/ae.safetensors");
    set_path(registry, "c4xl", "a/c16x.safetensors");
    assert_int_equal(luna_registry_set(registry, "c4xl", "models", "*sdxl*, pony*"),
                     LUNA_OK);
    look(registry);
    assert_int_equal(ask_auto(registry, 4, "ponyDiffusion", &entry), LUNA_OK);
    assert_string_equal(entry->name, "c4xl");
    assert_int_equal(ask_auto(registry, 4, "sub/sdxl_base", &entry), LUNA_OK);
    assert_string_equal(entry->name, "c4xl");
    assert_int_equal(ask_auto(registry, 4, "dreamshaper", &entry), LUNA_UNKNOWN_VAE);
    assert_non_null(strstr(luna_error_text(), "c4sd, c4xl"));
}

//  16 channels are FLUX.1's in four dimensions and Qwen-Image's in five.
static void auto_looks_at_the_rank(void **state)
{
    luna_registry *registry = *state;
    const luna_vae_entry *entry;
    set_path(registry, "v16qwen", "a/ae.safetensors");
    look(registry);
    assert_int_equal(ask_rank(registry, 5, NULL, &entry), LUNA_OK);
    assert_string_equal(entry->name, "v16qwen");
    assert_int_equal(ask_rank(registry, 4, NULL, &entry), LUNA_OK);
    assert_string_equal(entry->name, "c16x");
    set_path(registry, "v16wan", "a/deep/ae.safetensors");
    assert_int_equal(ask_rank(registry, 5, NULL, &entry), LUNA_UNKNOWN_VAE);
    assert_non_null(strstr(luna_error_text(),
                           "several VAEs fit a latent of 16 channels in 5 dimensions; "
                           "name one of: v16qwen, v16wan"));
    //  The map tells them apart, and is believed for a latent that lost its rank.
    assert_int_equal(luna_registry_set(registry, "v16qwen", "models", "qwen*"), LUNA_OK);
    assert_int_equal(ask_rank(registry, 5, "qwen_image", &entry), LUNA_OK);
    assert_string_equal(entry->name, "v16qwen");
    assert_int_equal(ask_rank(registry, 4, "qwen_image", &entry), LUNA_OK);
    assert_string_equal(entry->name, "v16qwen");
}

static void auto_never_takes_the_wrong_rank(void **state)
{
    luna_registry *registry = *state;
    const luna_vae_entry *entry;
    look(registry);
    assert_int_equal(ask_rank(registry, 5, NULL, &entry), LUNA_UNKNOWN_VAE);
    assert_non_null(strstr(luna_error_text(),
                           "no VAE here fits a latent of 16 channels "
                           "in 5 dimensions; there are: "));
}

static void a_new_file_is_found(void **state)
{
    luna_registry *registry = *state;
    look(registry);
    refuse(registry, "late", LUNA_UNKNOWN_VAE, "there are");
    touch("b/late.safetensors");
    expect(registry, "late", "b/late.safetensors");
}

static void settings_are_checked(void **state)
{
    luna_registry *registry = *state;
    assert_int_equal(luna_registry_set(registry, "x", "size", "1"), LUNA_CONFIG);
    assert_int_equal(luna_registry_set(registry, "auto", "path", "/x"), LUNA_CONFIG);
    assert_int_equal(luna_registry_set(registry, "x", "precision", "int3"), LUNA_CONFIG);
    assert_int_equal(luna_registry_set(registry, "x", "latent_scale", "1.5x"),
                     LUNA_CONFIG);
    assert_int_equal(luna_registry_set(registry, "x", "latent_scale", "1.5305"), LUNA_OK);
    assert_int_equal(luna_registry_roots(registry, ""), LUNA_CONFIG);
    assert_non_null(strstr(luna_error_text(), "[vae x]"));
    set_path(registry, "x", "a/ae.safetensors");
    assert_int_equal(luna_registry_roots(registry, "/missing/folder"), LUNA_OK);
    assert_int_equal(luna_registry_count(registry), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(every_way_to_name_one),
                                       T(an_entry_goes_before_a_file),
                                       T(a_path_goes_before_a_stem),
                                       T(several_are_listed),
                                       T(unknown_names_list_the_choices),
                                       T(no_path_leaves_the_roots),
                                       T(auto_takes_the_only_one_that_fits),
                                       T(auto_prefers_entries_and_counts_packed_channels),
                                       T(auto_asks_the_model_map_first),
                                       T(auto_looks_at_the_rank),
                                       T(auto_never_takes_the_wrong_rank),
                                       T(a_new_file_is_found),
                                       T(settings_are_checked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
