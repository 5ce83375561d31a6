//  worker.h - the parts of luna-decoder, put together and taken apart

#ifndef LUNA_WORKER_WORKER_H
#define LUNA_WORKER_WORKER_H

#include "decoder/worker/settings.h"

//  Serves until it is told to stop. Blocks the stopping signals for the whole process
//  and starts every thread; before that it tries the device out: LUNA_DEVICE when it
//  gives wrong pixels. Where cleaning up may not come to an end the process ends here:
//  with 0 when the time to stop is up while a decode runs, with 69 after the device
//  failed. The broker gives the jobs to another decoder.
LUNA_MUST_USE luna_err luna_worker_serve(const luna_decoder_settings *settings,
                                         luna_registry *registry);

#endif
