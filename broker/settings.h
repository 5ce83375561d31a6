//  settings.h - the broker's settings: one table for file, environment and flags

#ifndef LUNA_BROKER_SETTINGS_H
#define LUNA_BROKER_SETTINGS_H

#include "common/config.h"

typedef struct luna_settings {
    //  [broker]
    char control[LUNA_SETTING_BYTES];
    char intake[LUNA_SETTING_BYTES];
    char events[LUNA_SETTING_BYTES];
    char slots[LUNA_SETTING_BYTES];   //  ipc: a prefix; tcp: the first port
    char remote[LUNA_SETTING_BYTES];  //  "": nobody from other machines
    char key_file[LUNA_SETTING_BYTES];
    char allowed_keys[LUNA_SETTING_BYTES];
    uint64_t ageing_ms;
    uint64_t stop_grace_ms;
    uint64_t vae_load_ms;
    //  [store]
    char state_dir[LUNA_SETTING_BYTES];
    char spool_dir[LUNA_SETTING_BYTES];
    uint64_t reserve_bytes;
    uint64_t warn_bytes;
    uint64_t ballast_bytes;
    uint64_t keep_ms;
    //  [limits]
    uint64_t max_job_bytes;
    uint64_t max_jobs;
    uint64_t max_queued_bytes;
    uint64_t max_client_jobs;
    uint64_t max_client_bytes;
    uint64_t max_held_bytes;
    //  [lease]
    uint64_t lease_ms;
    uint64_t ping_ms;
    uint64_t adopt_ms;
    uint64_t disconnect_grace_ms;
    uint64_t lost_limit;
    uint64_t refused_limit;
    uint64_t backoff_ms;
    uint64_t backoff_max_ms;
    uint64_t remember_ms;
    //  [http]
    char http_listen[LUNA_SETTING_BYTES];  //  "off": none
    char http_token_file[LUNA_SETTING_BYTES];
    //  [log]
    char log_level[LUNA_SETTING_BYTES];
} luna_settings;

extern const luna_config luna_settings_config;

//  Loads and checks. LUNA_CONFIG, LUNA_NOT_FOUND with a sentence. `path` NULL: the
//  usual place.
LUNA_MUST_USE luna_err luna_settings_load(const char *path, luna_settings *out);

//  Takes from `now` what may change while the broker runs. `fixed` gets the names of
//  other settings that differ, as "[store] spool_dir, [http] listen" or "".
//  Returns how many values changed.
size_t luna_settings_take(luna_settings *settings, const luna_settings *now, char *fixed,
                          size_t room);

#endif
