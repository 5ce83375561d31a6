//  clock.h - the two clocks
//
//  Durations and deadlines use the monotonic clock, so that a step of the wall
//  clock never expires a lease. The wall clock is for people and file names.

#ifndef LUNA_COMMON_CLOCK_H
#define LUNA_COMMON_CLOCK_H

#include <pthread.h>
#include <stdint.h>

//  Nanoseconds or milliseconds since an unspecified start; never steps back.
int64_t luna_now_ns(void);
int64_t luna_now_ms(void);

//  A condition whose timed waits are measured by luna_now_ns.
void luna_clock_condition(pthread_cond_t *condition);

//  Milliseconds since 1970-01-01 UTC; may step.
int64_t luna_wall_ms(void);

//  Minutes that local time is ahead of UTC at the wall time `wall_ms`.
int luna_utc_offset_min(int64_t wall_ms);

#endif
