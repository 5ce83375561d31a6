//  alarm.c - what needs a person, in one sentence
//
//  Shown in every status; a change of it is one line in the log and an event.

#include "broker/loop.h"
#include "common/log.h"

#include <string.h>

static void find_alarm(luna_broker *b, char *out, size_t room)
{
    luna_store_condition_t store;
    luna_store_condition(b->store, &store);
    b->free_bytes = store.free_bytes;
    out[0] = '\0';
    if (store.alarm[0])
        snprintf(out, room, "%s", store.alarm);
    else if (store.free_bytes < b->settings->warn_bytes)
        snprintf(out, room,
                 "%llu MiB of disk are free below %.300s; with less than %llu MiB no job "
                 "is accepted",
                 (unsigned long long)store.free_bytes >> 20, b->settings->spool_dir,
                 (unsigned long long)b->settings->reserve_bytes >> 20);
}

//  Figures in the sentence change all the time; they alone are no news.
static bool is_news(const char *before, const char *now)
{
    for (;; before++, now++) {
        before += strspn(before, "0123456789");
        now += strspn(now, "0123456789");
        if (*before != *now) return true;
        if (!*before) return false;
    }
}

void luna_alarm_check(luna_broker *b)
{
    char now[sizeof b->alarm];
    find_alarm(b, now, sizeof now);
    const bool news = is_news(b->alarm, now);
    memcpy(b->alarm, now, sizeof now);
    if (!news) return;
    b->alarm_changes++;
    if (now[0])
        luna_log(LUNA_LOG_ERROR, "alarm", "detail=\"%s\"", now);
    else
        luna_log(LUNA_LOG_INFO, "alarm_cleared", "next=\"as before\"");
}
