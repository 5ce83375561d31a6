//  work.c - the slots, and the work that goes through them
//
//  Work waits in its slot's outbox while the pipe is full or the decoder has not
//  connected yet; a lease that ends meanwhile takes it back.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "proto/payload.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

//  ---- slots ---------------------------------------------------------------------

luna_slot *luna_work_slot(const luna_broker *b, uint32_t session)
{
    for (size_t i = 0; i < b->slot_count; i++)
        if (b->slots[i]->session == session) return b->slots[i];
    return NULL;
}

luna_slot *luna_work_peer(const luna_broker *b, const luna_peer *peer)
{
    luna_slot *latest = NULL;
    for (size_t i = 0; i < b->slot_count; i++) {
        luna_slot *each = b->slots[i];
        if (!luna_peer_equal(&each->peer, peer)) continue;
        if (!latest || each->session > latest->session) latest = each;
    }
    return latest;
}

bool luna_work_gave_up(const luna_broker *b, const luna_peer *peer)
{
    for (size_t i = 0; i < LUNA_DECODERS_MAX; i++)
        if (b->given_up[i].len && luna_peer_equal(&b->given_up[i], peer)) return true;
    return false;
}

static void forgive(luna_broker *b, const luna_peer *peer)
{
    for (size_t i = 0; i < LUNA_DECODERS_MAX; i++)
        if (luna_peer_equal(&b->given_up[i], peer)) b->given_up[i].len = 0;
}

static int slot_event(zloop_t *loop, zmq_pollitem_t *item, void *broker)
{
    (void)loop;
    luna_broker *b = broker;
    for (size_t i = 0; i < b->slot_count; i++) {
        luna_slot *slot = b->slots[i];
        if (slot->monitor != item->socket) continue;
        if (luna_slot_disconnected(slot))
            luna_scheduler_disconnected(b->scheduler, slot->session, luna_now_ms());
        break;
    }
    luna_task_hand_over(b);
    return 0;
}

enum {
    PINGS_MISSED = 3,
    SPARE_DESCRIPTORS = 64  //  for producers, the store and the sockets of one slot
};

void luna_work_watch(luna_broker *b, int64_t now_ms)
{
    const int64_t silence_ms = PINGS_MISSED * (int64_t)b->settings->ping_ms;
    for (size_t i = b->slot_count; i-- > 0;) {
        const luna_slot *slot = b->slots[i];
        const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, slot->session);
        if (!slot->connected && decoder && now_ms - decoder->seen_ms > silence_ms)
            luna_scheduler_disconnected(b->scheduler, slot->session, now_ms);
    }
}

static int slot_has_room(zloop_t *loop, zmq_pollitem_t *item, void *broker)
{
    (void)loop;
    luna_broker *b = broker;
    for (size_t i = 0; i < b->slot_count; i++)
        if (zsock_resolve(b->slots[i]->push) == item->socket) {
            luna_work_flush(b, b->slots[i]);
            break;
        }
    luna_task_hand_over(b);
    return 0;
}

static void poll_room(luna_broker *b, luna_slot *slot, bool wanted)
{
    if (slot->wants_out == wanted) return;
    slot->wants_out = wanted;
    zmq_pollitem_t item = {.socket = zsock_resolve(slot->push), .events = ZMQ_POLLOUT};
    if (wanted)
        zloop_poller(b->loop, &item, slot_has_room, b);
    else
        zloop_poller_end(b->loop, &item);
}

