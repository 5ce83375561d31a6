//  dispatch.c - the scheduler's decisions, carried out
//
//  A decision becomes a store operation first and is told to others when that is
//  back. Work waits in its slot's outbox while the pipe is full or the decoder has
//  not connected yet; a lease that ends meanwhile takes it back.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "proto/payload.h"

#include <stdlib.h>
#include <string.h>

//  ---- slots ---------------------------------------------------------------------

luna_slot *luna_dispatch_slot(const luna_broker *b, uint32_t session)
{
    for (size_t i = 0; i < b->slot_count; i++)
        if (b->slots[i]->session == session) return b->slots[i];
    return NULL;
}

luna_slot *luna_dispatch_peer(const luna_broker *b, const luna_peer *peer)
{
    luna_slot *latest = NULL;
    for (size_t i = 0; i < b->slot_count; i++) {
        luna_slot *each = b->slots[i];
        if (!luna_peer_equal(&each->peer, peer)) continue;
        if (!latest || each->session > latest->session) latest = each;
    }
    return latest;
}

bool luna_dispatch_gave_up(const luna_broker *b, const luna_peer *peer)
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
        return 0;
    }
    return 0;
}

static int slot_has_room(zloop_t *loop, zmq_pollitem_t *item, void *broker)
{
    (void)loop;
    luna_broker *b = broker;
    for (size_t i = 0; i < b->slot_count; i++)
        if (zsock_resolve(b->slots[i]->push) == item->socket) {
            luna_dispatch_flush(b, b->slots[i]);
            return 0;
        }
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

luna_err luna_dispatch_open(luna_broker *b, uint32_t session, const luna_peer *peer,
                            luna_slot **out)
{
    luna_slot *slot;
    if (b->slot_count == LUNA_DECODERS_MAX)
        return luna_error(LUNA_BUSY, "all %d slots are in use", LUNA_DECODERS_MAX);
    LUNA_TRY(luna_slot_open(&b->namer, &slot));
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

void luna_dispatch_close_all(luna_broker *b)
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

//  The path for a decoder that can map it, the bytes for another.
static luna_err fill_payload(luna_broker *b, const luna_job *job, luna_msg_work *work,
                             char *path, luna_map *map)
{
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, job->session);
    LUNA_TRY(luna_store_payload_path(b->store, &job->id, path, LUNA_MAX_PATH_BYTES));
    work->payload_bytes = job->bytes + LUNA_PAYLOAD_HEADER_BYTES;
    if (decoder->maps_payload) {
        work->payload_path = luna_text_of(path);
        return LUNA_OK;
    }
    LUNA_TRY(luna_map_open(path, map));
    work->payload = (luna_blob){.data = map->data, .len = map->len};
    luna_payload payload;
    return luna_payload_open(map->data, map->len, &payload);
}

static luna_err pack_work(luna_broker *b, const luna_job *job, void **bytes, size_t *len)
{
    char path[LUNA_MAX_PATH_BYTES];
    luna_map map = {0};
    luna_msg_image_key *done;
    luna_msg_work work = {.id = job->id,
                          .attempt = job->attempts,
                          .epoch = b->epoch,
                          .lease_ms = b->settings->lease_ms};
    work.done.count = list_saved(job, &done);
    work.done.items = done;
    luna_err err = fill_payload(b, job, &work, path, &map);
    if (err == LUNA_OK) err = luna_msg_pack(LUNA_MSG_WORK, &work, bytes, len);
    luna_map_close(&map);
    free(done);
    return err;
}

static void free_bytes(void *data, void *hint)
{
    (void)hint;
    free(data);
}

//  False when the pipe has no room now.
static bool send_work(luna_broker *b, luna_slot *slot, const luna_job *job)
{
    void *bytes;
    size_t len;
    zmq_msg_t msg;
    const luna_err err = pack_work(b, job, &bytes, &len);
    if (err == LUNA_NO_MEMORY) return false;
    if (err != LUNA_OK) {
        luna_scheduler_unreadable(
            b->scheduler, &job->id,
            &(luna_verdict){LUNA_JOB_FAILED, luna_err_name(err), luna_error_text()});
        return true;
    }
    zmq_msg_init_data(&msg, bytes, len, free_bytes, NULL);
    if (zmq_msg_send(&msg, zsock_resolve(slot->push), ZMQ_DONTWAIT) >= 0) return true;
    zmq_msg_close(&msg);
    return false;
}

static void tell_dispatched(luna_broker *b, const luna_job *job)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&job->id, id);
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, job->session);
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

void luna_dispatch_flush(luna_broker *b, luna_slot *slot)
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

static void queue_work(luna_broker *b, luna_slot *slot, const luna_job_key *key)
{
    //  Holds bound it; what is in the way is no longer wanted.
    if (slot->outbox_count == LUNA_HOLDS_MAX) luna_dispatch_flush(b, slot);
    if (slot->outbox_count == LUNA_HOLDS_MAX) return;
    slot->outbox[slot->outbox_count++] = *key;
    luna_dispatch_flush(b, slot);
}

//  ---- the scheduler's calls -----------------------------------------------------

