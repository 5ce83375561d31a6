#include "common/config.h"

#include "common/file.h"
#include "common/home.h"
#include "common/ini.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct unit {
    const char *name;
    uint64_t factor;
} unit;

static const unit size_units[] = {{"", 1},           {"B", 1},          {"KiB", 1u << 10},
                                  {"MiB", 1u << 20}, {"GiB", 1u << 30}, {NULL, 0}};
static const unit duration_units[] = {{"", 1},        {"ms", 1},      {"s", 1000},
                                      {"min", 60000}, {"h", 3600000}, {NULL, 0}};
static const unit no_units[] = {{"", 1}, {NULL, 0}};

static luna_err parse_number(const char *text, const unit *units, uint64_t *out)
{
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno == ERANGE)
        return luna_error(LUNA_CONFIG, "'%.60s' is not a number", text);
    while (*end == ' ') end++;
    for (; units->name; units++) {
        if (strcmp(end, units->name) != 0) continue;
        if (!__builtin_mul_overflow(number, units->factor, out)) return LUNA_OK;
    }
    return luna_error(LUNA_CONFIG, "'%.60s' has an unknown unit or is too large", text);
}

static luna_err parse_flag(const char *text, bool *out)
{
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) != 0 && strcmp(text, no[i]) != 0) continue;
        *out = strcmp(text, yes[i]) == 0;
        return LUNA_OK;
    }
    return luna_error(LUNA_CONFIG, "'%.60s' is neither yes nor no", text);
}

static const char *place(const luna_home *home, const char *text, size_t *used)
{
    const struct {
        const char *token, *dir;
    } places[] = {{"%run%", home->run},
                  {"%state%", home->state},
                  {"%spool%", home->spool},
                  {"%output%", home->output}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        *used = strlen(places[i].token);
        if (strncmp(text, places[i].token, *used) == 0) return places[i].dir;
    }
    return NULL;
}

//  Replaces the %run% family; everything else is taken as it stands.
static luna_err expand(const char *text, char *out, size_t room)
{
    luna_home home = {0};
    size_t used = 0;
    if (strchr(text, '%')) LUNA_TRY(luna_home_find(&home));
    while (*text) {
        size_t skip = 1;
        const char *dir = *text == '%' ? place(&home, text, &skip) : NULL;
        const size_t len = dir ? strlen(dir) : 1;
        if (!dir) skip = 1;
        if (used + len >= room)
            return luna_error(LUNA_CONFIG, "the value is longer than %zu bytes",
                              room - 1);
        memcpy(out + used, dir ? dir : text, len);
        used += len;
        text += skip;
    }
    out[used] = '\0';
    return LUNA_OK;
}

static luna_err set_path(const char *text, char *out)
{
    char expanded[LUNA_SETTING_BYTES];
    LUNA_TRY(expand(text, expanded, sizeof expanded));
    if (expanded[0] == '\0' || strstr(expanded, "://")) {
        memcpy(out, expanded, sizeof expanded);
        return LUNA_OK;
    }
    return luna_path_absolute(expanded, out, LUNA_SETTING_BYTES);
}

//  Without the blanks around it.
static size_t trimmed(const char **at, size_t len)
{
    while (len > 0 && isspace((unsigned char)(*at)[0])) ++*at, len--;
    while (len > 0 && isspace((unsigned char)(*at)[len - 1])) len--;
    return len;
}

bool luna_paths_at(const char *paths, size_t index, char *out, size_t room)
{
    for (const char *at = paths;; at++) {
        const size_t whole = strcspn(at, ":");
        const char *one = at;
        const size_t len = trimmed(&one, whole);
        if (len > 0 && index-- == 0) {
            snprintf(out, room, "%.*s", (int)len, one);
            return true;
        }
        at += whole;
        if (!*at) return false;
    }
}

static luna_err paths_too_long(void)
{
    return luna_error(LUNA_CONFIG, "the list of paths is longer than %d bytes",
                      LUNA_SETTING_BYTES - 1);
}

static luna_err set_paths(const char *text, char *out)
{
    char one[LUNA_SETTING_BYTES], whole[LUNA_SETTING_BYTES];
    size_t used = 0;
    out[0] = '\0';
    if (strlen(text) >= sizeof one) return paths_too_long();
    for (size_t i = 0; luna_paths_at(text, i, one, sizeof one); i++) {
        LUNA_TRY(set_path(one, whole));
        const int n =
            snprintf(out + used, LUNA_SETTING_BYTES - used, "%s%s", i ? ":" : "", whole);
        if (n < 0 || (size_t)n >= LUNA_SETTING_BYTES - used) return paths_too_long();
        used += (size_t)n;
    }
    return LUNA_OK;
}

static luna_err set_value(const luna_setting *setting, const char *text, void *out)
{
    void *at = (char *)out + setting->offset;
    switch (setting->kind) {
        case LUNA_SETTING_TEXT:
            return expand(text, at, LUNA_SETTING_BYTES);
        case LUNA_SETTING_PATH:
            return set_path(text, at);
        case LUNA_SETTING_PATHS:
            return set_paths(text, at);
        case LUNA_SETTING_COUNT:
            return parse_number(text, no_units, at);
        case LUNA_SETTING_SIZE:
            return parse_number(text, size_units, at);
        case LUNA_SETTING_DURATION_MS:
            return parse_number(text, duration_units, at);
        case LUNA_SETTING_FLAG:
            return parse_flag(text, at);
    }
    return LUNA_INTERNAL;
}

