#include "decoder/vae/memory_plan.h"

#include <stdint.h>
#include <stdlib.h>

//  A span while its size stays the same.
typedef struct phase {
    size_t first;
    size_t last;
    size_t bytes;
} phase;

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

static size_t phases_of(const luna_span *span, phase out[2])
{
    const bool shrinks = span->shrinks > span->first && span->shrinks <= span->last;
    out[0] = (phase){span->first, span->last, round_up(span->bytes)};
    if (!shrinks) return 1;
    out[0].last = span->shrinks - 1;
    out[1] = (phase){span->shrinks, span->last, round_up(span->later_bytes)};
    return 2;
}

//  Where `span` at `offset` no longer meets `other`: `offset` itself, or behind it.
static size_t beyond(const luna_span *span, size_t offset, const luna_span *other)
{
    phase mine[2], its[2];
    const size_t mine_count = phases_of(span, mine), its_count = phases_of(other, its);
    for (size_t i = 0; i < mine_count; i++)
        for (size_t k = 0; k < its_count; k++) {
            const size_t end = other->offset + its[k].bytes;
            const bool at_once =
                mine[i].first <= its[k].last && its[k].first <= mine[i].last;
            if (at_once && offset < end && offset + mine[i].bytes > other->offset)
                offset = end;
        }
    return offset;
}

//  The lowest offset where `span` meets none of the `placed` ones: whenever it does meet
//  one it moves up behind it, so the search ends.
static size_t lowest_free(const luna_span *span, luna_span *const *order, size_t placed)
{
    size_t offset = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        for (size_t i = 0; i < placed; i++) {
            const size_t next = beyond(span, offset, order[i]);
            moved = moved || next != offset;
            offset = next;
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
