//  job.c - places, marks of images, and a binary heap that knows where its jobs are

#include "broker/job.h"

#include <stdlib.h>

bool luna_place_is_pending(luna_job_place place)
{
    return place == LUNA_PLACE_WAITING || place == LUNA_PLACE_DEFERRED;
}

//  ---- images --------------------------------------------------------------------

//  Bits of one input after those of the inputs before it; every input has room for
//  all images while the batches are not known.
typedef struct luna_bits {
    uint64_t first;
    uint64_t count;
} luna_bits;

static luna_bits bits_of(const luna_job *job, uint64_t input)
{
    luna_bits bits = {0};
    uint64_t known = 0;
    for (uint64_t i = 0; i < LUNA_MAX_INPUTS; i++) {
        if (i < input) bits.first += job->batches[i];
        if (i == input) bits.count = job->batches[i];
        known += job->batches[i];
    }
    if (known || input >= LUNA_MAX_INPUTS) return bits;
    return (luna_bits){input * job->images, job->images};
}

static uint64_t bits_of_all(const luna_job *job)
{
    const luna_bits last = bits_of(job, LUNA_MAX_INPUTS - 1);
    return last.first + last.count;
}

bool luna_job_has_image(const luna_job *job, uint64_t input, uint64_t index)
{
    return index < bits_of(job, input).count;
}

bool luna_job_image_saved(const luna_job *job, uint64_t input, uint64_t index)
{
    if (!job->saved || !luna_job_has_image(job, input, index)) return false;
    const uint64_t bit = bits_of(job, input).first + index;
    return job->saved[bit / 8] >> (bit % 8) & 1;
}

static bool mark_one(luna_job *job, uint64_t input, uint64_t index)
{
    if (!luna_job_has_image(job, input, index)) return false;
    if (luna_job_image_saved(job, input, index)) return false;
    const uint64_t bit = bits_of(job, input).first + index;
    job->saved[bit / 8] |= (uint8_t)(1u << (bit % 8));
    job->images_done++;
    return true;
}

uint32_t luna_job_mark_saved(luna_job *job, const luna_msg_image *images, size_t count)
{
    uint32_t fresh = 0;
    if (count > 0 && !job->saved) job->saved = calloc(bits_of_all(job) / 8 + 1, 1);
    for (size_t i = 0; job->saved && i < count; i++)
        fresh += mark_one(job, images[i].input, images[i].index);
    return fresh;
}

//  ---- heaps ---------------------------------------------------------------------

bool luna_job_ranks_before(const luna_job *a, const luna_job *b)
{
    if (a->next_ms != b->next_ms) return a->next_ms > b->next_ms;
    return a->rank_ms != b->rank_ms ? a->rank_ms < b->rank_ms : a->order < b->order;
}

bool luna_job_wakes_before(const luna_job *a, const luna_job *b)
{
    return a->wake_ms < b->wake_ms;
}

bool luna_job_expires_before(const luna_job *a, const luna_job *b)
{
    return a->expires_ms < b->expires_ms;
}

luna_err luna_job_heap_reserve(luna_job_heap *heap, size_t count)
{
    if (count <= heap->room) return LUNA_OK;
    const size_t room = count < 32 ? 32 : count * 2;
    luna_job **at = realloc(heap->at, room * sizeof *at);
    if (!at) return luna_error(LUNA_NO_MEMORY, "no memory to queue %zu jobs", count);
    heap->at = at;
    heap->room = room;
    return LUNA_OK;
}

static void put(luna_job_heap *heap, size_t i, luna_job *job)
{
    heap->at[i] = job;
    job->heap_at[heap->kind] = i;
}

static void sift_up(luna_job_heap *heap, size_t i, luna_job *job)
{
    for (; i > 0 && heap->before(job, heap->at[(i - 1) / 2]); i = (i - 1) / 2)
        put(heap, i, heap->at[(i - 1) / 2]);
    put(heap, i, job);
}

static void sift_down(luna_job_heap *heap, size_t i, luna_job *job)
{
    for (size_t child; (child = 2 * i + 1) < heap->count; i = child) {
        if (child + 1 < heap->count && heap->before(heap->at[child + 1], heap->at[child]))
            child++;
        if (!heap->before(heap->at[child], job)) break;
        put(heap, i, heap->at[child]);
    }
    put(heap, i, job);
}

void luna_job_heap_push(luna_job_heap *heap, luna_job *job)
{
    sift_up(heap, heap->count++, job);
}

void luna_job_heap_remove(luna_job_heap *heap, luna_job *job)
{
    const size_t i = job->heap_at[heap->kind];
    luna_job *last = heap->at[--heap->count];
    if (last == job) return;
    if (i > 0 && heap->before(last, heap->at[(i - 1) / 2]))
        sift_up(heap, i, last);
    else
        sift_down(heap, i, last);
}

luna_job *luna_job_heap_first(const luna_job_heap *heap)
{
    return heap->count ? heap->at[0] : NULL;
}

void luna_job_heap_rebuild(luna_job_heap *heap)
{
    for (size_t i = heap->count / 2; i-- > 0;) sift_down(heap, i, heap->at[i]);
}
