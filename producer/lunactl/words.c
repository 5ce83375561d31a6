#include "producer/lunactl/lunactl.h"

#include "common/clock.h"

#include <string.h>

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

luna_style luna_ctl_state_style(const char *state)
{
    if (is(state, "completed") || is(state, "ready")) return LUNA_STYLE_GOOD;
    if (is(state, "failed") || is(state, "lost")) return LUNA_STYLE_BAD;
    if (is(state, "cancelled") || is(state, "draining")) return LUNA_STYLE_WARN;
    return LUNA_STYLE_PLAIN;
}

static uint64_t state_since_ms(const luna_job *job)
{
    if (is(job->state, "pending")) return job->accepted_ms;
    if (is(job->state, "in_progress")) return job->started_ms;
    return job->finished_ms;
}

void luna_ctl_job_age(const luna_job *job, char out[LUNA_AMOUNT_BYTES])
{
    const int64_t since_ms = (int64_t)state_since_ms(job);
    const int64_t age_ms = luna_wall_ms() - since_ms;
    out[0] = '\0';
    if (since_ms) luna_duration_short(age_ms > 0 ? (uint64_t)age_ms : 0, out);
}

void luna_ctl_job_turn(const luna_job *job, char out[LUNA_AMOUNT_BYTES])
{
    if (job->next && is(job->state, "pending"))
        snprintf(out, LUNA_AMOUNT_BYTES, "next");
    else
        snprintf(out, LUNA_AMOUNT_BYTES, "%llu", (unsigned long long)job->priority);
}

const char *luna_ctl_vae_name(const char *vae)
{
    const char *slash = strrchr(vae, '/');
    return slash ? slash + 1 : vae;
}

void luna_ctl_count(uint64_t count, const char *what, char out[LUNA_AMOUNT_BYTES])
{
    snprintf(out, LUNA_AMOUNT_BYTES, "%llu %s%s", (unsigned long long)count, what,
             count == 1 ? "" : "s");
}

void luna_ctl_print_health(luna_page *page, const luna_status *status)
{
    if (status->alarm[0])
        luna_page_field(page, "ALARM", LUNA_STYLE_BAD, "%s", status->alarm);
    if (status->paused)
        luna_page_field(page, "PAUSED", LUNA_STYLE_WARN,
                        "no attempt is started; lunactl resume goes on");
    const bool accepting = is(status->accepting, "yes");
    luna_page_field(page, "accepting", accepting ? LUNA_STYLE_GOOD : LUNA_STYLE_BAD,
                    accepting ? "%s" : "no: %s", status->accepting);
}
