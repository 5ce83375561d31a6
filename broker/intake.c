//  intake.c - jobs in, receipts out
//
//  A job is checked, entered in the scheduler as STORING, which takes all the memory
//  it will ever need, and put into the store. Only when that is back with LUNA_OK is
//  it accepted. The received frame itself is what the store writes: no copy.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/handover.h"
#include "common/log.h"
#include "proto/job.h"

#include <string.h>

enum { JOBS_A_ROUND = 16, BUSY_RETRY_MS = 1000, DISK_RETRY_MS = 5000 };

//  ---- receipts ------------------------------------------------------------------

static luna_peer client_peer(const luna_id *client)
{
    luna_peer peer = {.len = LUNA_ID_BYTES};
    memcpy(peer.id, client->byte, LUNA_ID_BYTES);
    return peer;
}

void luna_receipt_send(luna_broker *b, const luna_id *client,
                       const luna_msg_receipt *receipt)
{
    const luna_peer peer = client_peer(client);
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&receipt->id, id);
    if (!luna_control_send(b, &peer, LUNA_MSG_RECEIPT, receipt))
        luna_log(LUNA_LOG_DEBUG, "receipt_dropped",
                 "job=%s next=\"the producer asks again\"", id);
}

void luna_receipt_refuse(luna_broker *b, const luna_id *id, const luna_id *client,
                         uint64_t bytes, luna_err err)
{
    const bool busy = luna_err_retry(err);
    const bool disk = err == LUNA_NO_SPACE || err == LUNA_IO;
    const luna_msg_receipt receipt = {
        .id = *id,
        .status = luna_text_of(busy ? "busy" : "refused"),
        .error = luna_text_of(luna_err_name(err)),
        .detail = luna_text_of(luna_error_text()),
        .retry_ms = busy ? disk ? DISK_RETRY_MS : BUSY_RETRY_MS : 0,
        .offer_first = busy};
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    luna_log(busy ? LUNA_LOG_INFO : LUNA_LOG_WARNING, busy ? "busy" : "refused",
             "job=%s err=%s detail=\"%s\"", text, luna_err_name(err), luna_error_text());
    luna_receipt_send(b, client, &receipt);
    if (busy) luna_credit_blocked(b, client, bytes);
    if (busy)
        b->tally.busy++;
    else
        b->tally.refused++;
}

static void accept_job(luna_broker *b, const luna_id *id, const luna_id *client,
                       const luna_msg_receipt *found)
{
    luna_msg_receipt receipt = *found;
    receipt.id = *id;
    receipt.status = luna_text_of("accepted");
    receipt.offer_first = luna_credit_low(b, client);
    luna_receipt_send(b, client, &receipt);
}

void luna_receipt_known(luna_broker *b, const luna_id *id, const luna_id *client,
                        uint64_t images)
{
    b->tally.duplicates++;
    accept_job(b, id, client, &(luna_msg_receipt){.images = images, .duplicate = true});
}

//  ---- storing -------------------------------------------------------------------

static void stored_now(luna_broker *b, const luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    const uint64_t ahead = luna_scheduler_backlog(b->scheduler, job->priority);
    luna_scheduler_stored(b->scheduler, &task->op.id, true);
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    luna_log(LUNA_LOG_INFO, "accepted", "job=%s bytes=%llu images=%u vae=%s priority=%u",
             id, (unsigned long long)job->bytes, job->images, luna_job_vae(job),
             job->priority);
    accept_job(b, &task->op.id, &task->op.in.put.job.client,
               &(luna_msg_receipt){.position = ahead, .images = job->images});
    const luna_msg_job_info info = luna_info_job(b, job);
    luna_events_job(b, "accepted", &info);
    b->tally.accepted++;
    b->tally.accepted_bytes += job->bytes;
    luna_histogram_add_ms(&b->tally.accept,
                          (double)(luna_now_ns() - task->began_ns) / 1e6);
}

//  Known from before, maybe finished: the same answer as then.
static void stored_before(luna_broker *b, const luna_task *task)
{
    uint64_t images = 0;
    if (task->op.found.count > 0) images = task->op.found.items[0].info.images;
    luna_receipt_known(b, &task->op.id, &task->op.in.put.job.client, images);
}

static void stored(luna_broker *b, luna_task *task)
{
    b->held_bytes -= task->op.in.put.body.len;
    b->untrimmed = true;
    if (task->op.err == LUNA_OK) {
        stored_now(b, task);
    } else {
        luna_scheduler_stored(b->scheduler, &task->op.id, false);
        if (task->op.err == LUNA_EXISTS)
            stored_before(b, task);
        else
            luna_receipt_refuse(b, &task->op.id, &task->op.in.put.job.client,
                                task->op.in.put.body.len,
                                luna_error(task->op.err, "%s", task->op.detail));
    }
    luna_intake_pace(b);
}

