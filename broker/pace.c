#include "broker/pace.h"

static const double weight = 1.0 / 8;

luna_pace luna_pace_start(void)
{
    return (luna_pace){.mean_ms = 100, .mean_bytes = 1 << 20};
}

static double bounded_ms(double ms)
{
    return ms < 0 ? 0 : ms > LUNA_PACE_MAX_MS ? LUNA_PACE_MAX_MS : ms;
}

void luna_pace_learn(luna_pace *pace, uint64_t bytes, int64_t ms)
{
    pace->mean_ms += (bounded_ms((double)ms) - pace->mean_ms) * weight;
    pace->mean_bytes += ((double)bytes - pace->mean_bytes) * weight;
}

int64_t luna_pace_predict_ms(const luna_pace *pace, uint64_t bytes)
{
    const double mean_bytes = pace->mean_bytes < 1 ? 1 : pace->mean_bytes;
    return (int64_t)bounded_ms((double)bytes * (pace->mean_ms / mean_bytes));
}
