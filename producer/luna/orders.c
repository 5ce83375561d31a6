//  Orders: what luna.h can tell the broker to do
//
//  An order about a job must not overtake the job, which comes on another socket: of a
//  job of this client the receipt is waited for first.

#include "producer/luna/client.h"

static luna_err order(luna_client *client, luna_msg_type type, luna_msg_order fields,
                      int64_t deadline_ms, uint64_t *changed)
{
    luna_question question = {.type = type, .order = fields};
    //  Where it says nothing it is the default, and stays out of the message.
    if (type != LUNA_MSG_PRIORITISE || fields.next)
        question.order.priority = LUNA_PRIORITY_DEFAULT;
    LUNA_TRY(luna_ask(client, &question, deadline_ms, NULL));
    if (changed) *changed = question.changed;
    return LUNA_OK;
}

//  Takes a job that has never been sent out of the queue. *ticket: see luna_keeper_wait.
static bool withdraw(luna_client *client, const luna_id *id, bool *under_way,
                     uint64_t *ticket)
{
    luna_buffer *body = NULL;
    pthread_mutex_lock(&client->lock);
    const uint64_t before = client->keeper.asked;
    luna_entry *entry = luna_jobs_find(&client->jobs, id);
    const bool mine = entry && entry->state != LUNA_ENTRY_SETTLED;
    const bool unsent = mine && entry->sendings == 0;
    if (unsent)
        body = luna_client_settle(client, entry, LUNA_CANCELLED,
                                  "cancelled before it was sent");
    *ticket = client->keeper.asked == before ? 0 : client->keeper.asked;
    pthread_mutex_unlock(&client->lock);
    luna_buffer_release(body);
    *under_way = mine && !unsent;
    return unsent;
}

//  What is left in the outbox would be sent by the next process.
static int wait_withdrawn(luna_client *client, uint64_t ticket, int64_t deadline_ms)
{
    luna_client_ring(client);
    pthread_mutex_lock(&client->lock);
    const bool gone = luna_keeper_wait(client, ticket, deadline_ms);
    pthread_mutex_unlock(&client->lock);
    if (gone) return LUNA_RC_OK;
    return luna_error(LUNA_TIMEOUT,
                      "the job is cancelled, but its file may still be in the outbox %s",
                      luna_keeper_dir(client));
}

int luna_cancel(luna_client *client, const char *job_id, int32_t timeout_ms)
{
    luna_id id;
    bool under_way;
    uint64_t ticket;
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &id));
    const int64_t deadline_ms = luna_deadline_ms(timeout_ms);
    if (withdraw(client, &id, &under_way, &ticket))
        return wait_withdrawn(client, ticket, deadline_ms);
    if (under_way) LUNA_TRY(luna_receipt_wait(client, &id, deadline_ms, NULL));
    return order(client, LUNA_MSG_CANCEL, (luna_msg_order){.id = id}, deadline_ms, NULL);
}

int luna_retry(luna_client *client, const char *job_id, int32_t timeout_ms)
{
    luna_id id;
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &id));
    return order(client, LUNA_MSG_RETRY, (luna_msg_order){.id = id},
                 luna_deadline_ms(timeout_ms), NULL);
}

int luna_retry_failed(luna_client *client, int32_t timeout_ms, uint64_t *changed)
{
    LUNA_TRY(luna_client_check(client));
    return order(client, LUNA_MSG_RETRY, (luna_msg_order){.failed = true},
                 luna_deadline_ms(timeout_ms), changed);
}

static bool is_unsettled(luna_client *client, const luna_id *id)
{
    pthread_mutex_lock(&client->lock);
    const luna_entry *entry = luna_jobs_find(&client->jobs, id);
    const bool unsettled = entry && entry->state != LUNA_ENTRY_SETTLED;
    pthread_mutex_unlock(&client->lock);
    return unsettled;
}

static luna_err reorder(luna_client *client, const char *job_id, luna_msg_order fields,
                        int32_t timeout_ms)
{
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &fields.id));
    const int64_t deadline_ms = luna_deadline_ms(timeout_ms);
    if (is_unsettled(client, &fields.id))
        LUNA_TRY(luna_receipt_wait(client, &fields.id, deadline_ms, NULL));
    return order(client, LUNA_MSG_PRIORITISE, fields, deadline_ms, NULL);
}

int luna_prioritise(luna_client *client, const char *job_id, uint32_t priority,
                    int32_t timeout_ms)
{
    if (priority > LUNA_PRIORITY_MAX)
        return luna_error(LUNA_USAGE, "priority %u: 0 to %d is needed",
                          (unsigned)priority, LUNA_PRIORITY_MAX);
    return reorder(client, job_id, (luna_msg_order){.priority = priority}, timeout_ms);
}

int luna_run_next(luna_client *client, const char *job_id, int32_t timeout_ms)
{
    return reorder(client, job_id, (luna_msg_order){.next = true}, timeout_ms);
}

int luna_pause(luna_client *client, int32_t timeout_ms)
{
    LUNA_TRY(luna_client_check(client));
    return order(client, LUNA_MSG_PAUSE, (luna_msg_order){0},
                 luna_deadline_ms(timeout_ms), NULL);
}

int luna_resume(luna_client *client, const char *decoder, int32_t timeout_ms,
                uint64_t *changed)
{
    LUNA_TRY(luna_client_check(client));
    return order(client, LUNA_MSG_RESUME,
                 (luna_msg_order){.decoder = luna_text_of(decoder)},
                 luna_deadline_ms(timeout_ms), changed);
}

int luna_drain(luna_client *client, const char *decoder, int32_t timeout_ms,
               uint64_t *changed)
{
    LUNA_TRY(luna_client_check(client));
    return order(client, LUNA_MSG_DRAIN,
                 (luna_msg_order){.decoder = luna_text_of(decoder)},
                 luna_deadline_ms(timeout_ms), changed);
}
