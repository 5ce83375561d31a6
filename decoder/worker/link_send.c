//  What the link says: hello, credit, reports and pings.

#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/notify.h"
#include "decoder/worker/link_state.h"
#include "decoder/worker/wire.h"

#define PARKED_MAX 8  //  jobs that do not count while their VAE is being loaded

static void close_sockets(luna_link *link)
{
    if (link->control) zsock_set_linger(link->control, 0);
    zsock_destroy(&link->control);
    zsock_destroy(&link->slot);
}

static luna_err say_hello(luna_link *link)
{
    luna_msg_job_key *running = calloc(LUNA_ATTEMPTS_MAX, sizeof *running);
    if (!running) return luna_error(LUNA_NO_MEMORY, "no memory for a hello");
    char formats[LUNA_FORMATS_BYTES];
    const size_t count =
        luna_attempts_list(link->options->attempts, running, LUNA_ATTEMPTS_MAX);
    const luna_msg_hello hello = {
        .role = luna_text_of("decoder"),
        .name = luna_text_of(link->options->name),
        .instance = link->instance,
        .host = luna_text_of(link->host),
        .pid = (uint64_t)getpid(),
        .version = luna_text_of(LUNA_VERSION),
        .device = luna_text_of(link->options->device),
        .vaes = {link->options->vaes, link->options->vae_count},
        .running = {running, count},
        .formats = luna_formats_write(link->options->formats, formats)};
    const luna_err err = luna_wire_send(link->control, LUNA_MSG_HELLO, &hello);
    free(running);
    return err;
}

//  A fresh socket has no old messages in it.
luna_err luna_link_greet(luna_link *link)
{
    close_sockets(link);
    link->up = false;
    link->heard_ms = luna_now_ms();
    LUNA_TRY(luna_wire_dealer(link->options->broker, &link->instance, &link->control));
    return say_hello(link);
}

//  Falls back to saying hello; the reason is logged once, not every few seconds.
void luna_link_lose(luna_link *link, const char *why)
{
    if (link->up || !link->waiting_logged)
        luna_log(
            LUNA_LOG_WARNING, "broker_away",
            "broker=\"%s\" reason=\"%s\" next=\"decode on, say hello until it answers\"",
            link->options->control, why);
    link->waiting_logged = true;
    if (link->up)
        luna_notify("STATUS=waiting for the broker at %s", link->options->control);
    const luna_err err = luna_link_greet(link);
    if (err != LUNA_OK)
        luna_log(LUNA_LOG_ERROR, "hello_failed", "err=%s detail=\"%s\"",
                 luna_err_name(err), luna_error_text());
}

void luna_link_send(luna_link *link, luna_msg_type type, const void *message)
{
    if (link->up && luna_wire_send(link->control, type, message) != LUNA_OK)
        luna_link_lose(link, luna_error_text());
}

//  A job whose images are all decoded holds an encode thread, not the decoder, and one
//  whose VAE is being loaded holds neither: others may come meanwhile. Of the latter kind
//  a few, so that one decoder does not gather what another could have done.
luna_msg_ready luna_link_credit_now(const luna_link *link)
{
    const luna_attempts_load load = luna_attempts_count(link->options->attempts);
    const bool open = !link->stopping && !link->draining;
    const uint64_t parked = load.parked < PARKED_MAX ? load.parked : PARKED_MAX;
    return (luna_msg_ready){
        .credit_jobs = open ? link->options->credit_jobs + load.encoding + parked : 0,
        .credit_bytes = link->options->credit_bytes,
        .maps_payload = link->maps_payload};
}

void luna_link_credit(luna_link *link)
{
    const luna_msg_ready credit = luna_link_credit_now(link);
    if (credit.credit_jobs == link->credit_told) return;
    link->credit_told = credit.credit_jobs;
    luna_link_send(link, LUNA_MSG_CREDIT, &credit);
}

void luna_link_reports(luna_link *link)
{
    void *report = NULL;
    size_t len = 0;
    while (link->up && luna_attempts_report(link->options->attempts, &link->epoch,
                                            &report, &len) == LUNA_OK) {
        const luna_err err = luna_wire_send_bytes(link->control, report, len);
        free(report);
        if (err != LUNA_OK) luna_link_lose(link, luna_error_text());
    }
}

void luna_link_ping(luna_link *link, int64_t now_ms)
{
    const luna_attempts_load load = luna_attempts_count(link->options->attempts);
    const luna_msg_ping ping = {.running = load.waiting + load.running + load.untold,
                                .ticks = load.ticks};
    link->pinged_ms = now_ms;
    luna_attempts_ping(link->options->attempts);
    luna_link_send(link, LUNA_MSG_PING, &ping);
    if (load.running)
        luna_notify("STATUS=decoding, %zu jobs in hand", load.waiting + load.running);
    else
        luna_notify("STATUS=idle, waiting for jobs");
}