bool luna_descriptors(const luna_broker *b, luna_descriptor_count *out)
{
    struct rlimit limit;
    const int lowest = fcntl(luna_store_fd(b->store), F_DUPFD_CLOEXEC, 0);
    if (lowest >= 0) close(lowest);
    if (lowest < 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
    *out = (luna_descriptor_count){(size_t)lowest, (size_t)limit.rlim_cur};
    return true;
}

//  ZeroMQ ends the process when it cannot accept a connection for want of a descriptor.
//  Each slot will take one more for its decoder's connection.
static luna_err check_descriptors(const luna_broker *b)
{
    luna_descriptor_count count;
    if (luna_descriptors(b, &count) &&
        count.used + SPARE_DESCRIPTORS + b->slot_count < count.limit)
        return LUNA_OK;
    return luna_error(LUNA_BUSY,
                      "%zu decoders are connected and the broker has few descriptors "
                      "left; raise its limit (ulimit -n, LimitNOFILE)",
                      b->slot_count);
}

luna_err luna_work_open(luna_broker *b, uint32_t session, const luna_peer *peer,
                        luna_slot **out)
{
    luna_slot *slot;
    if (b->slot_count == LUNA_DECODERS_MAX)
        return luna_error(LUNA_BUSY, "all %d slots are in use", LUNA_DECODERS_MAX);
    LUNA_TRY(check_descriptors(b));
    LUNA_TRY(luna_slot_open(b->current.remote ? &b->remote.namer : &b->namer, &slot));
    slot->session = session;
    slot->peer = *peer;
    forgive(b, peer);
    b->slots[b->slot_count++] = slot;
    zmq_pollitem_t item = {.socket = slot->monitor, .events = ZMQ_POLLIN};
    zloop_poller(b->loop, &item, slot_event, b);
    *out = slot;
    return LUNA_OK;
}

static void close_slot(luna_broker *b, size_t i)
{
    luna_slot *slot = b->slots[i];
    zmq_pollitem_t item = {.socket = slot->monitor, .events = ZMQ_POLLIN};
    poll_room(b, slot, false);
    zloop_poller_end(b->loop, &item);
    b->slots[i] = b->slots[--b->slot_count];
    luna_slot_close(&slot);
}

//  The decoder must say hello before it is heard again.
void luna_work_give_up(luna_broker *b, uint32_t session)
{
    for (size_t i = 0; i < b->slot_count; i++) {
        if (b->slots[i]->session != session) continue;
        b->given_up[b->given_up_next++ % LUNA_DECODERS_MAX] = b->slots[i]->peer;
        close_slot(b, i);
        return;
    }
}

void luna_work_close_all(luna_broker *b)
{
    while (b->slot_count > 0) close_slot(b, b->slot_count - 1);
}

//  ---- work ----------------------------------------------------------------------

//  The images the decoder need not make again; the caller frees *out.
static size_t list_saved(const luna_job *job, luna_msg_image_key **out)
{
    *out = job->images_done ? calloc(job->images_done, sizeof **out) : NULL;
    size_t count = 0;
    for (uint64_t input = 0; *out && input < LUNA_MAX_INPUTS; input++)
        for (uint64_t index = 0; index < job->images; index++)
            if (count < job->images_done && luna_job_image_saved(job, input, index))
                (*out)[count++] = (luna_msg_image_key){.input = input, .index = index};
    return count;
}

//  The path for a decoder that can map it, the bytes for another: read, since a disk that
//  fails under a mapping would end the process. The caller frees *file.
static luna_err fill_payload(luna_broker *b, const luna_job *job, luna_msg_work *work,
                             char *path, char **file)
{
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, job->session);
    LUNA_TRY(luna_store_payload_path(b->store, &job->id, path, LUNA_MAX_PATH_BYTES));
    work->payload_bytes = job->bytes + LUNA_PAYLOAD_HEADER_BYTES;
    if (decoder->maps_payload) {
        work->payload_path = luna_text_of(path);
        return LUNA_OK;
    }
    b->untrimmed = true;
    size_t len;
    const luna_err err = luna_file_read(path, work->payload_bytes, file, &len);
    if (err == LUNA_TOO_LARGE)
        return luna_error(LUNA_IO, "damaged payload: %s is longer than it was", path);
    LUNA_TRY(err);
    work->payload = (luna_blob){.data = *file, .len = len};
    luna_payload payload;
    return luna_payload_open(*file, len, &payload);
}

