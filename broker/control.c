//  control.c - the ROUTER: what peers say, by type
//
//  A decoder is known by the routing id it said hello on; whatever comes on another
//  one is nobody's. A decoder that is not known (the broker was restarted, or gave it
//  up) gets a pong with an epoch that is not its own, which makes it say hello again.
//  The pictures it reports are recorded all the same.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/handover.h"
#include "common/log.h"

#include <string.h>

enum { MESSAGES_A_ROUND = 64 };

bool luna_control_send(luna_broker *b, const luna_peer *peer, luna_msg_type type,
                       const void *message)
{
    void *bytes;
    size_t len;
    if (luna_msg_pack(type, message, &bytes, &len) != LUNA_OK) {
        luna_log(LUNA_LOG_ERROR, "unsendable", "type=%d detail=\"%s\"", (int)type,
                 luna_error_text());
        return false;
    }
    //  Routing ids are random: a peer is of this machine or of another one.
    void *other = b->remote.control ? zsock_resolve(b->remote.control) : NULL;
    return luna_unsent_send(zsock_resolve(b->control), other, peer, bytes, len);
}

static uint32_t session_of(const luna_broker *b, const luna_peer *peer)
{
    const luna_slot *slot = luna_work_peer(b, peer);
    return slot ? slot->session : 0;
}

//  ---- hello ---------------------------------------------------------------------

//  Intake, events and slot: of this machine as they are, of another one by their ports.
static void tell_endpoints(const luna_broker *b, const luna_slot *slot,
                           char out[3][LUNA_ENDPOINT_BYTES])
{
    const bool remote = b->current.remote;
    const char *const all[] = {remote ? b->remote.bound[1] : b->settings->intake,
                               remote ? b->remote.bound[2] : b->settings->events,
                               slot ? slot->endpoint : ""};
    for (size_t i = 0; i < 3; i++)
        if (remote)
            luna_remote_told(all[i], out[i], LUNA_ENDPOINT_BYTES);
        else
            snprintf(out[i], LUNA_ENDPOINT_BYTES, "%s", all[i]);
}

//  A decoder has a slot, a producer is a client.
static void welcome(luna_broker *b, const luna_peer *peer, const luna_slot *slot,
                    const luna_id *client)
{
    char where[3][LUNA_ENDPOINT_BYTES];
    tell_endpoints(b, slot, where);
    const luna_msg_welcome message = {
        .epoch = b->epoch,
        .version = luna_text_of(LUNA_VERSION),
        .intake = luna_text_of(where[0]),
        .events = luna_text_of(where[1]),
        .slot = luna_text_of(slot ? where[2] : NULL),
        .spool_dir = luna_text_of(slot ? b->settings->spool_dir : NULL),
        .host = luna_text_of(b->host),
        .lease_ms = b->settings->lease_ms,
        .ping_ms = b->settings->ping_ms,
        .max_job_bytes = b->settings->max_job_bytes,
        .offer_first = client && luna_credit_low(b, client)};
    luna_control_send(b, peer, LUNA_MSG_WELCOME, &message);
}

static void stop_not_adopted(luna_broker *b, const luna_decoder *decoder,
                             const luna_peer *peer, const luna_msg_hello *hello)
{
    for (size_t i = 0; i < hello->running.count; i++) {
        const luna_job_key *key = &hello->running.items[i];
        if (!luna_decoder_holds(decoder, key)) luna_work_stop(b, peer, key);
    }
}

