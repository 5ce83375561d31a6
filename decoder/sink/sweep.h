//  sweep.h - removing what nobody came back for
//
//  Used by files.c. Thread-safe, also beside puts: of what is younger than the age given
//  only the temporaries of published images and of dead attempts are touched.

#ifndef LUNA_SINK_SWEEP_H
#define LUNA_SINK_SWEEP_H

#include "decoder/sink/publish.h"

//  Takes back what attempts left that died on this host without a record (withdraw.h), of
//  whatever age. Removes marks, the temporaries they point at, records and empty job
//  folders that were last written more than `older_than_ms` ago; of whatever age the
//  marks and temporaries of images that have a valid record, which a killed decoder or a
//  power cut left behind step 7 of files.h. LUNA_IO when a root is gone or its
//  `.luna` cannot be read; what else cannot be removed stays for the next sweep. It takes
//  about `most_ms` at most; jobs that it did not come to are counted.
LUNA_MUST_USE luna_err luna_sweep(const luna_files *files, int64_t older_than_ms,
                                  int64_t most_ms, luna_swept *swept);

#endif
