#include "broker/http/thread.h"

#include <errno.h>

void luna_http_signals_block(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

void luna_http_signals_restore(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

luna_err luna_http_thread(void *(*run)(void *), void *context, pthread_t *out)
{
    sigset_t before;
    luna_http_signals_block(&before);
    const int code = pthread_create(out, NULL, run, context);
    luna_http_signals_restore(&before);
    if (code == 0) return LUNA_OK;
    errno = code;
    return luna_error_errno(LUNA_UNAVAILABLE, "no thread can be started");
}
