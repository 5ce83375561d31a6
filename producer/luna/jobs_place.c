//  Where the messages of jobs are, and what that costs in memory.

#include "producer/luna/jobs.h"

static bool in_memory(luna_body_place place)
{
    return place != LUNA_BODY_DISK && place != LUNA_BODY_GONE;
}

static bool kept(luna_body_place place)
{
    return place == LUNA_BODY_BOTH || place == LUNA_BODY_DISK ||
           place == LUNA_BODY_READING;
}

//  The memory of a new job has been reserved before.
static void count_memory(luna_jobs *jobs, const luna_entry *entry, luna_body_place place)
{
    if (in_memory(entry->place) && !in_memory(place)) jobs->memory_bytes -= entry->bytes;
    if (entry->place == LUNA_BODY_DISK && in_memory(place))
        jobs->memory_bytes += entry->bytes;
    if (kept(entry->place)) jobs->kept_bytes -= entry->bytes;
    if (kept(place)) jobs->kept_bytes += entry->bytes;
}

void luna_jobs_place(luna_jobs *jobs, luna_entry *entry, luna_body_place place)
{
    count_memory(jobs, entry, place);
    luna_list_remove(&jobs->place[entry->place], entry, luna_entry_by_place);
    entry->place = place;
    //  The oldest is written first and the latest leaves the memory first.
    if (place == LUNA_BODY_MEMORY || place == LUNA_BODY_BOTH)
        luna_list_sort_in(&jobs->place[place], entry, luna_entry_by_place);
    else
        luna_list_append(&jobs->place[place], entry, luna_entry_by_place);
}

bool luna_jobs_kept(const luna_entry *entry)
{
    return kept(entry->place);
}

size_t luna_jobs_kept_count(const luna_jobs *jobs)
{
    return jobs->place[LUNA_BODY_BOTH].count + jobs->place[LUNA_BODY_DISK].count +
           jobs->place[LUNA_BODY_READING].count;
}

//  ---- to the disk -----------------------------------------------------------------

luna_entry *luna_jobs_unkept(const luna_jobs *jobs)
{
    return jobs->place[LUNA_BODY_MEMORY].head;
}

void luna_jobs_writing(luna_jobs *jobs, luna_entry *entry)
{
    luna_jobs_place(jobs, entry, LUNA_BODY_WRITING);
}

void luna_jobs_written(luna_jobs *jobs, luna_entry *entry, bool good, bool again)
{
    const luna_body_place failed = again ? LUNA_BODY_MEMORY : LUNA_BODY_STAYS;
    luna_jobs_place(jobs, entry, good ? LUNA_BODY_BOTH : failed);
}

//  What is offered or under way keeps its memory: it would have to come back at once.
luna_buffer *luna_jobs_evict(luna_jobs *jobs, uint64_t bytes)
{
    luna_buffer *chain = NULL;
    luna_entry *entry = jobs->place[LUNA_BODY_BOTH].tail;
    if (bytes > jobs->max_bytes) return NULL;
    while (entry && jobs->memory_bytes > jobs->max_bytes - bytes) {
        luna_entry *before = entry->by_place.prev;
        if (entry->state == LUNA_ENTRY_QUEUED) {
            entry->body->next = chain;
            chain = entry->body;
            entry->body = NULL;
            luna_jobs_place(jobs, entry, LUNA_BODY_DISK);
        }
        entry = before;
    }
    return chain;
}

//  ---- and back --------------------------------------------------------------------

static bool fits(const luna_jobs *jobs, const luna_entry *entry)
{
    return entry->bytes <= jobs->max_bytes &&
           jobs->memory_bytes <= jobs->max_bytes - entry->bytes;
}

//  Whether reading this one is all that can bring things forward.
static bool stuck(const luna_jobs *jobs, const luna_entry *entry)
{
    return entry == luna_jobs_next(jobs) &&
           luna_jobs_count(jobs, LUNA_ENTRY_FLIGHT) == 0 &&
           jobs->place[LUNA_BODY_READING].count == 0;
}

luna_entry *luna_jobs_wanted(const luna_jobs *jobs, size_t ahead)
{
    luna_entry *entry = luna_jobs_next(jobs);
    for (; entry && ahead > 0; entry = entry->by_state.next, ahead--)
        if (entry->place == LUNA_BODY_DISK)
            return fits(jobs, entry) || stuck(jobs, entry) ? entry : NULL;
    return NULL;
}

void luna_jobs_reading(luna_jobs *jobs, luna_entry *entry)
{
    luna_jobs_place(jobs, entry, LUNA_BODY_READING);
}

void luna_jobs_read(luna_jobs *jobs, luna_entry *entry, luna_buffer *body)
{
    entry->body = body;
    luna_jobs_place(jobs, entry, body ? LUNA_BODY_BOTH : LUNA_BODY_DISK);
}
