#include "decoder/vae/memory_budget.h"

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t luna_memory_budget(size_t free_bytes, size_t total_bytes)
{
    const size_t smallest = (size_t)512 << 20, largest = (size_t)2 << 30;
    size_t reserve = least(total_bytes / 16, largest);
    if (reserve < smallest) reserve = smallest;
    reserve = least(reserve, free_bytes / 4);
    return free_bytes > reserve ? free_bytes - reserve : 1;
}

size_t luna_sub_batch(size_t limit, size_t fixed, size_t each, size_t wanted)
{
    if (wanted == 0) return 1;
    if (limit == 0 || each == 0) return wanted;
    const size_t fit = limit > fixed ? (limit - fixed) / each : 0;
    return fit == 0 ? 1 : least(fit, wanted);
}
