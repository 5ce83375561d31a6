//  pace.h - how long decoders take for bytes, learned from what they have done
//
//      pace = mean time of recent attempts / mean bytes of the same attempts
//
//  Both means are exponentially weighted (1/8 for the latest). The ratio of the means
//  and not the mean of the ratios: small jobs, which take long for a byte, do not make
//  large ones look dear, and the sum of all predictions is the sum of all times.

#ifndef LUNA_BROKER_PACE_H
#define LUNA_BROKER_PACE_H

#include <stdint.h>

#define LUNA_PACE_MAX_MS 600000  //  no prediction and no sample is longer: 10 minutes

typedef struct luna_pace {
    double mean_ms;
    double mean_bytes;
} luna_pace;

//  Before anything was learned: 100 ms for a MiB.
luna_pace luna_pace_start(void);

//  One attempt got through `bytes` in `ms`.
void luna_pace_learn(luna_pace *pace, uint64_t bytes, int64_t ms);

//  What one decoder needs for `bytes`, 0 to LUNA_PACE_MAX_MS.
int64_t luna_pace_predict_ms(const luna_pace *pace, uint64_t bytes);

#endif
