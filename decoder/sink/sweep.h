//  sweep.h - removing what nobody came back for
//
//  Used by files.c. Thread-safe, also beside puts: nothing younger than the age given
//  is touched.

#ifndef LUNA_SINK_SWEEP_H
#define LUNA_SINK_SWEEP_H

#include "decoder/sink/place.h"

//  Removes marks, the temporaries they point at, records and empty job folders that
//  were last written more than `older_than_ms` ago. LUNA_IO when a root is gone or its
//  `.luna` cannot be read; what else cannot be removed stays for the next sweep.
LUNA_MUST_USE luna_err luna_sweep(const luna_roots *roots, int64_t older_than_ms);

#endif
