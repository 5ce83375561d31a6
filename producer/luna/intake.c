//  Sending jobs until their receipts are there
//
//  At most WINDOW jobs are under way: enough for the broker to store several with one
//  sync, few enough that a slow disk does not make all of them overdue at once. A busy
//  broker is left alone for the time it asks for, with all jobs: the oldest goes first.
//
//  A broker that has no credit for us wants each job offered before its bytes move. One
//  offer at a time, for the next job, keeps the order; without its need there is none,
//  and no round trip.

#include "producer/luna/client.h"

#include "common/clock.h"

#define WINDOW       32
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 60000

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

//  A pipe that takes nothing for very long is replaced: libzmq has been seen to
//  leave one stuck for ever. What was in it becomes overdue and is sent again.
static int64_t note_blocked(luna_client *client, int64_t now_ms)
{
    luna_session *session = &client->session;
    if (session->blocked_ms == 0) session->blocked_ms = now_ms;
    const int64_t limit_ms = session->blocked_ms + client->options.receipt_timeout_max_ms;
    if (now_ms < limit_ms) return limit_ms;
    session->blocked_ms = 0;
    if (luna_link_intake(&client->link, luna_text_of(session->intake)) != LUNA_OK)
        luna_session_call(client, now_ms);
    return now_ms;
}

//  A grant or a receipt that gets lost is made up for: the offer is overdue then, and
//  the job is offered again.
static void offer(luna_client *client, luna_entry *entry, int64_t now_ms)
{
    const luna_msg_offer message = {.id = entry->id,
                                    .client = client->id,
                                    .bytes = entry->bytes,
                                    .priority = entry->priority};
    if (luna_link_send(&client->link, LUNA_MSG_OFFER, &message) == LUNA_OK)
        luna_jobs_offered(&client->jobs, entry, now_ms);
    else
        client->session.hold_ms = now_ms + RETRY_MIN_MS;
}

static bool must_offer(const luna_client *client, const luna_entry *entry)
{
    return (client->session.offer_first || client->session.told_busy) && !entry->granted;
}

//  Sends queued jobs while the window and the intake have room. False: the intake has
//  none.
static bool push_jobs(luna_client *client, int64_t now_ms)
{
    luna_jobs *jobs = &client->jobs;
    luna_entry *entry;
    while (luna_jobs_count(jobs, LUNA_ENTRY_FLIGHT) < WINDOW &&
           luna_jobs_count(jobs, LUNA_ENTRY_OFFERED) == 0 &&
           (entry = luna_jobs_next(jobs))) {
        if (!entry->body) {
            luna_keeper_want(client);
            break;
        }
        if (must_offer(client, entry)) {
            offer(client, entry, now_ms);
            break;
        }
        if (luna_link_push(&client->link, entry->body, entry->bytes) != LUNA_OK)
            return false;
        luna_jobs_sent(jobs, entry, now_ms);
    }
    return true;
}

int64_t luna_intake_tick(luna_client *client, int64_t now_ms, bool *wants_room)
{
    luna_session *session = &client->session;
    *wants_room = false;
    if (!session->up) return INT64_MAX;
    pthread_mutex_lock(&client->lock);
    luna_jobs_overdue(&client->jobs, now_ms, client->options.receipt_timeout_max_ms);
    if (now_ms >= session->hold_ms) *wants_room = !push_jobs(client, now_ms);
    const int64_t overdue_ms = luna_jobs_deadline(&client->jobs);
    pthread_mutex_unlock(&client->lock);
    if (now_ms < session->hold_ms) return earlier(overdue_ms, session->hold_ms);
    if (*wants_room) return earlier(overdue_ms, note_blocked(client, now_ms));
    session->blocked_ms = 0;
    return overdue_ms;
}

//  ---- what the broker says --------------------------------------------------------

//  Up to a quarter more than was asked for, so that many clients do not come back in
//  the same moment.
static void hold(luna_client *client, uint64_t retry_ms, int64_t now_ms)
{
    int64_t wait_ms = retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : (int64_t)retry_ms;
    if (wait_ms < RETRY_MIN_MS) wait_ms = RETRY_MIN_MS;
    wait_ms += luna_now_ns() / 1000 % (wait_ms / 4 + 1);
    if (client->session.hold_ms < now_ms + wait_ms)
        client->session.hold_ms = now_ms + wait_ms;
}

