//  broker.c - start, ticks, stop

#include "broker/broker.h"

#include "broker/loop.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/home.h"
#include "common/log.h"
#include "common/notify.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    TICK_MS = 100,
    ASLEEP_MS = 1000,  //  a longer gap between ticks was no work of ours
    STATUS_MS = 1000,
    TRIM_MS = 5000
};

//  ---- starting ------------------------------------------------------------------

luna_rules luna_loop_rules(const luna_settings *s)
{
    const luna_id random = luna_id_new();
    luna_rules rules = {.lease_ms = (int64_t)s->lease_ms,
                        .adopt_ms = (int64_t)s->adopt_ms,
                        .grace_ms = (int64_t)s->disconnect_grace_ms,
                        .remember_ms = (int64_t)s->remember_ms,
                        .ageing_ms = (int64_t)s->ageing_ms,
                        .load_ms = (int64_t)s->vae_load_ms,
                        .backoff_ms = (int64_t)s->backoff_ms,
                        .backoff_max_ms = (int64_t)s->backoff_max_ms,
                        .lost_limit = (uint32_t)s->lost_limit,
                        .refused_limit = (uint32_t)s->refused_limit};
    memcpy(&rules.seed, random.byte + 8, sizeof rules.seed);
    return rules;
}

//  A job that was running may still be: its decoder has some time to say so.
static luna_err load_job(luna_broker *b, const luna_store_job *stored, int64_t now_ms)
{
    const luna_msg_job_info *info = &stored->info;
    const bool running = stored->state == LUNA_JOB_IN_PROGRESS;
    if ((int64_t)info->accepted_ms > b->accepted_ms)
        b->accepted_ms = (int64_t)info->accepted_ms;
    const luna_err err = luna_loop_enter(
        b, stored, running ? LUNA_PLACE_ORPHAN : LUNA_PLACE_WAITING, true, now_ms);
    if (err == LUNA_OK || err == LUNA_NO_MEMORY) return err;
    luna_log(LUNA_LOG_ERROR, "not_scheduled", "detail=\"%s\" next=\"at the next start\"",
             luna_error_text());
    return LUNA_OK;
}

static luna_err load_jobs(luna_broker *b, const luna_store_jobs *active)
{
    const int64_t now_ms = luna_now_ms();
    for (size_t i = 0; i < active->count; i++)
        LUNA_TRY(load_job(b, &active->items[i], now_ms));
    luna_log(LUNA_LOG_INFO, "store_opened", "state=%s spool=%s active=%zu",
             b->settings->state_dir, b->settings->spool_dir, active->count);
    return LUNA_OK;
}

static luna_err open_store(luna_broker *b)
{
    const luna_settings *s = b->settings;
    luna_store_jobs active = {0};
    LUNA_TRY(luna_store_open(&(luna_store_options){.state_dir = s->state_dir,
                                                   .spool_dir = s->spool_dir,
                                                   .reserve_bytes = s->reserve_bytes,
                                                   .ballast_bytes = s->ballast_bytes},
                             &b->store, &active));
    luna_scheduler_pause(b->scheduler, luna_store_paused(b->store));
    const luna_err err = load_jobs(b, &active);
    luna_store_jobs_free(&active);
    return err;
}

static luna_err read_token(const char *path, char **out)
{
    size_t len;
    *out = NULL;
    if (!path[0]) return LUNA_OK;
    LUNA_TRY(luna_file_read(path, 4096, out, &len));
    (*out)[strcspn(*out, "\r\n")] = '\0';
    if ((*out)[0]) return LUNA_OK;
    free(*out);
    *out = NULL;
    return luna_error(LUNA_CONFIG, "[http] token_file: %s is empty", path);
}

static luna_err start_http(luna_broker *b)
{
    if (strcmp(b->settings->http_listen, "off") == 0) return LUNA_OK;
    char *token;
    LUNA_TRY(read_token(b->settings->http_token_file, &token));
    luna_http_options options = luna_http_options_default();
    options.listen = b->settings->http_listen;
    options.control = LUNA_CONTROL_INPROC;
    options.intake = LUNA_INTAKE_INPROC;
    options.version = LUNA_VERSION;
    options.token = token;
    //  A job as JSON has its latents in base64: four characters for three bytes.
    options.max_body_bytes = b->settings->max_job_bytes / 3 * 4 + LUNA_INTAKE_SLACK_BYTES;
    const luna_err err = luna_http_start(&options, &b->http);
    free(token);
    return err;
}

