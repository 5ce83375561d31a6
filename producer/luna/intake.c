//  Sending jobs until their receipts are there
//
//  At most WINDOW jobs are under way: enough for the broker to store several with one
//  sync, few enough that a slow disk does not make all of them overdue at once. A busy
//  broker is left alone for the time it asks for, with all jobs: the oldest goes first.

#include "producer/luna/client.h"

#include "common/clock.h"

#define WINDOW       32
#define RETRY_MIN_MS 10
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

//  Sends queued jobs while the window and the intake have room.
static bool push_jobs(luna_client *client, int64_t now_ms)
{
    luna_jobs *jobs = &client->jobs;
    luna_entry *entry;
    bool room = true;
    while (room && luna_jobs_flying(jobs) < WINDOW && (entry = luna_jobs_next(jobs))) {
        room = luna_link_push(&client->link, entry->body, entry->bytes) == LUNA_OK;
        if (room) luna_jobs_sent(jobs, entry, now_ms);
    }
    return room;
}

int64_t luna_intake_tick(luna_client *client, int64_t now_ms, bool *wants_room)
{
    const bool held = now_ms < client->session.hold_ms;
    *wants_room = false;
    if (!client->session.up) return INT64_MAX;
    pthread_mutex_lock(&client->lock);
    luna_jobs_overdue(&client->jobs, now_ms, client->options.receipt_timeout_max_ms);
    *wants_room = !held && !push_jobs(client, now_ms);
    const int64_t overdue_ms = luna_jobs_deadline(&client->jobs);
    pthread_mutex_unlock(&client->lock);
    if (held) return earlier(overdue_ms, client->session.hold_ms);
    if (*wants_room) return earlier(overdue_ms, note_blocked(client, now_ms));
    client->session.blocked_ms = 0;
    return overdue_ms;
}

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

static luna_buffer *settle(luna_jobs *jobs, luna_entry *entry,
                           const luna_msg_receipt *receipt)
{
    char detail[sizeof((luna_receipt *)0)->detail];
    if (luna_text_is(receipt->status, "refused")) {
        luna_text_copy(receipt->detail, detail, sizeof detail);
        return luna_jobs_settle(jobs, entry, refusal(receipt), detail);
    }
    entry->position = receipt->position;
    entry->images = receipt->images;
    entry->duplicate = receipt->duplicate;
    return luna_jobs_settle(jobs, entry, LUNA_OK, NULL);
}

//  A word that this build does not know settles nothing: the job is sent again.
void luna_intake_receipt(luna_client *client, const luna_msg_receipt *receipt,
                         int64_t now_ms)
{
    const bool busy = luna_text_is(receipt->status, "busy");
    const bool ends = luna_text_is(receipt->status, "accepted") ||
                      luna_text_is(receipt->status, "refused");
    luna_buffer *body = NULL;
    pthread_mutex_lock(&client->lock);
    luna_entry *entry = luna_jobs_find(&client->jobs, &receipt->id);
    if (entry && entry->state != LUNA_ENTRY_SETTLED) {
        if (busy) {
            luna_jobs_again(&client->jobs, entry);
            hold(client, receipt->retry_ms, now_ms);
        } else if (ends) {
            body = settle(&client->jobs, entry, receipt);
            pthread_cond_broadcast(&client->changed);
        }
    }
    pthread_mutex_unlock(&client->lock);
    luna_buffer_release(body);
}
