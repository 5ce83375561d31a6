#include "decoder/vae/memory_plan.h"

#include <stdint.h>
#include <stdlib.h>

static bool same_time(const luna_span *a, const luna_span *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int larger_first(const void *a, const void *b)
{
    const luna_span *x = *(luna_span *const *)a, *y = *(luna_span *const *)b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return (x > y) - (x < y);
}

static size_t round_up(size_t bytes)
{
    return (bytes + LUNA_MEMORY_ALIGN - 1) / LUNA_MEMORY_ALIGN * LUNA_MEMORY_ALIGN;
}

//  The lowest offset where `span` meets none of the `placed` ones: whenever it does meet
//  one it moves up behind it, so the search ends after at most `placed` moves.
static size_t lowest_free(const luna_span *span, luna_span *const *order, size_t placed)
{
    size_t offset = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        for (size_t i = 0; i < placed; i++) {
            const luna_span *other = order[i];
            const size_t end = other->offset + round_up(other->bytes);
            if (!same_time(span, other) || offset >= end) continue;
            if (offset + round_up(span->bytes) <= other->offset) continue;
            offset = end;
            moved = true;
        }
    }
    return offset;
}

static bool sum_fits(const luna_span *spans, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (spans[i].bytes > SIZE_MAX / 2) return false;
        if (__builtin_add_overflow(sum, round_up(spans[i].bytes), &sum)) return false;
    }
    return true;
}

luna_err luna_memory_plan(luna_span *spans, size_t count, size_t *bytes)
{
    luna_span **order = malloc((count ? count : 1) * sizeof *order);
    if (!order || !sum_fits(spans, count)) {
        free(order);
        return luna_error(LUNA_NO_MEMORY,
                          "the decode needs more memory than can be counted");
    }
    for (size_t i = 0; i < count; i++) order[i] = &spans[i];
    qsort(order, count, sizeof *order, larger_first);
    *bytes = 0;
    for (size_t i = 0; i < count; i++) {
        order[i]->offset = lowest_free(order[i], order, i);
        const size_t end = order[i]->offset + round_up(order[i]->bytes);
        if (end > *bytes) *bytes = end;
    }
    free(order);
    return LUNA_OK;
}
