#include "producer/luna/jobs.h"

#include <stdlib.h>
#include <string.h>

//  A large job takes longer to arrive: 1 ms more for each 4 KiB (4 MB/s).
#define SLOW_BYTES_PER_MS 4096

void luna_jobs_init(luna_jobs *jobs, uint64_t max_bytes)
{
    memset(jobs, 0, sizeof *jobs);
    jobs->max_bytes = max_bytes;
}

//  ---- the table -------------------------------------------------------------------

//  UUIDv7 differ most in their last bytes.
static luna_entry **bucket_of(luna_jobs *jobs, const luna_id *id)
{
    const size_t hash = ((size_t)id->byte[14] << 8 | id->byte[15]) ^
                        ((size_t)id->byte[6] << 8 | id->byte[7]);
    return &jobs->bucket[hash % LUNA_BUCKETS];
}

luna_entry *luna_jobs_find(const luna_jobs *jobs, const luna_id *id)
{
    luna_entry *entry = *bucket_of((luna_jobs *)jobs, id);
    while (entry && luna_id_compare(&entry->id, id) != 0) entry = entry->chain;
    return entry;
}

static void leave_state(luna_jobs *jobs, luna_entry *entry)
{
    luna_list_remove(&jobs->state[entry->state], entry, luna_entry_by_state);
}

//  The queue is sorted by submission, the other lists by the time of entry.
static void enter_state(luna_jobs *jobs, luna_entry *entry, luna_entry_state state)
{
    luna_entry_list *list = &jobs->state[state];
    entry->state = state;
    if (state == LUNA_ENTRY_QUEUED)
        luna_list_sort_in(list, entry, luna_entry_by_state);
    else
        luna_list_append(list, entry, luna_entry_by_state);
}

static void forget(luna_jobs *jobs, luna_entry *entry)
{
    luna_entry **at = bucket_of(jobs, &entry->id);
    while (*at != entry) at = &(*at)->chain;
    *at = entry->chain;
    leave_state(jobs, entry);
    luna_list_remove(&jobs->place[entry->place], entry, luna_entry_by_place);
    luna_entry_free(entry);
}

void luna_jobs_clear(luna_jobs *jobs)
{
    for (int state = 0; state < LUNA_ENTRY_STATES; state++)
        while (jobs->state[state].head) forget(jobs, jobs->state[state].head);
}

luna_err luna_jobs_reserve(luna_jobs *jobs, uint64_t bytes)
{
    if (bytes > jobs->max_bytes)
        return luna_error(LUNA_TOO_LARGE,
                          "the job has %llu bytes, more than the client's whole queue of "
                          "%llu: raise queue_bytes or split the batch",
                          (unsigned long long)bytes, (unsigned long long)jobs->max_bytes);
    //  What was read back may have taken it over its bound.
    if (jobs->memory_bytes > jobs->max_bytes - bytes)
        return luna_error(LUNA_BUSY,
                          "the queue holds %zu jobs without a receipt, its bound of %llu "
                          "bytes is reached: wait until the broker has taken some",
                          luna_jobs_unsettled(jobs), (unsigned long long)jobs->max_bytes);
    jobs->memory_bytes += bytes;
    jobs->bytes += bytes;
    return LUNA_OK;
}

void luna_jobs_unreserve(luna_jobs *jobs, uint64_t bytes)
{
    jobs->memory_bytes -= bytes;
    jobs->bytes -= bytes;
}

static luna_err enter(luna_jobs *jobs, luna_entry *entry, luna_body_place place)
{
    luna_entry *old = luna_jobs_find(jobs, &entry->id);
    if (old && (old->state != LUNA_ENTRY_SETTLED || old->error == LUNA_OK)) {
        char id[LUNA_ID_TEXT_BYTES];
        luna_id_text(&entry->id, id);
        return luna_error(LUNA_EXISTS, "a job %s was submitted before", id);
    }
    if (old) forget(jobs, old);
    luna_entry **bucket = bucket_of(jobs, &entry->id);
    entry->chain = *bucket;
    *bucket = entry;
    enter_state(jobs, entry, LUNA_ENTRY_QUEUED);
    entry->place = LUNA_BODY_GONE;
    luna_list_append(&jobs->place[LUNA_BODY_GONE], entry, luna_entry_by_place);
    luna_jobs_place(jobs, entry, place);
    return LUNA_OK;
}

luna_err luna_jobs_add(luna_jobs *jobs, luna_entry *entry)
{
    entry->order = jobs->next_order;
    LUNA_TRY(enter(jobs, entry, LUNA_BODY_MEMORY));
    jobs->next_order++;
    return LUNA_OK;
}