static luna_err greet(luna_broker *b, const luna_peer *peer, const luna_msg_hello *hello)
{
    uint32_t session;
    luna_slot *slot;
    LUNA_TRY(luna_scheduler_hello(b->scheduler, hello, luna_now_ms(), &session));
    const luna_err err = luna_work_open(b, session, peer, &slot);
    if (err != LUNA_OK) {
        luna_scheduler_bye(b->scheduler, session, luna_now_ms());
        return err;
    }
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, session);
    luna_log(LUNA_LOG_INFO, "decoder_hello",
             "decoder=%s device=%s pid=%llu version=%s formats=\"%s\" running=%zu "
             "adopted=%zu",
             decoder->name, decoder->device, (unsigned long long)decoder->pid,
             decoder->version, decoder->format_words, hello->running.count,
             decoder->hold_count);
    welcome(b, peer, slot, NULL);
    stop_not_adopted(b, decoder, peer, hello);
    return LUNA_OK;
}

//  One routing id is one decoder: an earlier one on it is replaced.
static luna_err take_hello(luna_broker *b, luna_message *message)
{
    luna_msg_hello hello;
    LUNA_TRY(luna_packet_read(message->packet, &hello));
    if (luna_text_is(hello.role, "producer")) {
        welcome(b, &message->peer, NULL, &hello.instance);
        return LUNA_OK;
    }
    if (!luna_text_is(hello.role, "decoder"))
        return luna_error(LUNA_BAD_REQUEST, "the role must be producer or decoder");
    const luna_decoder *old =
        luna_scheduler_decoder(b->scheduler, session_of(b, &message->peer));
    if (old && luna_id_compare(&old->instance, &hello.instance) != 0)
        luna_scheduler_disconnected(b->scheduler, old->session, luna_now_ms());
    return greet(b, &message->peer, &hello);
}

//  ---- life ----------------------------------------------------------------------

static void pong(luna_broker *b, const luna_peer *peer, const luna_id *epoch)
{
    const luna_decoder *decoder =
        luna_scheduler_decoder(b->scheduler, session_of(b, peer));
    const char *order = decoder && decoder->draining ? "drain" : "run";
    luna_control_send(b, peer, LUNA_MSG_PONG,
                      &(luna_msg_pong){.epoch = *epoch, .order = luna_text_of(order)});
}

void luna_control_pong(luna_broker *b, const luna_peer *peer)
{
    pong(b, peer, luna_work_gave_up(b, peer) ? &b->nobodys_epoch : &b->epoch);
}

//  Producers and others that only ask ping too; they are no decoder.
static luna_err take_ping(luna_broker *b, luna_message *message)
{
    luna_msg_ping ping;
    LUNA_TRY(luna_packet_read(message->packet, &ping));
    luna_scheduler_seen(b->scheduler, session_of(b, &message->peer), &ping,
                        luna_now_ms());
    luna_control_pong(b, &message->peer);
    return LUNA_OK;
}

//  False, after asking for a hello, when the peer is no known decoder.
static bool is_decoder(luna_broker *b, const luna_peer *peer)
{
    if (session_of(b, peer)) return true;
    pong(b, peer, &b->nobodys_epoch);
    return false;
}

static luna_err take_credit(luna_broker *b, luna_message *message)
{
    luna_msg_ready ready;
    LUNA_TRY(luna_packet_read(message->packet, &ready));
    if (!is_decoder(b, &message->peer)) return LUNA_OK;
    const uint32_t session = session_of(b, &message->peer);
    luna_scheduler_credit(b->scheduler, session, &ready);
    const luna_decoder *decoder = luna_scheduler_decoder(b->scheduler, session);
    luna_log(LUNA_LOG_DEBUG, "decoder_credit", "decoder=%s jobs=%llu bytes=%llu",
             decoder->name, (unsigned long long)ready.credit_jobs,
             (unsigned long long)ready.credit_bytes);
    luna_events_decoder(b, "ready", decoder);
    return LUNA_OK;
}

static luna_err take_bye(luna_broker *b, luna_message *message)
{
    luna_scheduler_bye(b->scheduler, session_of(b, &message->peer), luna_now_ms());
    return LUNA_OK;
}

//  ---- results -------------------------------------------------------------------