//  Packs straight into the message that is sent.
static luna_err encode(const luna_msg_work *work, zmq_msg_t *msg)
{
    size_t used;
    const size_t len = luna_msg_size(LUNA_MSG_WORK, work);
    if (len == 0 || zmq_msg_init_size(msg, len) != 0)
        return luna_error(LUNA_NO_MEMORY, "no memory for a work message of %zu bytes",
                          len);
    const luna_err err =
        luna_msg_encode(LUNA_MSG_WORK, work, zmq_msg_data(msg), len, &used);
    if (err != LUNA_OK) zmq_msg_close(msg);
    return err;
}

static luna_err pack_work(luna_broker *b, const luna_job *job, zmq_msg_t *msg)
{
    char path[LUNA_MAX_PATH_BYTES];
    char *file = NULL;
    luna_msg_image_key *done;
    luna_msg_work work = {.id = job->id,
                          .attempt = job->attempts,
                          .epoch = b->epoch,
                          .lease_ms = b->settings->lease_ms};
    work.done.count = list_saved(job, &done);
    work.done.items = done;
    luna_err err = fill_payload(b, job, &work, path, &file);
    if (err == LUNA_OK) err = encode(&work, msg);
    free(file);
    free(done);
    return err;
}

//  False when the pipe has no room now.
static bool send_work(luna_broker *b, luna_slot *slot, const luna_job *job)
{
    zmq_msg_t msg;
    const luna_err err = pack_work(b, job, &msg);
    if (err == LUNA_NO_MEMORY) return false;
    if (err != LUNA_OK) {
        luna_scheduler_unreadable(
            b->scheduler, &job->id,
            &(luna_verdict){LUNA_JOB_FAILED, luna_err_name(err), luna_error_text()});
        return true;
    }
    if (zmq_msg_send(&msg, zsock_resolve(slot->push), ZMQ_DONTWAIT) >= 0) return true;
    zmq_msg_close(&msg);
    return false;
}

static void tell_dispatched(luna_broker *b, const luna_job *job)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&job->id, id);
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, job->session);
    luna_metrics_dispatched(b, job);
    luna_log(LUNA_LOG_INFO, "dispatched", "job=%s attempt=%u decoder=%s", id,
             job->attempts, decoder->name);
    const luna_msg_job_info info = luna_info_job(b, job);
    luna_events_job(b, "dispatched", &info);
}

//  The job while this attempt still is what the slot should send.
static const luna_job *still_wanted(const luna_broker *b, const luna_slot *slot,
                                    const luna_job_key *key)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &key->id);
    const bool same = job && job->place == LUNA_PLACE_RUNNING &&
                      job->session == slot->session && job->attempts == key->attempt;
    return same ? job : NULL;
}

void luna_work_flush(luna_broker *b, luna_slot *slot)
{
    size_t sent = 0;
    for (; sent < slot->outbox_count; sent++) {
        const luna_job *job = still_wanted(b, slot, &slot->outbox[sent]);
        if (!job) continue;
        if (!(zsock_events(slot->push) & ZMQ_POLLOUT) || !send_work(b, slot, job)) break;
        if (job->place == LUNA_PLACE_RUNNING) tell_dispatched(b, job);
    }
    slot->outbox_count -= sent;
    memmove(slot->outbox, slot->outbox + sent, slot->outbox_count * sizeof *slot->outbox);
    poll_room(b, slot, slot->outbox_count > 0);
}

void luna_work_queue(luna_broker *b, luna_slot *slot, const luna_job_key *key)
{
    //  Holds bound it; what is in the way is no longer wanted.
    if (slot->outbox_count == LUNA_HOLDS_MAX) luna_work_flush(b, slot);
    if (slot->outbox_count == LUNA_HOLDS_MAX) return;
    slot->outbox[slot->outbox_count++] = *key;
    luna_work_flush(b, slot);
}

void luna_work_stop(luna_broker *b, const luna_peer *peer, const luna_job_key *key)
{
    const luna_msg_order order = {.id = key->id, .attempt = key->attempt};
    if (luna_control_send(b, peer, LUNA_MSG_CANCEL, &order)) return;
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&key->id, id);
    luna_log(LUNA_LOG_DEBUG, "cancel_dropped",
             "job=%s next=\"its decoder is gone or will be told again\"", id);
}
