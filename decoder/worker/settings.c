#include "decoder/worker/settings.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/home.h"
#include "common/address.h"
#include "common/utf8.h"
#include "decoder/vae/cards.h"

#define ENCODE_THREADS_MAX 256
#define CREDIT_JOBS_MAX    64  //  what a broker gives one decoder at most

#define SETTING(section, key, kind, field, fallback, help)                         \
    {                                                                              \
        section, key, LUNA_SETTING_##kind, offsetof(luna_decoder_settings, field), \
            fallback, help                                                         \
    }

static const luna_setting table[] = {
    SETTING("decoder", "name", TEXT, name, "", "unique name; empty: HOST-DEVICE"),
    SETTING("decoder", "device", TEXT, device, "auto",
            "auto, cpu, cuda:N or cuda:GPU-UUID"),
    SETTING("decoder", "broker", TEXT, broker, "",
            "where it is, ipc:///PATH or tcp://HOST:PORT?key=KEY; empty: this Luna's"),
    SETTING("decoder", "key_file", PATH, key_file, "%state%/client.key",
            "this machine's secret key, for a broker on another one; made when missing"),
    SETTING("decoder", "encode_threads", COUNT, encode_threads, "0",
            "images encoded at a time; 0: one less than there are cores"),
    SETTING("decoder", "cpu_threads", COUNT, cpu_threads, "0",
            "threads of a decode on the CPU; 0: one for each processor"),
    SETTING("decoder", "credit_jobs", COUNT, credit_jobs, "2",
            "jobs held at a time: one running, the others fetched ahead"),
    SETTING("decoder", "credit_bytes", SIZE, credit_bytes, "512MiB",
            "latents of the jobs held at a time"),
    SETTING("decoder", "memory_limit", SIZE, memory_limit_bytes, "0",
            "memory of one decode, weights included; 0: on a GPU what is free, less a "
            "reserve"),
    SETTING("decoder", "pixels_max", SIZE, pixels_max_bytes, "512MiB",
            "decoded pictures that wait to be encoded"),
    SETTING("decoder", "stop_timeout", DURATION_MS, stop_timeout_ms, "60s",
            "time to finish the image in hand when told to stop"),
    SETTING("decoder", "hang_timeout", DURATION_MS, hang_timeout_ms, "10min",
            "a GPU's decode without a step for so long has hung; 0: never"),
    SETTING("decoder", "keep_records", DURATION_MS, keep_records_ms, "720h",
            "how long saved images are remembered, against a second saving"),
    SETTING("vae", "roots", PATHS, vae_roots, "",
            "folders whose *.safetensors files can be named by jobs"),
    SETTING("vae", "keep", COUNT, models_max, "2", "VAEs kept in memory"),
    SETTING("vae", "keep_bytes", SIZE, models_max_bytes, "4GiB",
            "weights of the VAEs kept in memory"),
    SETTING("output", "roots", PATHS, output_roots, "%output%",
            "folders below which pictures are written; the first is the default"),
    SETTING("output", "file_mode", TEXT, file_mode, "",
            "permissions of pictures, octal as 0640; empty: as the umask says"),
    SETTING("output", "folder_mode", TEXT, folder_mode, "",
            "permissions of folders that are made, octal; empty: as the umask says"),
    SETTING("output", "owner", TEXT, owner, "",
            "user that pictures and folders are given to; needs root"),
    SETTING("output", "group", TEXT, group, "",
            "group that they are given to; one of the decoder's own, or needs root"),
    SETTING("log", "level", TEXT, log_level, "info", "error, warning, info or debug")};

static const char *const foreign[] = {"broker", "store",    "limits", "lease",
                                      "http",   "producer", NULL};

static luna_err set_vae(void *context, const char *section, const char *name,
                        const char *key, const char *value)
{
    if (strcmp(section, "vae") == 0) return luna_registry_set(context, name, key, value);
    return luna_error(LUNA_CONFIG, "there is no section [%s NAME]", section);
}

static luna_config config_of(luna_registry *registry)
{
    return (luna_config){.settings = table,
                         .count = sizeof table / sizeof table[0],
                         .foreign = foreign,
                         .named = set_vae,
                         .context = registry};
}

//  ---- what depends on the machine -------------------------------------------------

static uint64_t spare_cores(void)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > ENCODE_THREADS_MAX) return ENCODE_THREADS_MAX;
    return cores > 1 ? (uint64_t)cores - 1 : 1;
}