//  One line a message, for a list may be long.
static void log_strange(const luna_id *id, const luna_msg_image *one, size_t count)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    luna_log(
        LUNA_LOG_WARNING, "images_ignored",
        "job=%s count=%zu input=%llu index=%llu detail=\"the job has no such image\" "
        "next=\"the others are kept\"",
        text, count, (unsigned long long)one->input, (unsigned long long)one->index);
}

//  Leaves out what the job does not have, so that it is neither counted nor recorded;
//  returns how many stay. The items are the packet's own copy. Of a job that has ended
//  the store knows.
static size_t own_images(const luna_broker *b, const luna_job_key *key,
                         const luna_msg_image *items, size_t count)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &key->id);
    if (!job) return count;
    luna_msg_image *own = (luna_msg_image *)items, strange = {0};
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (luna_job_has_image(job, items[i].input, items[i].index))
            own[kept++] = items[i];
        else
            strange = items[i];
    if (kept < count) log_strange(&key->id, &strange, count - kept);
    return kept;
}

//  Marks what the message says is saved; what is new is to be recorded.
static void note_saved(luna_broker *b, const luna_job_key *key,
                       const luna_msg_image *images, size_t count)
{
    const uint32_t session = session_of(b, &b->current.message->peer);
    const int64_t fresh =
        luna_scheduler_images(b->scheduler, session, key, images, count);
    //  Of a job that has ended meanwhile the store knows which are new.
    const bool ended = session && !luna_scheduler_find(b->scheduler, &key->id);
    if (fresh > 0 || (ended && count > 0))
        b->current.saved = (luna_store_images){.items = images, .count = count};
    if (fresh <= 0) return;
    //  A final list repeats what was told before.
    luna_metrics_images(b, images + count - fresh, (size_t)fresh);
}

static luna_err take_progress(luna_broker *b, luna_message *message)
{
    luna_msg_progress progress;
    LUNA_TRY(luna_packet_read(message->packet, &progress));
    const luna_job_key key = {.id = progress.id, .attempt = progress.attempt};
    const luna_peer peer = message->peer;
    progress.images.count =
        own_images(b, &key, progress.images.items, progress.images.count);
    luna_scheduler_stage(b->scheduler, session_of(b, &peer), &key, progress.stage,
                         luna_now_ms());
    note_saved(b, &key, progress.images.items, progress.images.count);
    if (is_decoder(b, &peer) &&
        !luna_scheduler_progress(b->scheduler, session_of(b, &peer), &key, luna_now_ms()))
        luna_work_stop(b, &peer, &key);
    luna_dispatch_record(b, &key.id);
    return LUNA_OK;
}

//  The final list is recorded with the end, in one transaction, even when each of its
//  images is known already.
static luna_err take_done(luna_broker *b, luna_message *message)
{
    luna_msg_done done;
    LUNA_TRY(luna_packet_read(message->packet, &done));
    const luna_job_key key = {.id = done.id, .attempt = done.attempt};
    done.images.count = own_images(b, &key, done.images.items, done.images.count);
    const uint32_t session = session_of(b, &message->peer);
    note_saved(b, &key, done.images.items, done.images.count);
    const bool fresh = b->current.saved.count > 0;
    b->current.saved = (luna_store_images){done.images.items, done.images.count};
    b->current.vae = (luna_store_vae){done.vae, done.vae_path, done.vae_sha256};
    is_decoder(b, &message->peer);
    luna_scheduler_done(b->scheduler, session, &key, luna_now_ms());
    if (fresh) luna_dispatch_record(b, &key.id);
    return LUNA_OK;
}

static luna_err take_failed(luna_broker *b, luna_message *message)
{
    luna_msg_failed failed;
    LUNA_TRY(luna_packet_read(message->packet, &failed));
    if (is_decoder(b, &message->peer))
        luna_scheduler_failed(b->scheduler, session_of(b, &message->peer), &failed,
                              luna_now_ms());
    return LUNA_OK;
}