//  The place in the queue never steps back, whatever the wall clock does.
static luna_store_job new_job(luna_broker *b, const luna_msg_job *job, size_t len)
{
    const int64_t wall_ms = luna_wall_ms();
    if (wall_ms > b->accepted_ms) b->accepted_ms = wall_ms;
    return luna_store_job_new(job, len, (uint64_t)b->accepted_ms);
}

//  Moves the message into a task.
static luna_err store(luna_broker *b, luna_message *message, const luna_msg_job *job)
{
    const size_t len = zframe_size(message->frame);
    luna_task *task = luna_task_new(LUNA_STORE_PUT, &job->id, stored);
    if (!task) return luna_error(LUNA_NO_MEMORY, "the broker is out of memory");
    task->began_ns = luna_now_ns();
    task->op.in.put =
        (luna_store_put){.job = new_job(b, job, len),
                         .body = {.data = zframe_data(message->frame), .len = len}};
    const luna_err err = luna_loop_enter(b, &task->op.in.put.job, LUNA_PLACE_STORING,
                                         false, luna_now_ms());
    if (err != LUNA_OK) {
        luna_task_free(task);
        return err;
    }
    task->message = *message;
    *message = (luna_message){0};
    b->held_bytes += len;
    luna_task_submit(b, task);
    return LUNA_OK;
}

//  An active job under this id: true when the message is dealt with.
static bool take_duplicate(luna_broker *b, const luna_msg_job *job)
{
    const luna_job *known = luna_scheduler_find(b->scheduler, &job->id);
    if (!known) return false;
    //  One that is still being stored will be answered when it is.
    if (known->place != LUNA_PLACE_STORING)
        luna_receipt_known(b, &job->id, &job->client, known->images);
    return true;
}

//  ---- the socket ----------------------------------------------------------------

static luna_err take_job(luna_broker *b, luna_message *message, luna_msg_job *job)
{
    const size_t len = zframe_size(message->frame);
    LUNA_TRY(luna_packet_open(zframe_data(message->frame), len, &message->packet));
    if (luna_packet_type(message->packet) != LUNA_MSG_JOB)
        return luna_error(LUNA_PROTOCOL, "intake takes jobs only");
    LUNA_TRY(luna_packet_read(message->packet, job));
    if (take_duplicate(b, job)) return LUNA_OK;
    LUNA_TRY(luna_job_check(job));
    LUNA_TRY(luna_credit_check(b, &job->client, len));
    return store(b, message, job);
}

static const char *peer_address(zframe_t *frame)
{
    const char *address = zframe_meta(frame, "Peer-Address");
    return address && *address ? address : "local";
}

static void take(luna_broker *b, luna_message *message)
{
    luna_msg_job job;
    luna_id id, client;
    const luna_err err = take_job(b, message, &job);
    if (err == LUNA_OK) return;
    const void *data = zframe_data(message->frame);
    const size_t len = zframe_size(message->frame);
    char why[1024];
    luna_text_copy(luna_text_of(luna_error_text()), why, sizeof why);
    const bool known = luna_packet_peek_id(data, len, "id", &id) &&
                       luna_packet_peek_id(data, len, "client", &client);
    if (known)
        luna_receipt_refuse(b, &id, &client, len, luna_error(err, "%s", why));
    else
        luna_log(LUNA_LOG_WARNING, "unreadable", "peer=%s bytes=%zu detail=\"%s\"",
                 peer_address(message->frame), len, why);
}

//  A job is one frame; the rest of a longer message is dropped.
static bool receive(zsock_t *reader, luna_message *message)
{
    message->frame = zframe_recv(reader);
    while (message->frame && zsock_rcvmore(reader)) {
        zframe_t *more = zframe_recv(reader);
        zframe_destroy(&more);
    }
    if (message->frame) LUNA_TAKE_OVER(zframe_data(message->frame));
    return message->frame != NULL;
}

int luna_intake_ready(zloop_t *loop, zsock_t *reader, void *broker)
{
    (void)loop;
    luna_broker *b = broker;
    for (int i = 0; i < JOBS_A_ROUND && zsock_events(reader) & ZMQ_POLLIN; i++) {
        luna_message message = {0};
        if (!receive(reader, &message)) break;
        take(b, &message);
        luna_message_close(&message);
        luna_intake_pace(b);
        if (b->intake_paused) break;
    }
    luna_dispatch_settle(b);
    return 0;
}

void luna_intake_pace(luna_broker *b)
{
    const uint64_t limit = b->settings->max_held_bytes;
    const bool full =
        b->intake_paused ? b->held_bytes > limit / 2 : b->held_bytes > limit;
    const bool pause = full || b->stopping;
    if (pause == b->intake_paused) return;
    b->intake_paused = pause;
    luna_sockets_pause_intake(b, pause);
}
