#include "broker/settings.h"

#include "broker/http/listen.h"
#include "broker/remote.h"
#include "common/home.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(luna_settings, field)

static const luna_setting table[] = {
    {"broker", "control", LUNA_SETTING_TEXT, AT(control), "ipc://%run%/control",
     "where clients and decoders talk; ipc://PATH, or tcp://127.0.0.1:PORT"},
    {"broker", "intake", LUNA_SETTING_TEXT, AT(intake), "ipc://%run%/intake",
     "where producers push jobs"},
    {"broker", "events", LUNA_SETTING_TEXT, AT(events), "ipc://%run%/events",
     "where watchers subscribe"},
    {"broker", "slots", LUNA_SETTING_TEXT, AT(slots), "ipc://%run%/d",
     "work sockets, one a decoder: a path prefix, or tcp://127.0.0.1:FIRSTPORT"},
    {"broker", "remote", LUNA_SETTING_TEXT, AT(remote), "",
     "for clients and decoders of other machines: tcp://ADDRESS:FIRSTPORT, 103 ports"},
    {"broker", "key_file", LUNA_SETTING_PATH, AT(key_file), "%state%/broker.key",
     "the broker's secret key; made when it is missing and needed"},
    {"broker", "allowed_keys", LUNA_SETTING_PATH, AT(allowed_keys),
     "%state%/allowed_keys",
     "public keys of those who may come from other machines, one a line"},
    {"broker", "ageing", LUNA_SETTING_DURATION_MS, AT(ageing_ms), "30min",
     "waiting so long is worth one priority; 0 keeps priorities strict"},
    {"broker", "stop_grace", LUNA_SETTING_DURATION_MS, AT(stop_grace_ms), "5s",
     "how long a stop waits for jobs in decoders' hands; they survive it anyway"},
    {"broker", "vae_load", LUNA_SETTING_DURATION_MS, AT(vae_load_ms), "2s",
     "what loading a VAE is taken to cost until one was seen to load"},
    {"store", "state_dir", LUNA_SETTING_PATH, AT(state_dir), "%state%",
     "folder of the database"},
    {"store", "spool_dir", LUNA_SETTING_PATH, AT(spool_dir), "%spool%",
     "folder of the payload files"},
    {"store", "reserve", LUNA_SETTING_SIZE, AT(reserve_bytes), "512MiB",
     "a job that would leave less free disk than this gets 'busy'"},
    {"store", "warn", LUNA_SETTING_SIZE, AT(warn_bytes), "4GiB",
     "less free disk than this is an alarm; jobs are still accepted"},
    {"store", "ballast", LUNA_SETTING_SIZE, AT(ballast_bytes), "16MiB",
     "disk kept in hand, so that accepted jobs can be finished when it is full"},
    {"store", "keep", LUNA_SETTING_DURATION_MS, AT(keep_ms), "168h",
     "finished jobs are remembered for so long; 0 keeps them for ever"},
    {"limits", "max_job_bytes", LUNA_SETTING_SIZE, AT(max_job_bytes), "256MiB",
     "a larger job is refused"},
    {"limits", "max_jobs", LUNA_SETTING_COUNT, AT(max_jobs), "100000",
     "with so many active jobs new ones get 'busy'"},
    {"limits", "max_queued_bytes", LUNA_SETTING_SIZE, AT(max_queued_bytes), "64GiB",
     "with so many bytes in active jobs new ones get 'busy'"},
    {"limits", "max_client_jobs", LUNA_SETTING_COUNT, AT(max_client_jobs), "50000",
     "a client with so many active jobs gets 'busy'"},
    {"limits", "max_client_bytes", LUNA_SETTING_SIZE, AT(max_client_bytes), "32GiB",
     "the same for the bytes of its active jobs; one job is always taken"},
    {"limits", "max_held_bytes", LUNA_SETTING_SIZE, AT(max_held_bytes), "512MiB",
     "memory for jobs on their way to the disk; reading pauses above it"},
    {"lease", "time", LUNA_SETTING_DURATION_MS, AT(lease_ms), "60s",
     "an attempt without progress, or a decoder without a word, is lost after this"},
    {"lease", "ping", LUNA_SETTING_DURATION_MS, AT(ping_ms), "1s",
     "how often peers say that they live"},
    {"lease", "adopt", LUNA_SETTING_DURATION_MS, AT(adopt_ms), "15s",
     "after a restart decoders have this time to claim the jobs they run"},
    {"lease", "disconnect_grace", LUNA_SETTING_DURATION_MS, AT(disconnect_grace_ms),
     "200ms", "from a lost connection to giving the jobs back"},
    {"lease", "lost_limit", LUNA_SETTING_COUNT, AT(lost_limit), "5",
     "attempts a job may lose to dying decoders before it is failed"},
    {"lease", "refused_limit", LUNA_SETTING_COUNT, AT(refused_limit), "3",
     "attempts a decoder may answer with an error before the job is failed"},
    {"lease", "backoff", LUNA_SETTING_DURATION_MS, AT(backoff_ms), "2s",
     "wait after the first refusal; doubled each time"},
    {"lease", "backoff_max", LUNA_SETTING_DURATION_MS, AT(backoff_max_ms), "60s",
     "longest wait after a refusal"},
    {"lease", "remember", LUNA_SETTING_DURATION_MS, AT(remember_ms), "10min",
     "jobs wait so long for the only decoder that lists their VAE to come back"},
    {"http", "listen", LUNA_SETTING_TEXT, AT(http_listen), "127.0.0.1:19284",
     "address of the HTTP interface; 'off' for none"},
    {"http", "token_file", LUNA_SETTING_PATH, AT(http_token_file), "",
     "file with the bearer token; needed for any address but loopback"},
    {"log", "level", LUNA_SETTING_TEXT, AT(log_level), "info",
     "error, warning, info or debug"},
};

