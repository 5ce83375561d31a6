#include "decoder/worker/link.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/home.h"
#include "common/log.h"
#include "common/notify.h"
#include "decoder/worker/link_state.h"
#include "decoder/worker/wire.h"

#define HELLO_MS     5000  //  without a welcome: hello again, on a new socket
#define SILENT_PINGS 3     //  unanswered, and the link counts as broken

//  ---- stopping --------------------------------------------------------------------

void luna_link_stop(luna_link *link, const char *why)
{
    if (link->stopping) return;
    link->stopping = true;
    link->stop_at_ms = luna_now_ms() + link->options->stop_ms;
    luna_log(LUNA_LOG_INFO, "stopping",
             "reason=\"%s\" next=\"finish the image in hand, give the rest back\"", why);
    luna_notify("STOPPING=1\nSTATUS=finishing the image in hand");
    luna_attempts_stop(link->options->attempts);
}

static void read_signals(luna_link *link)
{
    struct signalfd_siginfo info;
    while (read(link->options->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (link->stopping) link->hurried = true;
        luna_link_stop(link, strsignal((int)info.ssi_signo));
    }
}

static void drain_wakes(const luna_link *link)
{
    uint64_t count;
    if (read(luna_attempts_fd(link->options->attempts), &count, sizeof count) < 0) return;
}

//  The broker hears that nothing more is taken before it hears of the job that failed:
//  or it would send the same job here again.
static void watch_device(luna_link *link)
{
    if (link->stopping || !luna_pipeline_is_broken(link->options->pipeline)) return;
    luna_link_stop(link, "the device failed");
    luna_link_credit(link);
}

//  A kernel that never ends tells nobody: only that there are no more steps.
static void watch_steps(luna_link *link)
{
    const luna_attempts_load load = luna_attempts_count(link->options->attempts);
    const bool decodes = load.running > load.encoding;
    const int64_t now_ms = luna_now_ms();
    if (!decodes || load.ticks != link->ticks) link->ticks_ms = now_ms;
    link->ticks = load.ticks;
    const int64_t still_ms = now_ms - link->ticks_ms;
    link->hung = link->options->hang_ms && still_ms >= link->options->hang_ms;
    if (link->hung)
        luna_log(LUNA_LOG_ERROR, "decode_hangs", "device=%s still_ms=%lld",
                 link->options->device, (long long)still_ms);
}

static bool is_over(luna_link *link)
{
    if (link->hung) return true;
    if (!link->stopping) return false;
    if (luna_now_ms() >= link->stop_at_ms) link->hurried = true;
    return link->hurried || luna_pipeline_is_idle(link->options->pipeline);
}

//  One whose decode hangs goes without a word: its job counts as lost to a death, as it
//  is when the lease ends first.
static luna_link_end say_bye(luna_link *link)
{
    const luna_msg_bye bye = {.reason = luna_text_of("stopping")};
    luna_link_reports(link);
    if (link->hung) return LUNA_LINK_BROKEN;
    luna_link_send(link, LUNA_MSG_BYE, &bye);
    if (luna_pipeline_is_broken(link->options->pipeline)) return LUNA_LINK_BROKEN;
    return luna_pipeline_is_idle(link->options->pipeline) ? LUNA_LINK_STOPPED
                                                          : LUNA_LINK_HURRIED;
}

//  ---- the loop --------------------------------------------------------------------

static int64_t next_ms(const luna_link *link)
{
    int64_t at = link->up ? link->pinged_ms + link->ping_ms : link->heard_ms + HELLO_MS;
    if (link->stopping && link->stop_at_ms < at) at = link->stop_at_ms;
    if (link->options->hang_ms && link->ticks_ms + link->options->hang_ms < at)
        at = link->ticks_ms + link->options->hang_ms;
    const int64_t wait = at - luna_now_ms();
    return wait > 0 ? wait : 0;
}

static luna_err wait_for_news(const luna_link *link)
{
    zmq_pollitem_t items[] = {
        {NULL, link->options->signal_fd, ZMQ_POLLIN, 0},
        {NULL, luna_attempts_fd(link->options->attempts), ZMQ_POLLIN, 0},
        {link->control ? zsock_resolve(link->control) : NULL, -1, ZMQ_POLLIN, 0},
        {link->slot ? zsock_resolve(link->slot) : NULL, -1, ZMQ_POLLIN, 0}};
    const int count = 2 + (link->control != NULL) + (link->slot != NULL);
    if (zmq_poll(items, count, (long)next_ms(link)) >= 0 || zmq_errno() == EINTR)
        return LUNA_OK;
    return luna_error(LUNA_INTERNAL, "cannot wait for messages: %s",
                      zmq_strerror(zmq_errno()));
}

static void keep_time(luna_link *link)
{
    const int64_t now_ms = luna_now_ms();
    if (link->up && now_ms - link->heard_ms > SILENT_PINGS * link->ping_ms)
        luna_link_lose(link, "it has been silent for three pings");
    else if (link->up && now_ms - link->pinged_ms >= link->ping_ms)
        luna_link_ping(link, now_ms);
    else if (!link->up && now_ms - link->heard_ms >= HELLO_MS)
        luna_link_lose(link, "no answer");
}

static luna_err serve(luna_link *link)
{
    while (!is_over(link)) {
        LUNA_TRY(wait_for_news(link));
        read_signals(link);
        drain_wakes(link);
        luna_link_receive(link);
        watch_device(link);
        luna_link_reports(link);
        luna_link_credit(link);
        watch_steps(link);
        keep_time(link);
    }
    return LUNA_OK;
}

luna_err luna_link_run(const luna_link_options *options, luna_link_end *out)
{
    luna_link link = {.options = options, .instance = luna_id_new(), .ping_ms = 1000};
    while (link.instance.byte[0] == 0) link.instance = luna_id_new();
    luna_home_host(link.host);
    luna_err err = luna_link_greet(&link);
    if (err == LUNA_OK) {
        luna_notify("STATUS=waiting for the broker at %s", options->control);
        err = serve(&link);
    }
    if (err == LUNA_OK) *out = say_bye(&link);
    zsock_destroy(&link.slot);
    zsock_destroy(&link.control);
    return err;
}