luna_err luna_jobs_restore(luna_jobs *jobs, luna_entry *entry)
{
    LUNA_TRY(enter(jobs, entry, LUNA_BODY_DISK));
    jobs->bytes += entry->bytes;
    if (jobs->next_order <= entry->order) jobs->next_order = entry->order + 1;
    return LUNA_OK;
}

//  ---- the way of a job ------------------------------------------------------------

luna_entry *luna_jobs_next(const luna_jobs *jobs)
{
    return jobs->state[LUNA_ENTRY_QUEUED].head;
}

size_t luna_jobs_count(const luna_jobs *jobs, luna_entry_state state)
{
    return jobs->state[state].count;
}

size_t luna_jobs_unsettled(const luna_jobs *jobs)
{
    return luna_jobs_count(jobs, LUNA_ENTRY_QUEUED) +
           luna_jobs_count(jobs, LUNA_ENTRY_OFFERED) +
           luna_jobs_count(jobs, LUNA_ENTRY_FLIGHT);
}

void luna_jobs_sent(luna_jobs *jobs, luna_entry *entry, int64_t now_ms)
{
    leave_state(jobs, entry);
    entry->sendings++;
    entry->granted = false;
    entry->deadline_ms =
        now_ms + entry->timeout_ms + (int64_t)(entry->bytes / SLOW_BYTES_PER_MS);
    enter_state(jobs, entry, LUNA_ENTRY_FLIGHT);
}

void luna_jobs_offered(luna_jobs *jobs, luna_entry *entry, int64_t now_ms)
{
    leave_state(jobs, entry);
    entry->deadline_ms = now_ms + entry->timeout_ms;
    enter_state(jobs, entry, LUNA_ENTRY_OFFERED);
}

void luna_jobs_grant(luna_jobs *jobs, luna_entry *entry)
{
    if (entry->state == LUNA_ENTRY_OFFERED) luna_jobs_again(jobs, entry);
    entry->granted = entry->state == LUNA_ENTRY_QUEUED;
}

void luna_jobs_again(luna_jobs *jobs, luna_entry *entry)
{
    entry->granted = false;
    if (entry->state != LUNA_ENTRY_OFFERED && entry->state != LUNA_ENTRY_FLIGHT) return;
    leave_state(jobs, entry);
    enter_state(jobs, entry, LUNA_ENTRY_QUEUED);
}

static const luna_entry_state waiting[] = {LUNA_ENTRY_OFFERED, LUNA_ENTRY_FLIGHT};

void luna_jobs_again_all(luna_jobs *jobs)
{
    for (luna_entry *e = jobs->state[LUNA_ENTRY_QUEUED].head; e; e = e->by_state.next)
        e->granted = false;
    for (size_t i = 0; i < 2; i++)
        while (jobs->state[waiting[i]].tail)
            luna_jobs_again(jobs, jobs->state[waiting[i]].tail);
}

static size_t overdue(luna_jobs *jobs, luna_entry *entry, int64_t now_ms,
                      int64_t max_wait_ms)
{
    size_t count = 0;
    while (entry) {
        luna_entry *before = entry->by_state.prev;
        if (entry->deadline_ms <= now_ms) {
            entry->timeout_ms =
                entry->timeout_ms < max_wait_ms / 2 ? entry->timeout_ms * 2 : max_wait_ms;
            luna_jobs_again(jobs, entry);
            count++;
        }
        entry = before;
    }
    return count;
}

size_t luna_jobs_overdue(luna_jobs *jobs, int64_t now_ms, int64_t max_wait_ms)
{
    size_t count = 0;
    for (size_t i = 0; i < 2; i++)
        count += overdue(jobs, jobs->state[waiting[i]].tail, now_ms, max_wait_ms);
    return count;
}

int64_t luna_jobs_deadline(const luna_jobs *jobs)
{
    int64_t earliest = INT64_MAX;
    for (size_t i = 0; i < 2; i++)
        for (const luna_entry *e = jobs->state[waiting[i]].head; e; e = e->by_state.next)
            if (e->deadline_ms < earliest) earliest = e->deadline_ms;
    return earliest;
}

luna_buffer *luna_jobs_settle(luna_jobs *jobs, luna_entry *entry, luna_err error,
                              const char *detail)
{
    luna_buffer *body = entry->body;
    entry->body = NULL;
    entry->error = error;
    entry->detail = error != LUNA_OK && detail ? strdup(detail) : NULL;
    jobs->bytes -= entry->bytes;
    luna_jobs_place(jobs, entry, LUNA_BODY_GONE);
    leave_state(jobs, entry);
    enter_state(jobs, entry, LUNA_ENTRY_SETTLED);
    if (luna_jobs_count(jobs, LUNA_ENTRY_SETTLED) > LUNA_SETTLED_MAX)
        forget(jobs, jobs->state[LUNA_ENTRY_SETTLED].head);
    return body;
}