static luna_err open_broker(luna_broker *b)
{
    const luna_rules rules = luna_loop_rules(b->settings);
    const luna_calls calls = luna_dispatch_calls(b);
    b->epoch = luna_id_new();
    b->nobodys_epoch = luna_id_new();
    luna_home_host(b->host);
    b->namer.base = b->settings->slots;
    snprintf(b->namer.tag, sizeof b->namer.tag, "%02x%02x%02x", b->epoch.byte[13],
             b->epoch.byte[14], b->epoch.byte[15]);
    b->loop = zloop_new();
    if (!b->loop) return luna_error(LUNA_NO_MEMORY, "no memory for the loop");
    LUNA_TRY(luna_scheduler_new(&rules, &calls, &b->scheduler));
    LUNA_TRY(open_store(b));
    LUNA_TRY(luna_sockets_open(b));
    return start_http(b);
}

//  ---- what time brings ----------------------------------------------------------

//  What malloc kept for the next payloads (see main.c) is given back, whether more come
//  or not: small blocks that live long settle between large ones, and memory must not
//  grow with the queue.
static void trim_memory(luna_broker *b, int64_t now_ms)
{
    if (!b->untrimmed || now_ms < b->trim_due_ms) return;
    b->trim_due_ms = now_ms + TRIM_MS;
    b->untrimmed = false;
    malloc_trim(0);
}

static void tell_systemd(luna_broker *b, int64_t now_ms)
{
    const int64_t watchdog_ms = luna_notify_watchdog_ms();
    if (watchdog_ms && now_ms >= b->watchdog_due_ms) {
        b->watchdog_due_ms = now_ms + watchdog_ms;
        luna_notify("WATCHDOG=1");
    }
    if (now_ms < b->status_due_ms) return;
    b->status_due_ms = now_ms + STATUS_MS;
    luna_alarm_check(b);
    luna_events_status(b);
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    luna_notify("STATUS=%llu pending, %llu in progress, %llu decoders",
                (unsigned long long)depth.pending, (unsigned long long)depth.in_progress,
                (unsigned long long)depth.decoders);
}

static bool may_end(luna_broker *b, int64_t now_ms)
{
    if (!b->stopping) return false;
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    return now_ms >= b->stop_due_ms || (depth.sent == 0 && b->task_count == 0);
}

static int tick(zloop_t *loop, int timer, void *broker)
{
    (void)loop;
    (void)timer;
    luna_broker *b = broker;
    const int64_t now_ms = luna_now_ms();
    if (now_ms - b->tick_ms > ASLEEP_MS)
        luna_scheduler_slept(b->scheduler, now_ms - b->tick_ms);
    b->tick_ms = now_ms;
    luna_work_watch(b, now_ms);
    luna_door_watch(b);
    luna_scheduler_tick(b->scheduler, now_ms);
    luna_task_retry_stalled(b, now_ms);
    luna_credit_grant(b);
    luna_forget_old(b, now_ms);
    luna_dispatch_settle(b);
    trim_memory(b, now_ms);
    tell_systemd(b, now_ms);
    return may_end(b, now_ms) ? -1 : 0;
}

static int store_ready(zloop_t *loop, zmq_pollitem_t *item, void *broker)
{
    (void)loop;
    (void)item;
    luna_task_collect(broker);
    luna_dispatch_settle(broker);
    return 0;
}

//  ---- stopping ------------------------------------------------------------------

//  A signalfd gives one signalfd_siginfo, an eventfd eight bytes.
static bool is_hangup(int fd, bool *any)
{
    struct signalfd_siginfo info = {0};
    const ssize_t len = read(fd, &info, sizeof info);
    *any = len > 0;
    return len == sizeof info && info.ssi_signo == SIGHUP;
}

