//  thread.h - threads that leave the program's signals alone

#ifndef LUNA_BROKER_HTTP_THREAD_H
#define LUNA_BROKER_HTTP_THREAD_H

#include "common/err.h"

#include <pthread.h>
#include <signal.h>

//  Blocks every signal for the calling thread and the threads it starts; *before is
//  for luna_http_signals_restore.
void luna_http_signals_block(sigset_t *before);
void luna_http_signals_restore(const sigset_t *before);

//  Starts a thread with all signals blocked. LUNA_UNAVAILABLE.
LUNA_MUST_USE luna_err luna_http_thread(void *(*run)(void *), void *context,
                                        pthread_t *out);

#endif
