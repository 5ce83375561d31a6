//  enter.c - a job of the store enters the scheduler: new, after a restart, retried

#include "broker/loop.h"
#include "common/clock.h"

#include <string.h>

//  The rest of a deadline is counted by the monotonic clock, so that a step of the
//  wall clock neither ends nor prolongs it while the broker runs. 0: none, or one that
//  no clock of ours reaches.
static int64_t expires_ms(const luna_msg_job_info *info, int64_t now_ms)
{
    int64_t at_ms;
    if (info->deadline_ms == 0 || info->deadline_ms > INT64_MAX) return 0;
    const int64_t left_ms = (int64_t)info->deadline_ms - luna_wall_ms();
    if (__builtin_add_overflow(now_ms, left_ms > 0 ? left_ms : 0, &at_ms)) return 0;
    return at_ms > 0 ? at_ms : 1;
}

luna_err luna_loop_enter(luna_broker *b, const luna_store_job *stored,
                         luna_job_place place, bool former, int64_t now_ms)
{
    const luna_msg_job_info *info = &stored->info;
    luna_entry entry = {.id = info->id,
                        .client = stored->client,
                        .priority = info->priority,
                        .created_ms = (int64_t)info->created_ms,
                        .accepted_ms = (int64_t)info->accepted_ms,
                        .started_ms = (int64_t)info->started_ms,
                        .expires_ms = expires_ms(info, now_ms),
                        .next_ms = (int64_t)stored->next_ms,
                        .bytes = info->bytes,
                        .images = info->images,
                        .vae = info->vae,
                        .formats = stored->formats,
                        .attempts = info->attempts,
                        .lost = info->lost,
                        .refused = info->refused,
                        .saved = info->files.items,
                        .saved_count = info->files.count,
                        .place = place,
                        .former = former};
    memcpy(entry.batches, stored->batches, sizeof entry.batches);
    return luna_scheduler_add(b->scheduler, &entry, now_ms);
}