static int stop(luna_broker *b)
{
    if (b->stopping) return -1;
    b->stopping = true;
    b->stop_due_ms = luna_now_ms() + (int64_t)b->settings->stop_grace_ms;
    luna_notify("STOPPING=1");
    luna_log(LUNA_LOG_INFO, "stopping", "attempts=%llu next=\"waits %llu ms for them\"",
             (unsigned long long)luna_scheduler_depth(b->scheduler).sent,
             (unsigned long long)b->settings->stop_grace_ms);
    luna_intake_pace(b);
    return may_end(b, luna_now_ms()) ? -1 : 0;
}

//  SIGHUP reads the settings again. The first other request stops taking jobs and
//  starting attempts; the second ends the wait.
static int signal_ready(zloop_t *loop, zmq_pollitem_t *item, void *broker)
{
    (void)loop;
    bool any;
    const bool hangup = is_hangup(item->fd, &any);
    if (hangup) luna_reload(broker);
    return any && !hangup ? stop(broker) : 0;
}

static void serve(luna_broker *b, int signal_fd)
{
    zmq_pollitem_t signals = {.fd = signal_fd, .events = ZMQ_POLLIN};
    zmq_pollitem_t store = {.fd = luna_store_fd(b->store), .events = ZMQ_POLLIN};
    zloop_poller(b->loop, &signals, signal_ready, b);
    zloop_poller(b->loop, &store, store_ready, b);
    luna_sockets_serve(b);
    zloop_timer(b->loop, TICK_MS, 0, tick, b);
    zloop_set_nonstop(b->loop, true);  //  signals are ours, not czmq's
    b->tick_ms = b->started_ms = luna_now_ms();
    luna_alarm_check(b);
    luna_ask_counts(b);
    luna_task_hand_over(b);
    luna_notify("READY=1");
    luna_log(LUNA_LOG_INFO, "ready", "control=%s", b->settings->control);
    //  czmq ends its loop when a signal interrupts the wait; ours goes on.
    do {
        errno = 0;
    } while (zloop_start(b->loop) == 0 && errno == EINTR);
}

static void drop_stalled(luna_broker *b)
{
    while (b->stalled) {
        luna_task *task = b->stalled;
        b->stalled = task->next;
        luna_task_free(task);
    }
}

//  What the store was given is finished and answered. What it still cannot write was
//  logged when it failed; the next start repeats those jobs.
static void flush(luna_broker *b)
{
    luna_task_retry_stalled(b, INT64_MAX);
    while (b->task_count > 0) {
        luna_task_hand_over(b);
        luna_store_drain(b->store);
        luna_task_collect(b);
    }
    drop_stalled(b);
}

static void close_broker(luna_broker *b)
{
    luna_http_stop(&b->http);
    b->stopping = true;
    b->closing = true;
    if (b->store) flush(b);
    luna_work_close_all(b);
    zloop_destroy(&b->loop);
    luna_sockets_close(b);
    luna_store_close(&b->store);
    luna_scheduler_free(&b->scheduler);
}

static luna_err run(luna_broker *b, int signal_fd)
{
    const luna_err err = open_broker(b);
    if (err == LUNA_OK) serve(b, signal_fd);
    char why[1024];
    snprintf(why, sizeof why, "%s", luna_error_text());
    close_broker(b);
    return err == LUNA_OK ? LUNA_OK : luna_error(err, "%s", why);
}

luna_err luna_broker_run(const luna_settings *settings, const char *config, int signal_fd)
{
    luna_broker *b = calloc(1, sizeof *b);
    luna_settings *own = malloc(sizeof *own);
    if (!b || !own) {
        free(b);
        free(own);
        return luna_error(LUNA_NO_MEMORY, "no memory for the broker");
    }
    *own = *settings;
    b->settings = own;
    b->config = config;
    const luna_err err = run(b, signal_fd);
    free(own);
    free(b);
    return err;
}

luna_err luna_broker_recover(const luna_settings *settings, size_t *active)
{
    luna_store *store;
    luna_store_jobs jobs;
    LUNA_TRY(
        luna_store_open(&(luna_store_options){.state_dir = settings->state_dir,
                                              .spool_dir = settings->spool_dir,
                                              .ballast_bytes = settings->ballast_bytes,
                                              .recover = true},
                        &store, &jobs));
    *active = jobs.count;
    luna_store_jobs_free(&jobs);
    luna_store_close(&store);
    return LUNA_OK;
}
