//  reload.c - SIGHUP: the settings are read again
//
//  What may change does so at once; the rest is named in the log and waits for a
//  restart. Settings that are wrong change nothing.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/notify.h"

#include <stdlib.h>

static void apply(luna_broker *b)
{
    luna_log_level level;
    const luna_rules rules = luna_loop_rules(b->settings);
    luna_scheduler_set_rules(b->scheduler, &rules);
    if (luna_log_level_parse(b->settings->log_level, &level) == LUNA_OK)
        luna_log_set_level(level);
    luna_intake_pace(b);
}

static void take(luna_broker *b, const luna_settings *now)
{
    char fixed[1024];
    const size_t changed = luna_settings_take(b->settings, now, fixed, sizeof fixed);
    apply(b);
    luna_log(LUNA_LOG_INFO, "reloaded", "changed=%zu", changed);
    if (fixed[0])
        luna_log(LUNA_LOG_WARNING, "reload_incomplete",
                 "settings=\"%s\" next=\"they change when the broker is started again\"",
                 fixed);
}

void luna_reload(luna_broker *b)
{
    luna_notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)luna_now_ns() / 1000);
    luna_settings *now = malloc(sizeof *now);
    const luna_err err = now ? luna_settings_load(b->config, now)
                             : luna_error(LUNA_NO_MEMORY, "no memory for the settings");
    if (err == LUNA_OK)
        take(b, now);
    else
        luna_log(LUNA_LOG_ERROR, "reload_refused",
                 "err=%s detail=\"%s\" next=\"the settings stay as they are\"",
                 luna_err_name(err), luna_error_text());
    free(now);
    luna_notify("READY=1");
}