static void attempt_stored(luna_broker *b, luna_task *task)
{
    const luna_job_key key = {.id = task->op.id, .attempt = task->attempt};
    if (task->op.err != LUNA_OK) {
        luna_log(LUNA_LOG_ERROR, "attempt_not_stored", "err=%s detail=\"%s\"",
                 luna_err_name(task->op.err), task->op.detail);
        luna_scheduler_not_started(b->scheduler, &key, luna_now_ms());
        return;
    }
    const uint32_t session = luna_scheduler_started(
        b->scheduler, &key, (int64_t)task->op.in.attempt.started_ms, luna_now_ms());
    luna_slot *slot = session ? luna_dispatch_slot(b, session) : NULL;
    if (slot) queue_work(b, slot, &key);
}

static void start(void *context, const luna_job *job, const luna_decoder *decoder)
{
    luna_broker *b = context;
    luna_task *task = luna_task_new(LUNA_STORE_ATTEMPT, &job->id, attempt_stored);
    if (!task) return;  //  taken back when the lease ends
    memcpy(task->name, decoder->name, sizeof task->name);
    task->attempt = job->attempts;
    task->op.in.attempt = (luna_store_attempt){.attempt = job->attempts,
                                               .decoder = luna_text_of(task->name),
                                               .started_ms = (uint64_t)luna_wall_ms()};
    luna_task_submit(b, task);
}

static void tell_ended(luna_broker *b, const luna_task *task, const luna_job *job)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    const char *state = luna_job_state_name(task->op.in.finish.state);
    luna_log(
        task->op.in.finish.state == LUNA_JOB_FAILED ? LUNA_LOG_WARNING : LUNA_LOG_INFO,
        state, "job=%s attempts=%u images=%u/%u decoder=%s err=%s detail=\"%s\"", id,
        job->attempts, job->images_done, job->images, task->name, task->error,
        task->detail);
    luna_msg_job_info info = luna_info_job(b, job);
    info.state = luna_text_of(state);
    info.finished_ms = task->op.in.finish.finished_ms;
    info.decoder = luna_text_of(task->name[0] ? task->name : NULL);
    info.error = luna_text_of(task->error[0] ? task->error : NULL);
    info.detail = luna_text_of(task->detail[0] ? task->detail : NULL);
    info.files.items = task->op.in.finish.images.items;
    info.files.count = task->op.in.finish.images.count;
    luna_events_job(b, state, &info);
}

static void end_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    if (task->op.err == LUNA_OK) {
        b->ended[task->op.in.finish.state]++;
        if (job) tell_ended(b, task, job);
    } else {
        luna_log(LUNA_LOG_ERROR, "end_not_stored", "err=%s detail=\"%s\"",
                 luna_err_name(task->op.err), task->op.detail);
    }
    luna_scheduler_ended(b->scheduler, &task->op.id);
    if (task->order) luna_answer_order(b, &task->peer, task->re, task->op.err);
}

//  The task takes the message in hand when it brought the images.
static void take_saved(luna_broker *b, luna_task *task, luna_store_images *images)
{
    if (b->current.saved.count == 0 || b->current.saved_taken) return;
    *images = b->current.saved;
    task->message = *b->current.message;
    *b->current.message = (luna_message){0};
    b->current.saved_taken = true;
}

static void counters_stored(luna_broker *b, luna_task *task)
{
    (void)b;
    if (task->op.err != LUNA_OK)
        luna_log(LUNA_LOG_ERROR, "counters_not_stored", "err=%s detail=\"%s\"",
                 luna_err_name(task->op.err), task->op.detail);
}

//  A failed end has counted one more attempt, which the row must show.
static void store_counters(luna_broker *b, const luna_job *job)
{
    luna_task *task = luna_task_new(LUNA_STORE_REQUEUE, &job->id, counters_stored);
    if (!task) return;
    task->op.in.requeue =
        (luna_store_requeue){.lost = job->lost, .refused = job->refused};
    luna_task_submit(b, task);
}

static void finish(void *context, const luna_job *job, const luna_verdict *verdict)
{
    luna_broker *b = context;
    luna_task *task = luna_task_new(LUNA_STORE_FINISH, &job->id, end_stored);
    if (!task) return;  //  stays in progress; the next start takes it up again
    const luna_slot *slot =
        b->current.message ? luna_dispatch_peer(b, &b->current.message->peer) : NULL;
    const luna_decoder *decoder =
        slot ? luna_scheduler_decoder(b->scheduler, slot->session) : NULL;
    luna_text_copy(luna_text_of(decoder ? decoder->name : ""), task->name,
                   sizeof task->name);
    luna_text_copy(luna_text_of(verdict->error), task->error, sizeof task->error);
    luna_text_copy(luna_text_of(verdict->detail), task->detail, sizeof task->detail);
    task->op.in.finish =
        (luna_store_finish){.state = verdict->state,
                            .error = luna_text_of(task->error[0] ? task->error : NULL),
                            .detail = luna_text_of(task->detail[0] ? task->detail : NULL),
                            .finished_ms = (uint64_t)luna_wall_ms()};
    if (b->current.order) {
        task->order = true;
        task->re = b->current.re;
        task->peer = b->current.message->peer;
        b->current.order = false;
    }
    take_saved(b, task, &task->op.in.finish.images);
    if (verdict->state == LUNA_JOB_FAILED) store_counters(b, job);
    luna_task_submit(b, task);
}