static const luna_setting *find(const luna_config *config, const char *section,
                                const char *key)
{
    for (size_t i = 0; i < config->count; i++) {
        const luna_setting *setting = &config->settings[i];
        if (strcmp(setting->section, section) == 0 && strcmp(setting->key, key) == 0)
            return setting;
    }
    return NULL;
}

luna_err luna_config_set(const luna_config *config, const char *section, const char *key,
                         const char *value, void *out)
{
    const luna_setting *setting = find(config, section, key);
    if (!setting)
        return luna_error(LUNA_CONFIG, "there is no setting '%.60s' in [%.60s]", key,
                          section);
    const luna_err err = set_value(setting, value, out);
    if (err == LUNA_OK) return LUNA_OK;
    return luna_error(err, "[%s] %s: %s", section, key, luna_error_text());
}

//  ---- the file -------------------------------------------------------------------

typedef struct loading {
    const luna_config *config;
    void *out;
} loading;

static bool is_foreign(const luna_config *config, const char *section)
{
    const size_t len = strcspn(section, " ");
    for (const char *const *name = config->foreign; name && *name; name++)
        if (strlen(*name) == len && strncmp(*name, section, len) == 0) return true;
    return false;
}

static luna_err take_named(const luna_config *config, const char *section,
                           const char *key, const char *value)
{
    char kind[64];
    const char *name = strchr(section, ' ') + 1;
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(section, " "), section);
    char expanded[LUNA_SETTING_BYTES];
    LUNA_TRY(expand(value, expanded, sizeof expanded));
    return config->named(config->context, kind, name, key, expanded);
}

static luna_err take_entry(void *context, const char *section, const char *key,
                           const char *value)
{
    const loading *load = context;
    if (is_foreign(load->config, section)) return LUNA_OK;
    if (strchr(section, ' ') && load->config->named)
        return take_named(load->config, section, key, value);
    return luna_config_set(load->config, section, key, value, load->out);
}

static luna_err load_file(const luna_config *config, const char *path, void *out)
{
    loading load = {.config = config, .out = out};
    return luna_ini_read(path, take_entry, &load);
}

static int is_conf(const struct dirent *entry)
{
    const size_t len = strlen(entry->d_name);
    return len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

static luna_err load_folder(const luna_config *config, const char *path, void *out)
{
    char dir[LUNA_SETTING_BYTES], file[LUNA_SETTING_BYTES];
    snprintf(dir, sizeof dir, "%s.d", path);
    struct dirent **names;
    const int count = scandir(dir, &names, is_conf, alphasort);
    luna_err err = LUNA_OK;
    for (int i = 0; i < count; i++) {
        if (err == LUNA_OK)
            err = luna_path_join(file, sizeof file, dir, names[i]->d_name);
        if (err == LUNA_OK) err = load_file(config, file, out);
        free(names[i]);
    }
    if (count >= 0) free(names);
    return err;
}

static luna_err load_files(const luna_config *config, const char *path, void *out)
{
    luna_home home;
    if (!path) {
        LUNA_TRY(luna_home_find(&home));
        path = home.config;
        if (access(path, F_OK) != 0) return load_folder(config, path, out);
    }
    LUNA_TRY(load_file(config, path, out));
    return load_folder(config, path, out);
}

//  ---- the environment ---------------------------------------------------------------

static void environment_name(const luna_setting *setting, char *out, size_t room)
{
    snprintf(out, room, "LUNA_%s_%s", setting->section, setting->key);
    for (char *c = out; *c; c++)
        *c = (char)(*c == '.' ? '_' : toupper((unsigned char)*c));
}

static luna_err load_environment(const luna_config *config, void *out)
{
    char name[160];
    for (size_t i = 0; i < config->count; i++) {
        const luna_setting *setting = &config->settings[i];
        environment_name(setting, name, sizeof name);
        const char *value = getenv(name);
        if (!value) continue;
        const luna_err err = set_value(setting, value, out);
        if (err != LUNA_OK) return luna_error(err, "%s: %s", name, luna_error_text());
    }
    return LUNA_OK;
}

luna_err luna_config_load(const luna_config *config, const char *path, void *out)
{
    for (size_t i = 0; i < config->count; i++)
        LUNA_TRY(set_value(&config->settings[i], config->settings[i].fallback, out));
    LUNA_TRY(load_files(config, path, out));
    return load_environment(config, out);
}

static void print_value(const luna_setting *setting, const void *at, FILE *to)
{
    switch (setting->kind) {
        case LUNA_SETTING_TEXT:
        case LUNA_SETTING_PATH:
        case LUNA_SETTING_PATHS:
            fprintf(to, "%s\n", (const char *)at);
            return;
        case LUNA_SETTING_COUNT:
        case LUNA_SETTING_SIZE:
            fprintf(to, "%llu\n", (unsigned long long)*(const uint64_t *)at);
            return;
        case LUNA_SETTING_DURATION_MS:
            fprintf(to, "%llums\n", (unsigned long long)*(const uint64_t *)at);
            return;
        case LUNA_SETTING_FLAG:
            fprintf(to, "%s\n", *(const bool *)at ? "yes" : "no");
            return;
    }
}

void luna_config_print(const luna_config *config, const void *values, FILE *to)
{
    const char *section = "";
    for (size_t i = 0; i < config->count; i++) {
        const luna_setting *setting = &config->settings[i];
        if (strcmp(section, setting->section) != 0)
            fprintf(to, "%s[%s]\n", i ? "\n" : "", setting->section);
        section = setting->section;
        fprintf(to, "; %s\n%s = ", setting->help, setting->key);
        print_value(setting, (const char *)values + setting->offset, to);
    }
}