static luna_err read_mode(const char *key, const char *text, mode_t *out)
{
    char *end;
    const unsigned long mode = strtoul(text, &end, 8);
    *out = (mode_t)mode;
    if (text[0] == '\0' || (*end == '\0' && mode > 0 && mode <= 07777)) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "[output] %s: '%.40s' is no octal mode such as 0640",
                      key, text);
}

static bool read_id(const char *text, unsigned *out)
{
    char *end;
    const unsigned long number = strtoul(text, &end, 10);
    *out = (unsigned)number;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && number < UINT32_MAX;
}

static luna_err read_owner(const char *text, luna_access *out)
{
    if (text[0] == '\0') return LUNA_OK;
    const struct passwd *user = getpwnam(text);
    out->has_owner = true;
    if (user) out->owner = user->pw_uid;
    if (user || read_id(text, &out->owner)) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "[output] owner: there is no user '%.100s'", text);
}

static luna_err read_group(const char *text, luna_access *out)
{
    if (text[0] == '\0') return LUNA_OK;
    const struct group *group = getgrnam(text);
    out->has_group = true;
    if (group) out->group = group->gr_gid;
    if (group || read_id(text, &out->group)) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "[output] group: there is no group '%.100s'", text);
}

static luna_err read_access(luna_decoder_settings *s)
{
    s->access = (luna_access){0};
    LUNA_TRY(read_mode("file_mode", s->file_mode, &s->access.file_mode));
    LUNA_TRY(read_mode("folder_mode", s->folder_mode, &s->access.folder_mode));
    LUNA_TRY(read_owner(s->owner, &s->access));
    return read_group(s->group, &s->access);
}

static luna_err check_device(const char *device)
{
    luna_device_word word;
    if (luna_device_parse(device, &word) == LUNA_OK) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "%s", luna_error_text());
}

static luna_err check_broker(const char *text)
{
    luna_address address;
    if (luna_address_parse(text, &address) == LUNA_OK) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "[decoder] broker: %s", luna_error_text());
}

static luna_err check(const luna_decoder_settings *settings)
{
    LUNA_TRY(check_device(settings->device));
    if (strlen(settings->name) > LUNA_MAX_NAME_BYTES ||
        !luna_utf8_valid(settings->name, strlen(settings->name)))
        return luna_error(LUNA_CONFIG,
                          "the decoder's name must be UTF-8 of at most %d "
                          "bytes",
                          LUNA_MAX_NAME_BYTES);
    if (settings->encode_threads > ENCODE_THREADS_MAX ||
        settings->cpu_threads > ENCODE_THREADS_MAX)
        return luna_error(LUNA_CONFIG, "at most %d threads", ENCODE_THREADS_MAX);
    if (settings->credit_jobs < 1 || settings->credit_jobs > CREDIT_JOBS_MAX)
        return luna_error(LUNA_CONFIG, "credit_jobs must be 1 to %d", CREDIT_JOBS_MAX);
    if (settings->models_max < 1)
        return luna_error(LUNA_CONFIG, "[vae] keep must be at least 1");
    if (!luna_utf8_valid(settings->output_roots, strlen(settings->output_roots)))
        return luna_error(LUNA_CONFIG, "[output] roots must be UTF-8");
    return check_broker(settings->broker);
}

static luna_err complete(luna_decoder_settings *settings)
{
    if (!settings->broker[0])
        LUNA_TRY(luna_home_control(settings->broker, sizeof settings->broker));
    if (settings->encode_threads == 0) settings->encode_threads = spare_cores();
    LUNA_TRY(luna_log_level_parse(settings->log_level, &settings->least));
    LUNA_TRY(read_access(settings));
    return check(settings);
}

luna_err luna_decoder_settings_load(const luna_decoder_flags *flags,
                                    luna_registry *registry, luna_decoder_settings *out)
{
    const luna_config config = config_of(registry);
    LUNA_TRY(luna_config_load(&config, flags->config, out));
    if (flags->name)
        LUNA_TRY(luna_config_set(&config, "decoder", "name", flags->name, out));
    if (flags->device)
        LUNA_TRY(luna_config_set(&config, "decoder", "device", flags->device, out));
    return complete(out);
}

void luna_decoder_settings_name(luna_decoder_settings *settings, const char *device)
{
    char host[256] = "luna";
    if (settings->name[0]) return;
    (void)gethostname(host, sizeof host - 1);
    const bool found = strcmp(settings->device, "auto") == 0;
    snprintf(settings->name, sizeof settings->name, "%s-%.100s", host,
             found ? device : settings->device);
}

void luna_decoder_settings_print(const luna_decoder_settings *settings, FILE *to)
{
    const luna_config config = config_of(NULL);
    luna_config_print(&config, settings, to);
}
