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

static void unlink_entry(luna_jobs *jobs, luna_entry *entry)
{
    luna_entry_list *list = &jobs->list[entry->state];
    *(entry->prev ? &entry->prev->next : &list->head) = entry->next;
    *(entry->next ? &entry->next->prev : &list->tail) = entry->prev;
    entry->prev = entry->next = NULL;
    list->count--;
}

static void append(luna_jobs *jobs, luna_entry *entry, luna_entry_state state)
{
    luna_entry_list *list = &jobs->list[state];
    entry->state = state;
    entry->prev = list->tail;
    *(list->tail ? &list->tail->next : &list->head) = entry;
    list->tail = entry;
    list->count++;
}

//  What comes back was sent before most of the queue: the walk is short.
static void insert_in_order(luna_jobs *jobs, luna_entry *entry)
{
    luna_entry_list *list = &jobs->list[LUNA_ENTRY_QUEUED];
    luna_entry *after = list->head;
    while (after && after->order < entry->order) after = after->next;
    if (!after) {
        append(jobs, entry, LUNA_ENTRY_QUEUED);
        return;
    }
    entry->state = LUNA_ENTRY_QUEUED;
    entry->next = after;
    entry->prev = after->prev;
    *(after->prev ? &after->prev->next : &list->head) = entry;
    after->prev = entry;
    list->count++;
}

static void entry_free(luna_entry *entry)
{
    luna_buffer_release(entry->body);
    free(entry->detail);
    free(entry);
}

static void forget(luna_jobs *jobs, luna_entry *entry)
{
    luna_entry **at = bucket_of(jobs, &entry->id);
    while (*at != entry) at = &(*at)->chain;
    *at = entry->chain;
    unlink_entry(jobs, entry);
    entry_free(entry);
}

void luna_jobs_clear(luna_jobs *jobs)
{
    for (int state = 0; state < 3; state++)
        while (jobs->list[state].head) forget(jobs, jobs->list[state].head);
}

luna_err luna_jobs_reserve(luna_jobs *jobs, uint64_t bytes)
{
    if (bytes > jobs->max_bytes)
        return luna_error(LUNA_TOO_LARGE,
                          "the job has %llu bytes, more than the client's whole queue of "
                          "%llu: raise queue_bytes or split the batch",
                          (unsigned long long)bytes, (unsigned long long)jobs->max_bytes);
    if (bytes > jobs->max_bytes - jobs->bytes)
        return luna_error(LUNA_BUSY,
                          "the queue holds %zu jobs without a receipt, its bound of %llu "
                          "bytes is reached: wait until the broker has taken some",
                          luna_jobs_unsettled(jobs), (unsigned long long)jobs->max_bytes);
    jobs->bytes += bytes;
    return LUNA_OK;
}

void luna_jobs_unreserve(luna_jobs *jobs, uint64_t bytes)
{
    jobs->bytes -= bytes;
}

luna_err luna_jobs_add(luna_jobs *jobs, luna_entry *entry)
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
    entry->order = jobs->submitted++;
    append(jobs, entry, LUNA_ENTRY_QUEUED);
    return LUNA_OK;
}

luna_entry *luna_jobs_next(const luna_jobs *jobs)
{
    return jobs->list[LUNA_ENTRY_QUEUED].head;
}

size_t luna_jobs_flying(const luna_jobs *jobs)
{
    return jobs->list[LUNA_ENTRY_FLIGHT].count;
}

size_t luna_jobs_unsettled(const luna_jobs *jobs)
{
    return jobs->list[LUNA_ENTRY_QUEUED].count + jobs->list[LUNA_ENTRY_FLIGHT].count;
}

void luna_jobs_sent(luna_jobs *jobs, luna_entry *entry, int64_t now_ms)
{
    unlink_entry(jobs, entry);
    entry->sendings++;
    entry->deadline_ms =
        now_ms + entry->timeout_ms + (int64_t)(entry->bytes / SLOW_BYTES_PER_MS);
    append(jobs, entry, LUNA_ENTRY_FLIGHT);
}

void luna_jobs_again(luna_jobs *jobs, luna_entry *entry)
{
    if (entry->state != LUNA_ENTRY_FLIGHT) return;
    unlink_entry(jobs, entry);
    insert_in_order(jobs, entry);
}

void luna_jobs_again_all(luna_jobs *jobs)
{
    while (jobs->list[LUNA_ENTRY_FLIGHT].tail)
        luna_jobs_again(jobs, jobs->list[LUNA_ENTRY_FLIGHT].tail);
}

size_t luna_jobs_overdue(luna_jobs *jobs, int64_t now_ms, int64_t max_wait_ms)
{
    size_t count = 0;
    luna_entry *entry = jobs->list[LUNA_ENTRY_FLIGHT].tail;
    while (entry) {
        luna_entry *before = entry->prev;
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

int64_t luna_jobs_deadline(const luna_jobs *jobs)
{
    int64_t earliest = INT64_MAX;
    for (const luna_entry *e = jobs->list[LUNA_ENTRY_FLIGHT].head; e; e = e->next)
        if (e->deadline_ms < earliest) earliest = e->deadline_ms;
    return earliest;
}

luna_buffer *luna_jobs_settle(luna_jobs *jobs, luna_entry *entry, luna_err error,
                              const char *detail)
{
    luna_buffer *body = entry->body;
    entry->body = NULL;
    jobs->bytes -= entry->bytes;
    entry->error = error;
    entry->detail = error != LUNA_OK && detail ? strdup(detail) : NULL;
    unlink_entry(jobs, entry);
    append(jobs, entry, LUNA_ENTRY_SETTLED);
    if (jobs->list[LUNA_ENTRY_SETTLED].count > LUNA_SETTLED_MAX)
        forget(jobs, jobs->list[LUNA_ENTRY_SETTLED].head);
    return body;
}
