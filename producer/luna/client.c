#define _GNU_SOURCE  //  SCHED_BATCH

#include "producer/luna/client.h"

#include "common/clock.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void luna_options_init(luna_options *options)
{
    *options = (luna_options){.name = "libluna",
                              .queue_bytes = 256U << 20,
                              .pool_bytes = 64U << 20,
                              .warm_bytes = 8U << 20,
                              .receipt_timeout_ms = 5000,
                              .receipt_timeout_max_ms = 30000,
                              .outbox_bytes = (uint64_t)4 << 30,
                              .outbox_after_ms = 1000};
}

luna_err luna_client_check(const luna_client *client)
{
    if (!client) return luna_error(LUNA_USAGE, "the client is NULL");
    if (client->pid == getpid()) return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED,
                      "this client was made before a fork: make one in the child");
}

luna_err luna_job_id(const char *text, luna_id *id)
{
    if (!text) return luna_error(LUNA_USAGE, "the job id is NULL");
    if (luna_id_parse(text, id) == LUNA_OK) return LUNA_OK;
    return luna_error(LUNA_USAGE, "'%.40s' is not a job id (a UUID)", text);
}

void luna_client_ring(luna_client *client)
{
    const uint64_t one = 1;
    //  It fails only when the counter is full, and then the bell rings already.
    if (write(client->bell, &one, sizeof one) < 0) return;
}

void luna_client_problem(luna_client *client, const char *text)
{
    pthread_mutex_lock(&client->lock);
    snprintf(client->problem, sizeof client->problem, "%s", text);
    pthread_mutex_unlock(&client->lock);
}

int64_t luna_deadline_ms(int32_t timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : luna_now_ms() + timeout_ms;
}

bool luna_client_wait(luna_client *client, int64_t deadline_ms)
{
    if (deadline_ms == INT64_MAX) {
        pthread_cond_wait(&client->changed, &client->lock);
        return true;
    }
    if (luna_now_ms() >= deadline_ms) return false;
    const struct timespec until = {.tv_sec = deadline_ms / 1000,
                                   .tv_nsec = deadline_ms % 1000 * 1000000};
    return pthread_cond_timedwait(&client->changed, &client->lock, &until) != ETIMEDOUT;
}

//  A broker that does not know the key answers as little as one that is away.
static luna_err nobody_lets_in(const luna_client *client, const char *what)
{
    char key[LUNA_KEY_TEXT_BYTES];
    luna_key_text(&client->broker.own.open, key);
    return luna_error(
        LUNA_UNAVAILABLE,
        "%s: no broker answers at %s: is it up, has it that key, and do its "
        "allowed_keys list this machine's, %s?",
        what, client->broker.endpoint, key);
}

luna_err luna_client_late(luna_client *client, const char *what)
{
    char problem[sizeof client->problem];
    pthread_mutex_lock(&client->lock);
    memcpy(problem, client->problem, sizeof problem);
    pthread_mutex_unlock(&client->lock);
    if (atomic_load(&client->available))
        return luna_error(LUNA_TIMEOUT, "%s: the broker at %s did not answer in time",
                          what, client->endpoint);
    if (client->broker.remote) return nobody_lets_in(client, what);
    return luna_error(LUNA_UNAVAILABLE, "%s: no broker answers at %s%s%s%s", what,
                      client->endpoint, problem[0] ? " (" : "", problem,
                      problem[0] ? ")" : ": start luna-broker or set LUNA_BROKER");
}

static luna_err check_options(const luna_options *options)
{
    if (options->queue_bytes == 0)
        return luna_error(LUNA_CONFIG, "queue_bytes is 0: no job would ever fit");
    if (options->receipt_timeout_ms < 1 ||
        options->receipt_timeout_max_ms < options->receipt_timeout_ms)
        return luna_error(LUNA_CONFIG,
                          "receipt_timeout_ms must be at least 1 and not above "
                          "receipt_timeout_max_ms");
    if (options->outbox_after_ms < 0)
        return luna_error(LUNA_CONFIG, "outbox_after_ms must not be negative");
    return LUNA_OK;
}

static luna_err copy_endpoint(luna_client *client, const char *endpoint)
{
    if (!endpoint) return luna_home_control(client->endpoint, sizeof client->endpoint);
    if (strlen(endpoint) >= sizeof client->endpoint)
        return luna_error(LUNA_CONFIG, "the broker's endpoint is longer than %zu bytes",
                          sizeof client->endpoint - 1);
    snprintf(client->endpoint, sizeof client->endpoint, "%s", endpoint);
    return LUNA_OK;
}

static luna_err set_endpoint(luna_client *client, const char *endpoint)
{
    LUNA_TRY(copy_endpoint(client, endpoint));
    LUNA_TRY(luna_address_parse(client->endpoint, &client->broker));
    return luna_address_keys(&client->broker, NULL);
}

//  A routing id must not begin with 0; the first byte of a UUIDv7 does not before the
//  clock is set.
static luna_id routing_id(void)
{
    luna_id id = luna_id_new();
    if (id.byte[0] == 0) id.byte[0] = 1;
    return id;
}

static void init_locks(luna_client *client)
{
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &clock);
    pthread_cond_init(&client->keeper.work, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&client->callback_lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&client->lock, NULL);
}

