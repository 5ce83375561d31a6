#include "common/home.h"

#include "common/file.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IPC_PATH_MAX = 107 };  //  sun_path, without its NUL

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static luna_err fill(luna_home *home, const char *run, const char *state,
                     const char *output, const char *config)
{
    LUNA_TRY(luna_path_absolute(run, home->run, sizeof home->run));
    LUNA_TRY(luna_path_absolute(state, home->state, sizeof home->state));
    LUNA_TRY(luna_path_join(home->spool, sizeof home->spool, home->state, "spool"));
    LUNA_TRY(luna_path_absolute(output, home->output, sizeof home->output));
    return luna_path_absolute(config, home->config, sizeof home->config);
}

static luna_err private_home(luna_home *home, const char *dir)
{
    char run[LUNA_HOME_BYTES], state[LUNA_HOME_BYTES];
    char output[LUNA_HOME_BYTES], config[LUNA_HOME_BYTES];
    LUNA_TRY(luna_path_join(run, sizeof run, dir, "run"));
    LUNA_TRY(luna_path_join(state, sizeof state, dir, "state"));
    LUNA_TRY(luna_path_join(output, sizeof output, dir, "output"));
    LUNA_TRY(luna_path_join(config, sizeof config, dir, "luna.conf"));
    return fill(home, run, state, output, config);
}

//  systemd sets these for RuntimeDirectory= and StateDirectory=; a list of several
//  is not ours.
static luna_err service_home(luna_home *home, const char *run, const char *state)
{
    char output[LUNA_HOME_BYTES];
    LUNA_TRY(luna_path_join(output, sizeof output, state, "output"));
    return fill(home, run, state, output, "/etc/luna/luna.conf");
}

static const char *user_dir(void)
{
    const char *home = setting("HOME");
    if (home) return home;
    const struct passwd *entry = getpwuid(getuid());
    return entry ? entry->pw_dir : NULL;
}

static luna_err user_home(luna_home *home, const char *user)
{
    char run[LUNA_HOME_BYTES], state[LUNA_HOME_BYTES];
    char output[LUNA_HOME_BYTES], config[LUNA_HOME_BYTES];
    const char *run_base = setting("XDG_RUNTIME_DIR");
    const char *state_base = setting("XDG_STATE_HOME");
    const char *config_base = setting("XDG_CONFIG_HOME");
    LUNA_TRY(luna_path_join(run, sizeof run, run_base ? run_base : user,
                            run_base ? "luna" : ".cache/luna"));
    LUNA_TRY(luna_path_join(state, sizeof state, state_base ? state_base : user,
                            state_base ? "luna" : ".local/state/luna"));
    LUNA_TRY(luna_path_join(output, sizeof output, user, "luna-output"));
    LUNA_TRY(luna_path_join(config, sizeof config, config_base ? config_base : user,
                            config_base ? "luna/luna.conf" : ".config/luna/luna.conf"));
    return fill(home, run, state, output, config);
}

luna_err luna_home_find(luna_home *out)
{
    const char *dir = setting("LUNA_HOME");
    if (dir) return private_home(out, dir);
    const char *run = setting("RUNTIME_DIRECTORY");
    const char *state = setting("STATE_DIRECTORY");
    if (run && state) return service_home(out, run, state);
    if (geteuid() == 0) return service_home(out, "/run/luna", "/var/lib/luna");
    const char *user = user_dir();
    if (!user)
        return luna_error(LUNA_CONFIG, "this user has no home folder; set LUNA_HOME=DIR");
    return user_home(out, user);
}

luna_err luna_home_cache(char *out, size_t room)
{
    const struct {
        const char *base;
        const char *below;
    } places[] = {{setting("LUNA_HOME"), "cache"},
                  {setting("CACHE_DIRECTORY"), "."},
                  {setting("XDG_CACHE_HOME"), "luna"},
                  {user_dir(), ".cache/luna"}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (places[i].base)
            return luna_path_join(out, room, places[i].base, places[i].below);
    return luna_error(LUNA_CONFIG, "this user has no home folder; set LUNA_HOME=DIR");
}

luna_err luna_home_control(char *out, size_t room)
{
    static const char system_wide[] = "/run/luna/control";
    const char *given = setting("LUNA_BROKER");
    int n;
    if (given) {
        n = snprintf(out, room, "%s", given);
    } else {
        luna_home home;
        char path[LUNA_HOME_BYTES];
        LUNA_TRY(luna_home_find(&home));
        LUNA_TRY(luna_path_join(path, sizeof path, home.run, "control"));
        struct stat info;
        const bool own = setting("LUNA_HOME") || stat(path, &info) == 0 ||
                         stat(system_wide, &info) != 0;
        n = snprintf(out, room, "ipc://%s", own ? path : system_wide);
    }
    if (n < 0 || (size_t)n >= room)
        return luna_error(LUNA_CONFIG, "the broker's endpoint is longer than %zu bytes",
                          room);
    return luna_endpoint_check(out);
}

luna_err luna_home_key(char *out, size_t room)
{
    luna_home home;
    const char *named = getenv("LUNA_KEY_FILE");
    if (named && named[0]) {
        snprintf(out, room, "%s", named);
        return LUNA_OK;
    }
    LUNA_TRY(luna_home_find(&home));
    const int len = snprintf(out, room, "%s/client.key", home.state);
    if (len >= 0 && (size_t)len < room) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "the path %.60s... is too long", home.state);
}

static void read_word(const char *path, char *out, size_t room)
{
    FILE *file = fopen(path, "re");
    if (!file || !fgets(out, (int)room, file)) snprintf(out, room, "unknown");
    out[strcspn(out, "\n")] = '\0';
    if (file) fclose(file);
}

void luna_home_host(char out[80])
{
    char machine[40], boot[40];
    read_word("/etc/machine-id", machine, sizeof machine);
    read_word("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    snprintf(out, 80, "%.32s/%.36s", machine, boot);
}

luna_err luna_endpoint_check(const char *endpoint)
{
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) <= IPC_PATH_MAX)
        return LUNA_OK;
    return luna_error(LUNA_CONFIG,
                      "%s is longer than the %d bytes a socket path may have; choose a "
                      "shorter LUNA_HOME",
                      endpoint, IPC_PATH_MAX);
}
