//  worker.h - the parts of luna-decoder, put together and taken apart

#ifndef LUNA_WORKER_WORKER_H
#define LUNA_WORKER_WORKER_H

#include "decoder/worker/settings.h"

//  Serves until it is told to stop. Blocks the stopping signals for the whole process
//  and starts every thread. *exit_code is set on LUNA_OK: 0, or 69 after a failure of
//  the device. When the time to stop is up while a decode runs, the process ends here,
//  with 0: nothing is lost by it, the broker gives the job to another decoder.
LUNA_MUST_USE luna_err luna_worker_serve(const luna_decoder_settings *settings,
                                         luna_registry *registry, int *exit_code);

#endif
