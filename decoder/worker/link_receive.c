//  What the link hears: welcome, pongs and cancels on the control socket, work on the
//  slot.

#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/notify.h"
#include "decoder/worker/link_state.h"
#include "decoder/worker/wire.h"
#include "proto/codec.h"

#define FRAMES_A_ROUND 64  //  of one socket before the others have their turn
#define PING_MIN_MS    50
#define PING_MAX_MS    60000

static luna_err open_slot(luna_link *link, const luna_msg_welcome *welcome)
{
    char endpoint[LUNA_MAX_PATH_BYTES + 1];
    if (!welcome->slot.len)
        return luna_error(LUNA_PROTOCOL, "the broker's welcome names no slot");
    luna_text_copy(welcome->slot, endpoint, sizeof endpoint);
    const uint64_t extra = 4 << 20;  //  the message around a payload
    const uint64_t most = welcome->max_job_bytes;
    zsock_destroy(&link->slot);
    return luna_wire_pull(link->options->broker, endpoint,
                          most && most < UINT64_MAX - extra ? most + extra : 0,
                          &link->slot);
}

static bool can_map(const luna_link *link, const luna_msg_welcome *welcome)
{
    char spool[LUNA_MAX_PATH_BYTES + 1];
    luna_text_copy(welcome->spool_dir, spool, sizeof spool);
    return luna_text_is(welcome->host, link->host) && spool[0] == '/' &&
           access(spool, R_OK | X_OK) == 0;
}

static luna_err take_welcome(luna_link *link, const luna_msg_welcome *welcome)
{
    if (link->up) return LUNA_OK;
    LUNA_TRY(open_slot(link, welcome));
    link->epoch = welcome->epoch;
    link->maps_payload = can_map(link, welcome);
    link->ping_ms = (int64_t)welcome->ping_ms;
    if (link->ping_ms < PING_MIN_MS) link->ping_ms = PING_MIN_MS;
    if (link->ping_ms > PING_MAX_MS) link->ping_ms = PING_MAX_MS;
    link->pinged_ms = luna_now_ms();
    link->draining = false;
    const luna_msg_ready ready = luna_link_credit_now(link);
    link->credit_told = ready.credit_jobs;
    LUNA_TRY(luna_wire_send(link->control, LUNA_MSG_READY, &ready));
    link->up = true;
    link->waiting_logged = false;
    luna_log(LUNA_LOG_INFO, "broker_up", "broker=\"%s\" name=\"%s\" payload=%s",
             link->options->control, link->options->name,
             link->maps_payload ? "mapped" : "in messages");
    luna_notify("READY=1\nSTATUS=idle, waiting for jobs");
    luna_attempts_retell(link->options->attempts);
    return LUNA_OK;
}

static luna_err take_pong(luna_link *link, const luna_msg_pong *pong)
{
    if (!link->up) return LUNA_OK;
    if (luna_id_compare(&pong->epoch, &link->epoch) != 0)
        return luna_error(LUNA_UNAVAILABLE, "the broker was restarted");
    luna_attempts_confirm(link->options->attempts);
    const bool drain = luna_text_is(pong->order, "drain");
    if (drain != link->draining)
        luna_log(LUNA_LOG_INFO, drain ? "draining" : "drain_ended", "by=broker");
    link->draining = drain;
    if (luna_text_is(pong->order, "stop")) luna_link_stop(link, "the broker said stop");
    return LUNA_OK;
}

static luna_err take_answer(const luna_link *link, const luna_msg_answer *answer)
{
    char detail[512];
    if (!answer->error.len) return LUNA_OK;
    luna_text_copy(answer->detail, detail, sizeof detail);
    if (!link->up)
        luna_log(LUNA_LOG_WARNING, "hello_refused",
                 "broker=\"%s\" detail=\"%s\" next=\"say hello again\"",
                 link->options->control, detail);
    return luna_error(LUNA_UNAVAILABLE, "%s", detail);
}

