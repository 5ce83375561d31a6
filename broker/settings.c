#include "broker/settings.h"

#include "broker/http/listen.h"
#include "common/home.h"
#include "common/log.h"

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
    {"broker", "ageing", LUNA_SETTING_DURATION_MS, AT(ageing_ms), "30min",
     "waiting so long is worth one priority; 0 keeps priorities strict"},
    {"broker", "stop_grace", LUNA_SETTING_DURATION_MS, AT(stop_grace_ms), "5s",
     "how long a stop waits for jobs in decoders' hands; they survive it anyway"},
    {"store", "state_dir", LUNA_SETTING_PATH, AT(state_dir), "%state%",
     "folder of the database"},
    {"store", "spool_dir", LUNA_SETTING_PATH, AT(spool_dir), "%spool%",
     "folder of the payload files"},
    {"store", "reserve", LUNA_SETTING_SIZE, AT(reserve_bytes), "512MiB",
     "a job that would leave less free disk than this gets 'busy'"},
    {"store", "keep", LUNA_SETTING_DURATION_MS, AT(keep_ms), "168h",
     "finished jobs are remembered for so long; 0 keeps them for ever"},
    {"limits", "max_job_bytes", LUNA_SETTING_SIZE, AT(max_job_bytes), "256MiB",
     "a larger job is refused"},
    {"limits", "max_jobs", LUNA_SETTING_COUNT, AT(max_jobs), "100000",
     "with so many active jobs new ones get 'busy'"},
    {"limits", "max_queued_bytes", LUNA_SETTING_SIZE, AT(max_queued_bytes), "64GiB",
     "with so many bytes in active jobs new ones get 'busy'"},
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
    const uint64_t all[] = {s->ageing_ms,          s->stop_grace_ms, s->keep_ms,
                            s->lease_ms,           s->ping_ms,       s->adopt_ms,
                            s->backoff_max_ms,     s->backoff_ms,    s->remember_ms,
                            s->disconnect_grace_ms};
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
    static const char *const local[] = {"tcp://127.", "tcp://[::1]:"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        if (strncmp(endpoint, local[i], strlen(local[i])) == 0) return LUNA_OK;
    return luna_error(
        LUNA_CONFIG,
        "[broker] %s: '%.200s' is neither ipc://PATH nor a tcp:// address of "
        "this machine's loopback",
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
    if (strcmp(s->http_listen, "off") != 0)
        LUNA_TRY(luna_listen_check(s->http_listen, !s->http_token_file[0]));
    LUNA_TRY(check_times(s));
    LUNA_TRY(at_least("[limits] max_job_bytes", s->max_job_bytes, 1024));
    LUNA_TRY(at_least("[limits] max_jobs", s->max_jobs, 1));
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