static const char *const foreign[] = {"decoder",  "vae",      "output",
                                      "image",    "database", "watcher",
                                      "producer", "lunactl",  NULL};

const luna_config luna_settings_config = {
    .settings = table, .count = sizeof table / sizeof table[0], .foreign = foreign};

static luna_err at_least(const char *name, uint64_t value, uint64_t least)
{
    if (value >= least) return LUNA_OK;
    return luna_error(LUNA_CONFIG, "%s must be at least %llu", name,
                      (unsigned long long)least);
}

//  A lease must outlast the pings that renew it, and no wait may be so long that
//  adding it to a clock overflows.
static luna_err check_times(const luna_settings *s)
{
    const uint64_t longest = UINT64_C(1000) * 3600 * 24 * 366 * 100;
    const uint64_t all[] = {s->ageing_ms,      s->stop_grace_ms,
                            s->keep_ms,        s->lease_ms,
                            s->ping_ms,        s->adopt_ms,
                            s->backoff_max_ms, s->backoff_ms,
                            s->remember_ms,    s->disconnect_grace_ms,
                            s->vae_load_ms};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] > longest)
            return luna_error(LUNA_CONFIG, "a duration is longer than 100 years");
    LUNA_TRY(at_least("[lease] ping", s->ping_ms, 20));
    if (s->lease_ms < 3 * s->ping_ms)
        return luna_error(LUNA_CONFIG, "[lease] time must be at least three pings");
    LUNA_TRY(at_least("[lease] backoff", s->backoff_ms, 1));
    return at_least("[lease] backoff_max", s->backoff_max_ms, s->backoff_ms);
}

//  Without encryption and keys a port other machines reach is open to everyone.
static luna_err check_endpoint(const char *key, const char *endpoint)
{
    if (strncmp(endpoint, "ipc://", 6) == 0) return luna_endpoint_check(endpoint);
    if (luna_endpoint_is_loopback(endpoint)) return LUNA_OK;
    return luna_error(
        LUNA_CONFIG,
        "[broker] %s: '%.200s' is neither ipc://PATH nor a tcp:// address of "
        "this machine's loopback; others come in by [broker] remote",
        key, endpoint);
}

