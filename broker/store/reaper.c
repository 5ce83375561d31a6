#include "broker/store/reaper.h"

#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <time.h>

enum { PUT_OFF_MS = 100, TOGETHER_MAX = 256 };

static void remove_one(const luna_reaper *reaper, const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    if (luna_spool_remove(reaper->spool, id) == LUNA_OK) return;
    luna_id_text(id, text);
    luna_log(LUNA_LOG_WARNING, "spool.leftover",
             "job=%s error=\"%s\" next=\"removed at the next start\"", text,
             luna_error_text());
}

static void remove_all(luna_reaper *reaper, luna_id *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) remove_one(reaper, &ids[i]);
    free(ids);
}

static bool is_due(const luna_reaper *reaper)
{
    return reaper->stopping || reaper->hurried || reaper->count >= TOGETHER_MAX;
}

//  The mutex is held.
static void put_off(luna_reaper *reaper)
{
    const int64_t due_ns = luna_now_ns() + (int64_t)PUT_OFF_MS * 1000000;
    const struct timespec due = {.tv_sec = due_ns / 1000000000,
                                 .tv_nsec = due_ns % 1000000000};
    int rc = 0;
    while (!is_due(reaper) && rc == 0)
        rc = pthread_cond_timedwait(&reaper->changed, &reaper->mutex, &due);
}

static void *reap(void *argument)
{
    luna_reaper *reaper = argument;
    pthread_mutex_lock(&reaper->mutex);
    for (;;) {
        while (reaper->count == 0 && !reaper->stopping)
            pthread_cond_wait(&reaper->changed, &reaper->mutex);
        if (reaper->count == 0) break;
        put_off(reaper);
        luna_id *ids = reaper->ids;
        const size_t count = reaper->count;
        reaper->ids = NULL;
        reaper->count = reaper->room = 0;
        reaper->busy = true;
        pthread_mutex_unlock(&reaper->mutex);
        remove_all(reaper, ids, count);
        pthread_mutex_lock(&reaper->mutex);
        reaper->busy = false;
        pthread_cond_broadcast(&reaper->changed);
    }
    pthread_mutex_unlock(&reaper->mutex);
    return NULL;
}

luna_err luna_reaper_start(luna_reaper *reaper, const luna_spool *spool)
{
    *reaper = (luna_reaper){.spool = spool};
    pthread_mutex_init(&reaper->mutex, NULL);
    luna_clock_condition(&reaper->changed);
    if (pthread_create(&reaper->thread, NULL, reap, reaper) == 0) return LUNA_OK;
    pthread_cond_destroy(&reaper->changed);
    pthread_mutex_destroy(&reaper->mutex);
    return luna_error(LUNA_NO_MEMORY, "cannot start a thread of the store");
}

static bool make_room(luna_reaper *reaper)
{
    if (reaper->count < reaper->room) return true;
    const size_t room = reaper->room ? 2 * reaper->room : 64;
    luna_id *ids = realloc(reaper->ids, room * sizeof *ids);
    if (!ids) return false;
    reaper->ids = ids;
    reaper->room = room;
    return true;
}

void luna_reaper_add(luna_reaper *reaper, const luna_id *id)
{
    pthread_mutex_lock(&reaper->mutex);
    const bool fits = make_room(reaper);
    if (fits) reaper->ids[reaper->count++] = *id;
    pthread_cond_broadcast(&reaper->changed);
    pthread_mutex_unlock(&reaper->mutex);
    if (!fits) remove_one(reaper, id);
}

void luna_reaper_drain(luna_reaper *reaper)
{
    pthread_mutex_lock(&reaper->mutex);
    reaper->hurried = true;
    pthread_cond_broadcast(&reaper->changed);
    while (reaper->count > 0 || reaper->busy)
        pthread_cond_wait(&reaper->changed, &reaper->mutex);
    reaper->hurried = false;
    pthread_mutex_unlock(&reaper->mutex);
}

void luna_reaper_stop(luna_reaper *reaper)
{
    pthread_mutex_lock(&reaper->mutex);
    reaper->stopping = true;
    pthread_cond_broadcast(&reaper->changed);
    pthread_mutex_unlock(&reaper->mutex);
    pthread_join(reaper->thread, NULL);
    pthread_cond_destroy(&reaper->changed);
    pthread_mutex_destroy(&reaper->mutex);
}