//  ---- by type -------------------------------------------------------------------

static luna_err take_question(luna_broker *b, luna_message *message)
{
    switch (luna_packet_type(message->packet)) {
        case LUNA_MSG_QUERY:
            luna_answer_query(b, message);
            return LUNA_OK;
        case LUNA_MSG_CANCEL:
        case LUNA_MSG_RETRY:
        case LUNA_MSG_PRIORITISE:
        case LUNA_MSG_PAUSE:
        case LUNA_MSG_RESUME:
        case LUNA_MSG_DRAIN:
            luna_order_take(b, message);
            return LUNA_OK;
        case LUNA_MSG_OFFER:
            return luna_credit_offer(b, message);
        default:
            return luna_error(LUNA_PROTOCOL, "the broker takes no message of this type");
    }
}

static luna_err take_typed(luna_broker *b, luna_message *message)
{
    switch (luna_packet_type(message->packet)) {
        case LUNA_MSG_HELLO:
            return take_hello(b, message);
        case LUNA_MSG_READY:
        case LUNA_MSG_CREDIT:
            return take_credit(b, message);
        case LUNA_MSG_PING:
            return take_ping(b, message);
        case LUNA_MSG_BYE:
            return take_bye(b, message);
        case LUNA_MSG_PROGRESS:
            return take_progress(b, message);
        case LUNA_MSG_DONE:
            return take_done(b, message);
        case LUNA_MSG_FAILED:
            return take_failed(b, message);
        default:
            return take_question(b, message);
    }
}

static luna_err take(luna_broker *b, luna_message *message)
{
    LUNA_TRY(luna_packet_open(zframe_data(message->frame), zframe_size(message->frame),
                              &message->packet));
    luna_scheduler_seen(b->scheduler, session_of(b, &message->peer), NULL, luna_now_ms());
    return take_typed(b, message);
}

static void complain(luna_broker *b, const luna_peer *peer, luna_err err)
{
    b->tally.bad_messages++;
    luna_log(LUNA_LOG_WARNING, "bad_message", "err=%s detail=\"%s\"", luna_err_name(err),
             luna_error_text());
    const luna_msg_answer answer = {.error = luna_text_of(luna_err_name(err)),
                                    .detail = luna_text_of(luna_error_text())};
    luna_control_send(b, peer, LUNA_MSG_ANSWER, &answer);
}

//  Routing id, then the message in the last frame: an empty delimiter, which a REQ
//  would send, is passed over.
static bool receive(zsock_t *reader, luna_message *message)
{
    zframe_t *id = zframe_recv(reader);
    if (!id) return false;
    message->peer.len = (uint8_t)zframe_size(id);  //  ZeroMQ's limit is 255
    memcpy(message->peer.id, zframe_data(id), message->peer.len);
    zframe_destroy(&id);
    while (zsock_rcvmore(reader)) {
        zframe_destroy(&message->frame);
        message->frame = zframe_recv(reader);
        if (!message->frame) break;
        LUNA_TAKE_OVER(zframe_data(message->frame));
    }
    return true;
}

int luna_control_ready(zloop_t *loop, zsock_t *reader, void *broker)
{
    (void)loop;
    luna_broker *b = broker;
    for (int i = 0; i < MESSAGES_A_ROUND && zsock_events(reader) & ZMQ_POLLIN; i++) {
        luna_message message = {0};
        if (!receive(reader, &message)) break;
        //  A probe (PROBE_ROUTER) is an empty message.
        if (message.frame && zframe_size(message.frame) > 0) {
            const luna_peer peer = message.peer;
            b->current = (luna_current){.message = &message,
                                        .remote = reader == b->remote.control};
            const luna_err err = take(b, &message);
            if (err != LUNA_OK) complain(b, &peer, err);
            b->current = (luna_current){0};
        }
        luna_message_close(&message);
    }
    luna_dispatch_settle(b);
    return 0;
}