static luna_err check(const luna_settings *s)
{
    luna_log_level level;
    LUNA_TRY(luna_log_level_parse(s->log_level, &level));
    LUNA_TRY(check_endpoint("control", s->control));
    LUNA_TRY(check_endpoint("intake", s->intake));
    LUNA_TRY(check_endpoint("events", s->events));
    LUNA_TRY(check_endpoint("slots", s->slots));
    if (s->remote[0]) LUNA_TRY(luna_remote_check(s->remote));
    if (strcmp(s->http_listen, "off") != 0)
        LUNA_TRY(luna_listen_check(s->http_listen, !s->http_token_file[0]));
    LUNA_TRY(check_times(s));
    LUNA_TRY(at_least("[limits] max_job_bytes", s->max_job_bytes, 1024));
    LUNA_TRY(at_least("[limits] max_jobs", s->max_jobs, 1));
    LUNA_TRY(at_least("[limits] max_client_jobs", s->max_client_jobs, 1));
    LUNA_TRY(at_least("[store] ballast", s->ballast_bytes, 1 << 20));
    LUNA_TRY(at_least("[lease] lost_limit", s->lost_limit, 1));
    LUNA_TRY(at_least("[lease] refused_limit", s->refused_limit, 1));
    if (s->max_job_bytes > UINT64_C(1) << 40)
        return luna_error(LUNA_CONFIG, "[limits] max_job_bytes is more than 1 TiB");
    return LUNA_OK;
}

luna_err luna_settings_load(const char *path, luna_settings *out)
{
    LUNA_TRY(luna_config_load(&luna_settings_config, path, out));
    return check(out);
}

//  ---- while the broker runs -------------------------------------------------------

static bool may_change(const luna_setting *setting)
{
    static const char *const names[][2] = {{"broker", "ageing"},
                                           {"broker", "stop_grace"},
                                           {"broker", "vae_load"},
                                           {"store", "warn"},
                                           {"store", "keep"},
                                           {"limits", "max_jobs"},
                                           {"limits", "max_queued_bytes"},
                                           {"limits", "max_client_jobs"},
                                           {"limits", "max_client_bytes"},
                                           {"limits", "max_held_bytes"},
                                           {"lease", "time"},
                                           {"lease", "disconnect_grace"},
                                           {"lease", "lost_limit"},
                                           {"lease", "refused_limit"},
                                           {"lease", "backoff"},
                                           {"lease", "backoff_max"},
                                           {"lease", "remember"},
                                           {"log", "level"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(setting->section, names[i][0]) == 0 &&
            strcmp(setting->key, names[i][1]) == 0)
            return true;
    return false;
}

static size_t value_bytes(const luna_setting *setting)
{
    switch (setting->kind) {
        case LUNA_SETTING_TEXT:
        case LUNA_SETTING_PATH:
        case LUNA_SETTING_PATHS:
            return LUNA_SETTING_BYTES;
        case LUNA_SETTING_FLAG:
            return sizeof(bool);
        case LUNA_SETTING_COUNT:
        case LUNA_SETTING_SIZE:
        case LUNA_SETTING_DURATION_MS:
            break;
    }
    return sizeof(uint64_t);
}

static bool same_value(const luna_setting *setting, const char *a, const char *b)
{
    const size_t bytes = value_bytes(setting);
    if (bytes == LUNA_SETTING_BYTES) return strcmp(a, b) == 0;
    return memcmp(a, b, bytes) == 0;
}

size_t luna_settings_take(luna_settings *settings, const luna_settings *now, char *fixed,
                          size_t room)
{
    size_t changed = 0, used = 0;
    fixed[0] = '\0';
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *to = (char *)settings + table[i].offset;
        const char *from = (const char *)now + table[i].offset;
        if (same_value(&table[i], to, from)) continue;
        if (may_change(&table[i])) {
            memcpy(to, from, value_bytes(&table[i]));
            changed++;
        } else if (used < room) {
            const int n = snprintf(fixed + used, room - used, "%s[%s] %s",
                                   used ? ", " : "", table[i].section, table[i].key);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return changed;
}
