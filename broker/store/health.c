#include "broker/store/health.h"

#include "common/log.h"

#include <stdio.h>

void luna_health_start(luna_health *health)
{
    *health = (luna_health){.bad = false};
    pthread_mutex_init(&health->mutex, NULL);
}

void luna_health_stop(luna_health *health)
{
    pthread_mutex_destroy(&health->mutex);
}

void luna_health_spoil(luna_health *health)
{
    pthread_mutex_lock(&health->mutex);
    const bool first = !health->bad;
    health->bad = true;
    if (first) snprintf(health->why, sizeof health->why, "%s", luna_error_text());
    pthread_mutex_unlock(&health->mutex);
    if (first)
        luna_log(LUNA_LOG_ERROR, "store.read_only",
                 "error=\"%s\" next=\"no job is accepted until that is mended and the "
                 "broker started again\"",
                 luna_error_text());
}

luna_err luna_health_judge(luna_health *health, luna_err err)
{
    if (err == LUNA_IO) luna_health_spoil(health);
    return err;
}

bool luna_health_good(luna_health *health, char *why, size_t room)
{
    pthread_mutex_lock(&health->mutex);
    const bool good = !health->bad;
    if (!good && why) snprintf(why, room, "%s", health->why);
    pthread_mutex_unlock(&health->mutex);
    return good;
}