static luna_err take_message(luna_link *link, luna_packet *packet)
{
    union {
        luna_msg_welcome welcome;
        luna_msg_pong pong;
        luna_msg_order order;
        luna_msg_answer answer;
    } as;
    switch (luna_packet_type(packet)) {
        case LUNA_MSG_WELCOME:
            LUNA_TRY(luna_packet_read(packet, &as.welcome));
            return take_welcome(link, &as.welcome);
        case LUNA_MSG_PONG:
            LUNA_TRY(luna_packet_read(packet, &as.pong));
            return take_pong(link, &as.pong);
        case LUNA_MSG_CANCEL:
            LUNA_TRY(luna_packet_read(packet, &as.order));
            luna_attempts_cancel(link->options->attempts,
                                 &(luna_msg_job_key){as.order.id, as.order.attempt},
                                 luna_now_ms());
            return LUNA_OK;
        case LUNA_MSG_ANSWER:
            LUNA_TRY(luna_packet_read(packet, &as.answer));
            return take_answer(link, &as.answer);
        default:
            return LUNA_OK;
    }
}

//  A message that breaks the rules is dropped and logged; only a broker that is
//  another one, or does not know us, breaks the link.
static void take_control(luna_link *link, zframe_t *frame)
{
    luna_packet *packet = NULL;
    link->heard_ms = luna_now_ms();
    luna_err err = luna_packet_open(zframe_data(frame), zframe_size(frame), &packet);
    if (err == LUNA_OK) err = take_message(link, packet);
    luna_packet_close(&packet);
    if (err == LUNA_UNAVAILABLE && link->up)
        luna_link_lose(link, luna_error_text());
    else if (err != LUNA_OK && err != LUNA_UNAVAILABLE)
        luna_log(LUNA_LOG_WARNING, "message_dropped", "err=%s detail=\"%s\"",
                 luna_err_name(err), luna_error_text());
}

static void free_frame(void *frame)
{
    zframe_t *held = frame;
    zframe_destroy(&held);
}

static luna_err take_work(luna_link *link, zframe_t *frame)
{
    const luna_received message = {.handle = frame,
                                   .data = zframe_data(frame),
                                   .len = zframe_size(frame),
                                   .free = free_frame};
    luna_work *work = NULL;
    LUNA_TRY(luna_work_open(message, &work));
    const luna_msg_work fields = *luna_work_message(work);
    if (luna_id_compare(&fields.epoch, &link->epoch) != 0) {
        luna_work_close(&work);
        return luna_error(LUNA_PROTOCOL, "work of another epoch");
    }
    const luna_err err = luna_attempts_add(link->options->attempts, &work, luna_now_ms());
    if (err != LUNA_BUSY && err != LUNA_NO_MEMORY) return LUNA_OK;
    const luna_msg_failed failed = {.id = fields.id,
                                    .attempt = fields.attempt,
                                    .epoch = link->epoch,
                                    .error = luna_text_of(luna_err_name(err)),
                                    .detail = luna_text_of(luna_error_text()),
                                    .retry = true};
    luna_link_send(link, LUNA_MSG_FAILED, &failed);
    return LUNA_OK;
}

void luna_link_receive(luna_link *link)
{
    zframe_t *frame;
    for (int i = 0; i < FRAMES_A_ROUND && link->control &&
                    (frame = luna_wire_receive(link->control));
         i++) {
        take_control(link, frame);
        zframe_destroy(&frame);
    }
    for (int i = 0;
         i < FRAMES_A_ROUND && link->slot && (frame = luna_wire_receive(link->slot));
         i++) {
        link->heard_ms = luna_now_ms();
        if (take_work(link, frame) != LUNA_OK)
            luna_log(LUNA_LOG_WARNING, "work_dropped", "detail=\"%s\"",
                     luna_error_text());
    }
}