static luna_client *allocate_client(const luna_options *options)
{
    luna_client *client = calloc(1, sizeof *client);
    if (!client) return NULL;
    client->pool = luna_pool_new(options->pool_bytes);
    if (!client->pool) {
        free(client);
        return NULL;
    }
    client->options = *options;
    snprintf(client->name, sizeof client->name, "%s",
             options->name ? options->name : "libluna");
    client->options.name = client->name;
    client->pid = getpid();
    client->id = routing_id();
    client->bell = -1;
    client->keeper.sync_ms = INT64_MAX;
    client->keeper.last = &client->keeper.removals;
    init_locks(client);
    luna_notice_init(&client->notices);
    luna_jobs_init(&client->jobs, options->queue_bytes);
    return client;
}

//  The order matters: when libzmq has let go of its messages, no buffer is in use.
static void free_client(luna_client *client)
{
    luna_link_term(&client->link);
    luna_jobs_clear(&client->jobs);
    luna_pool_free(client->pool);
    luna_keeper_close(client);
    luna_notice_clear(&client->notices);
    if (client->bell >= 0) close(client->bell);
    pthread_cond_destroy(&client->changed);
    pthread_cond_destroy(&client->keeper.work);
    pthread_mutex_destroy(&client->lock);
    pthread_mutex_destroy(&client->callback_lock);
    free(client);
}

//  The application's signals are its own. SCHED_BATCH: a thread that wakes up does not
//  push its waker off the core, so that luna_submit is not held up by the sending it has
//  just asked for. Without it 3 % of the submits lost 1 to 4 ms on a machine whose cores
//  were all busy.
luna_err luna_client_thread(pthread_t *thread, void *(*run)(void *), luna_client *client)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int code = pthread_create(thread, NULL, run, client);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code != 0) {
        errno = code;
        return luna_error_errno(LUNA_UNAVAILABLE, "cannot start a thread");
    }
    int policy;
    struct sched_param param;
    if (pthread_getschedparam(*thread, &policy, &param) == 0 && policy == SCHED_OTHER)
        (void)pthread_setschedparam(*thread, SCHED_BATCH, &param);
    return LUNA_OK;
}

//  The disk thread is alone: nothing was sent, nothing can have been submitted.
static luna_err start_threads(luna_client *client)
{
    LUNA_TRY(luna_keeper_start(client));
    const luna_err err = luna_client_thread(&client->thread, luna_loop_run, client);
    if (err != LUNA_OK) luna_keeper_stop(client);
    return err;
}

//  The control socket is made here once, so that a malformed endpoint is told at once.
static luna_err start(luna_client *client, const char *endpoint)
{
    LUNA_TRY(set_endpoint(client, endpoint));
    client->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->bell < 0)
        return luna_error_errno(LUNA_UNAVAILABLE, "cannot make an eventfd");
    LUNA_TRY(luna_keeper_open(client));
    LUNA_TRY(luna_link_init(&client->link, &client->id, &client->broker));
    LUNA_TRY(luna_link_control(&client->link));
    return start_threads(client);
}

int luna_client_new(const char *endpoint, const luna_options *options, luna_client **out)
{
    luna_options defaults;
    luna_options_init(&defaults);
    if (!out) return luna_error(LUNA_USAGE, "the place for the client is NULL");
    if (!options) options = &defaults;
    LUNA_TRY(check_options(options));
    luna_client *client = allocate_client(options);
    if (!client) return luna_error(LUNA_NO_MEMORY, "out of memory");
    const luna_err err = start(client, endpoint);
    if (err != LUNA_OK) {
        free_client(client);
        return err;
    }
    *out = client;
    return LUNA_OK;
}

size_t luna_client_destroy(luna_client **self, int32_t linger_ms)
{
    luna_client *client = self ? *self : NULL;
    if (!client) return 0;
    *self = NULL;
    //  In a forked child neither the thread nor the sockets exist; the memory is left.
    if (client->pid != getpid()) return 0;
    pthread_mutex_lock(&client->lock);
    client->stopping = true;
    client->stop_ms = luna_deadline_ms(linger_ms);
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
    pthread_join(client->thread, NULL);
    luna_keeper_stop(client);
    const size_t lost =
        luna_jobs_unsettled(&client->jobs) - luna_jobs_kept_count(&client->jobs);
    free_client(client);
    return lost;
}

int luna_available(const luna_client *client)
{
    return client && client->pid == getpid() && atomic_load(&client->available);
}

int luna_wait_available(luna_client *client, int32_t timeout_ms)
{
    LUNA_TRY(luna_client_check(client));
    const int64_t deadline_ms = luna_deadline_ms(timeout_ms);
    pthread_mutex_lock(&client->lock);
    while (!atomic_load(&client->available) && luna_client_wait(client, deadline_ms))
        continue;
    pthread_mutex_unlock(&client->lock);
    if (atomic_load(&client->available)) return LUNA_RC_OK;
    return luna_client_late(client, "cannot connect");
}

const char *luna_endpoint(const luna_client *client)
{
    return client ? client->endpoint : "";
}

void luna_unsettled(const luna_client *client, size_t *jobs, uint64_t *bytes)
{
    if (jobs) *jobs = 0;
    if (bytes) *bytes = 0;
    if (luna_client_check(client) != LUNA_OK) return;
    luna_client *c = (luna_client *)client;
    pthread_mutex_lock(&c->lock);
    if (jobs) *jobs = luna_jobs_unsettled(&c->jobs);
    if (bytes) *bytes = c->jobs.bytes;
    pthread_mutex_unlock(&c->lock);
}

luna_buffer *luna_client_settle(luna_client *client, luna_entry *entry, luna_err error,
                                const char *detail)
{
    luna_keeper_drop(client, entry, error, detail);
    pthread_cond_broadcast(&client->changed);
    return luna_jobs_settle(&client->jobs, entry, error, detail);
}
