#include "broker/http/http.h"

#include "broker/http/connection.h"
#include "broker/http/listen.h"
#include "broker/http/thread.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

//  Headers, and the piece of a body that is handed over at a time, for a connection.
#define CONNECTION_BYTES (128U << 10)
#define LINGER_MS        1000
#define MIN_HELD_BYTES   (1U << 20)  //  small messages need room too

struct luna_http {
    luna_http_core core;
    luna_listener listener;
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    size_t active;  //  under the lock: requests that are not answered
};

luna_http_options luna_http_options_default(void)
{
    return (luna_http_options){.listen = "127.0.0.1:19284",
                               .control = "inproc://luna-control",
                               .intake = "inproc://luna-intake",
                               .version = LUNA_VERSION,
                               .max_body_bytes = (size_t)256 << 20,
                               .connections = 256,
                               .answer_ms = 15000,
                               .idle_s = 30,
                               .upload_ms = 300000};
}

//  ---- callbacks that keep count ---------------------------------------------------

static void count(luna_http *http, bool more)
{
    pthread_mutex_lock(&http->lock);
    http->active = more ? http->active + 1 : http->active - 1;
    if (http->active == 0) pthread_cond_signal(&http->idle);
    pthread_mutex_unlock(&http->lock);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *url, const char *method,
                                  const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **exchange)
{
    luna_http *http = context;
    const bool fresh = *exchange == NULL;
    const enum MHD_Result result =
        luna_connection_take(&http->core, connection, url, method, version, upload_data,
                             upload_data_size, exchange);
    if (fresh && *exchange) count(http, true);
    return result;
}

static void on_completed(void *context, struct MHD_Connection *connection,
                         void **exchange, enum MHD_RequestTerminationCode why)
{
    luna_http *http = context;
    const bool counted = *exchange != NULL;
    luna_connection_end(&http->core, connection, exchange, why);
    if (counted) count(http, false);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *context,
                                                         const char *format, va_list args)
{
    char line[512];
    (void)context;
    if (vsnprintf(line, sizeof line, format, args) > 0)
        luna_log(LUNA_LOG_DEBUG, "http_server", "%s", line);
}

//  ---- start -----------------------------------------------------------------------

static luna_err start_daemon(luna_http *http, const luna_http_options *options)
{
    sigset_t before;
    luna_http_signals_block(&before);  //  the daemon's thread inherits the mask
    http->daemon = MHD_start_daemon(
        MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, http->listener.fd, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, http, MHD_OPTION_CONNECTION_LIMIT, options->connections,
        MHD_OPTION_CONNECTION_TIMEOUT, options->idle_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
    luna_http_signals_restore(&before);
    if (!http->daemon)
        return luna_error(LUNA_UNAVAILABLE, "the HTTP server does not start on %s",
                          http->listener.address);
    http->listener.fd = -1;  //  the daemon closes it
    return LUNA_OK;
}

//  A body and the message made of it are held at the same time, so a limit below twice
//  a body would refuse the largest for ever.
static size_t held_limit(const luna_http_options *options)
{
    size_t four;
    if (options->max_held_bytes) return options->max_held_bytes;
    if (__builtin_mul_overflow(options->max_body_bytes, (size_t)4, &four))
        return SIZE_MAX;
    return four > MIN_HELD_BYTES ? four : MIN_HELD_BYTES;
}

static luna_err fill_core(luna_http *http, const luna_http_options *options)
{
    luna_http_core *core = &http->core;
    const bool token = options->token && options->token[0];
    core->max_body_bytes = options->max_body_bytes;
    core->upload_ms = options->upload_ms;
    core->check_host = !token;
    core->held = luna_held_new(held_limit(options));
    core->version = strdup(options->version ? options->version : "");
    core->token = token ? strdup(options->token) : NULL;
    if (core->held && core->version && (core->token || !token)) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "no memory for the HTTP server");
}

static luna_err start_all(luna_http *http, const luna_http_options *options)
{
    LUNA_TRY(fill_core(http, options));
    LUNA_TRY(luna_listen(options->listen, !http->core.token, &http->listener));
    LUNA_TRY(luna_bridge_start(options, &http->core.bridge));
    return start_daemon(http, options);
}

luna_err luna_http_start(const luna_http_options *options, luna_http **out)
{
    luna_http *http = calloc(1, sizeof *http);
    if (!http) return luna_error(LUNA_NO_MEMORY, "no memory for the HTTP server");
    http->listener.fd = -1;
    pthread_mutex_init(&http->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&http->idle, &attr);
    pthread_condattr_destroy(&attr);
    const luna_err err = start_all(http, options);
    if (err != LUNA_OK) {
        luna_http_stop(&http);
        return err;
    }
    luna_log(LUNA_LOG_INFO, "http_listening", "address=%s", http->listener.address);
    *out = http;
    return LUNA_OK;
}

const char *luna_http_address(const luna_http *http)
{
    return http->listener.address;
}

//  ---- stop ------------------------------------------------------------------------

static void wait_idle(luna_http *http)
{
    const int64_t until_ns = luna_now_ns() + (int64_t)LINGER_MS * 1000000;
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                                   .tv_nsec = (long)(until_ns % 1000000000)};
    int code = 0;
    pthread_mutex_lock(&http->lock);
    while (http->active > 0 && code == 0)
        code = pthread_cond_timedwait(&http->idle, &http->lock, &until);
    pthread_mutex_unlock(&http->lock);
}

//  The bridge first: it resumes every suspended request, which the daemon needs.
static void stop_daemon(luna_http *http)
{
    const MHD_socket fd = MHD_quiesce_daemon(http->daemon);
    luna_bridge_stop(http->core.bridge);
    wait_idle(http);
    MHD_stop_daemon(http->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
}

void luna_http_stop(luna_http **http)
{
    luna_http *h = *http;
    if (!h) return;
    *http = NULL;
    if (h->daemon) stop_daemon(h);
    luna_bridge_free(h->core.bridge);
    if (h->listener.fd >= 0) close(h->listener.fd);
    if (h->core.held) luna_held_drop(h->core.held);
    pthread_cond_destroy(&h->idle);
    pthread_mutex_destroy(&h->lock);
    free(h->core.version);
    free(h->core.token);
    free(h);
}
