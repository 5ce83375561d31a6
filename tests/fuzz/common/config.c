//  config.c - any text as a configuration file, and any value as a flag
//
//  A file that loads can be printed, and what was printed loads as the same.

#include "common/config.h"
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

typedef struct values {
    char text[LUNA_SETTING_BYTES];
    char path[LUNA_SETTING_BYTES];
    char paths[LUNA_SETTING_BYTES];
    uint64_t count;
    uint64_t size;
    uint64_t wait_ms;
    bool flag;
} values;

static const luna_setting settings[] = {
    {"log", "level", LUNA_SETTING_TEXT, offsetof(values, text), "info",
     "what is written"},
    {"store", "dir", LUNA_SETTING_PATH, offsetof(values, path), "%state%", "a folder"},
    {"output", "roots", LUNA_SETTING_PATHS, offsetof(values, paths), "%output%",
     "folders"},
    {"limits", "jobs", LUNA_SETTING_COUNT, offsetof(values, count), "7", "how many"},
    {"limits", "bytes", LUNA_SETTING_SIZE, offsetof(values, size), "1 MiB", "how large"},
    {"lease", "wait", LUNA_SETTING_DURATION_MS, offsetof(values, wait_ms), "2s",
     "how long"},
    {"lease", "strict", LUNA_SETTING_FLAG, offsetof(values, flag), "yes", "whether"},
};

static const char *const foreign[] = {"vae", NULL};

static luna_err take_named(void *context, const char *section, const char *name,
                           const char *key, const char *value)
{
    (void)context;
    CHECK(section && name && key && value);
    return strcmp(key, "path") == 0 ? LUNA_OK
                                    : luna_error(LUNA_CONFIG, "no such key: %.40s", key);
}

static const luna_config config = {.settings = settings,
                                   .count = sizeof settings / sizeof settings[0],
                                   .foreign = foreign,
                                   .named = take_named};

static char file[512];

int LLVMFuzzerInitialize(int *count, char ***words)
{
    (void)count;
    (void)words;
    const char *dir = getenv("LUNA_FUZZ_DIR");
    snprintf(file, sizeof file, "%s/luna.conf", dir ? dir : "/dev/shm");
    setenv("LUNA_HOME", "/home/luna", 1);
    return 0;
}

static void write_file(const void *data, size_t len)
{
    const int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, data, len) == (ssize_t)len);
    close(fd);
}

static bool same(const values *a, const values *b)
{
    return strcmp(a->text, b->text) == 0 && strcmp(a->path, b->path) == 0 &&
           strcmp(a->paths, b->paths) == 0 && a->count == b->count &&
           a->size == b->size && a->wait_ms == b->wait_ms && a->flag == b->flag;
}

static void check_printed(const values *loaded)
{
    static values again;
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    CHECK(to);
    luna_config_print(&config, loaded, to);
    CHECK(fclose(to) == 0);
    write_file(text, len);
    CHECK(luna_config_load(&config, file, &again) == LUNA_OK);
    CHECK(same(loaded, &again));
    free(text);
}

static void load_file(luna_blob text)
{
    static values loaded;
    write_file(text.data, text.len);
    const luna_err err = luna_config_load(&config, file, &loaded);
    if (err == LUNA_OK)
        check_printed(&loaded);
    else
        fuzz_check_error(err);
}

static void set_flag(fuzz_bytes *from)
{
    static values out;
    const luna_setting *setting = &settings[fuzz_below(from, config.count)];
    const luna_blob bytes = fuzz_rest(from);
    char *value = malloc(bytes.len + 1);
    CHECK(value);
    if (bytes.len) memcpy(value, bytes.data, bytes.len);
    value[bytes.len] = '\0';
    const luna_err err =
        luna_config_set(&config, setting->section, setting->key, value, &out);
    if (err != LUNA_OK) fuzz_check_error(err);
    char one[64];
    for (size_t i = 0; luna_paths_at(out.paths, i, one, sizeof one); i++)
        CHECK(strlen(one) < sizeof one);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    if (fuzz_below(&from, 4) == 3)
        set_flag(&from);
    else
        load_file(fuzz_rest(&from));
    return 0;
}