static void requeue_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    //  In memory the counters are right; on the disk they lag until the next write.
    if (task->op.err != LUNA_OK)
        luna_log(LUNA_LOG_ERROR, "requeue_not_stored", "err=%s detail=\"%s\"",
                 luna_err_name(task->op.err), task->op.detail);
    if (!job || job->place == LUNA_PLACE_ENDING) return;
    luna_msg_job_info info = luna_info_job(b, job);
    info.error = luna_text_of(task->error[0] ? task->error : NULL);
    info.detail = luna_text_of(task->detail[0] ? task->detail : NULL);
    luna_events_job(b, "requeued", &info);
}

static void log_requeued(const luna_job *job, const luna_verdict *verdict)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&job->id, id);
    const int64_t wait_ms =
        job->place == LUNA_PLACE_DEFERRED ? job->wake_ms - luna_now_ms() : 0;
    luna_log(LUNA_LOG_WARNING, "requeued",
             "job=%s attempt=%u lost=%u refused=%u err=%s detail=\"%s\" next=\"again in "
             "%lld ms\"",
             id, job->attempts, job->lost, job->refused, verdict->error, verdict->detail,
             (long long)(wait_ms > 0 ? wait_ms : 0));
}

static void give_back(void *context, const luna_job *job, const luna_verdict *verdict)
{
    luna_broker *b = context;
    log_requeued(job, verdict);
    luna_task *task = luna_task_new(LUNA_STORE_REQUEUE, &job->id, requeue_stored);
    if (!task) return;
    luna_text_copy(luna_text_of(verdict->error), task->error, sizeof task->error);
    luna_text_copy(luna_text_of(verdict->detail), task->detail, sizeof task->detail);
    task->op.in.requeue = (luna_store_requeue){
        .lost = job->lost,
        .refused = job->refused,
        .error = luna_text_of(task->error[0] ? task->error : NULL),
        .detail = luna_text_of(task->detail[0] ? task->detail : NULL)};
    luna_task_submit(b, task);
}

void luna_dispatch_stop(luna_broker *b, const luna_peer *peer, const luna_id *id)
{
    const luna_slot *slot = luna_dispatch_peer(b, peer);
    const luna_decoder *decoder =
        slot ? luna_scheduler_decoder(b->scheduler, slot->session) : NULL;
    for (size_t i = 0; decoder && i < decoder->hold_count; i++)
        if (decoder->holds[i].wanted && luna_id_compare(&decoder->holds[i].id, id) == 0)
            return;
    luna_control_send(b, peer, LUNA_MSG_CANCEL, &(luna_msg_order){.id = *id});
}

static void stop(void *context, const luna_decoder *decoder, const luna_job_key *key)
{
    luna_broker *b = context;
    const luna_slot *slot = luna_dispatch_slot(b, decoder->session);
    if (!slot) return;
    if (!luna_control_send(b, &slot->peer, LUNA_MSG_CANCEL,
                           &(luna_msg_order){.id = key->id}))
        luna_log(LUNA_LOG_DEBUG, "cancel_dropped", "decoder=%s", decoder->name);
}

static void gone(void *context, const luna_decoder *decoder, const char *why)
{
    luna_broker *b = context;
    luna_log(LUNA_LOG_WARNING, "decoder_gone", "decoder=%s pid=%llu detail=\"%s\"",
             decoder->name, (unsigned long long)decoder->pid, why);
    for (size_t i = 0; i < b->slot_count; i++) {
        if (b->slots[i]->session != decoder->session) continue;
        b->given_up[b->given_up_next++ % LUNA_DECODERS_MAX] = b->slots[i]->peer;
        close_slot(b, i);
        break;
    }
    luna_events_decoder(b, "lost", decoder);
}

luna_calls luna_dispatch_calls(luna_broker *b)
{
    return (luna_calls){.context = b,
                        .start = start,
                        .finish = finish,
                        .give_back = give_back,
                        .stop = stop,
                        .gone = gone};
}

//  ---- images --------------------------------------------------------------------

static void images_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    if (task->op.err != LUNA_OK || !job) return;
    luna_msg_job_info info = luna_info_job(b, job);
    info.files.items = task->op.in.images.items;
    info.files.count = task->op.in.images.count;
    luna_events_job(b, "image", &info);
}

void luna_dispatch_record(luna_broker *b, const luna_id *id)
{
    if (b->current.saved.count == 0 || b->current.saved_taken) return;
    luna_task *task = luna_task_new(LUNA_STORE_IMAGES, id, images_stored);
    if (!task) return;
    take_saved(b, task, &task->op.in.images);
    luna_task_submit(b, task);
}

void luna_dispatch_settle(luna_broker *b)
{
    if (!b->stopping) luna_scheduler_dispatch(b->scheduler, luna_now_ms());
}