static luna_err refusal(const luna_msg_receipt *receipt)
{
    char name[40];
    luna_text_copy(receipt->error, name, sizeof name);
    const luna_err err = luna_err_from_name(name);
    return err == LUNA_OK ? LUNA_INTERNAL : err;
}

static luna_buffer *settle(luna_client *client, luna_entry *entry,
                           const luna_msg_receipt *receipt)
{
    char detail[sizeof((luna_receipt *)0)->detail];
    if (luna_text_is(receipt->status, "refused")) {
        luna_text_copy(receipt->detail, detail, sizeof detail);
        return luna_client_settle(client, entry, refusal(receipt), detail);
    }
    entry->position = receipt->position;
    entry->images = receipt->images;
    entry->duplicate = receipt->duplicate;
    return luna_client_settle(client, entry, LUNA_OK, NULL);
}

static void told_busy(luna_client *client, const luna_msg_receipt *receipt,
                      int64_t now_ms)
{
    char detail[LUNA_NOTICE_TEXT_BYTES];
    const luna_err cause = receipt->error.len ? refusal(receipt) : LUNA_BUSY;
    luna_text_copy(receipt->detail, detail, sizeof detail);
    hold(client, receipt->retry_ms, now_ms);
    client->session.told_busy = true;
    luna_notice_begin(&client->notices, LUNA_TROUBLE_BUSY, cause, detail,
                      receipt->retry_ms);
}

static void busy_no_more(luna_client *client)
{
    client->session.told_busy = false;
    luna_notice_end(&client->notices, LUNA_TROUBLE_BUSY);
}

//  A word that this build does not know settles nothing: the job is sent again.
static luna_buffer *take(luna_client *client, luna_entry *entry,
                         const luna_msg_receipt *receipt, int64_t now_ms)
{
    if (luna_text_is(receipt->status, "busy")) {
        luna_jobs_again(&client->jobs, entry);
        told_busy(client, receipt, now_ms);
    } else if (luna_text_is(receipt->status, "send")) {
        luna_jobs_grant(&client->jobs, entry);
        busy_no_more(client);
    } else if (luna_text_is(receipt->status, "accepted") ||
               luna_text_is(receipt->status, "refused")) {
        return settle(client, entry, receipt);
    }
    return NULL;
}

//  Only an acceptance tells that there is credit; from other receipts the absence of
//  `offer_first` means nothing.
void luna_intake_receipt(luna_client *client, const luna_msg_receipt *receipt,
                         int64_t now_ms)
{
    luna_session *session = &client->session;
    luna_buffer *body = NULL;
    if (receipt->offer_first || luna_text_is(receipt->status, "accepted"))
        session->offer_first = receipt->offer_first;
    pthread_mutex_lock(&client->lock);
    luna_entry *entry = luna_jobs_find(&client->jobs, &receipt->id);
    if (entry && entry->state != LUNA_ENTRY_SETTLED)
        body = take(client, entry, receipt, now_ms);
    pthread_mutex_unlock(&client->lock);
    luna_buffer_release(body);
}

//  Others may have been granted the same room: the next job is offered all the same,
//  unless there is none to offer.
void luna_intake_grant(luna_client *client, const luna_msg_grant *grant)
{
    client->session.hold_ms = 0;
    client->session.offer_first = grant->offer_first;
    pthread_mutex_lock(&client->lock);
    if (luna_jobs_unsettled(&client->jobs) == 0) busy_no_more(client);
    pthread_mutex_unlock(&client->lock);
}

void luna_intake_welcome(luna_client *client, const luna_msg_welcome *welcome, bool other)
{
    luna_session *session = &client->session;
    session->offer_first = welcome->offer_first;
    if (!other) return;
    session->hold_ms = session->blocked_ms = 0;
    pthread_mutex_lock(&client->lock);
    busy_no_more(client);
    luna_jobs_again_all(&client->jobs);
    pthread_mutex_unlock(&client->lock);
}
