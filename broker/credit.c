//  credit.c - what may come in: limits, offers and grants
//
//  A client that asks first (an offer) is told "busy" before its bytes move; one that
//  does not is told after. Who was told "busy" gets a grant when there is room.

#include "broker/loop.h"
#include "common/log.h"

#include <string.h>

//  ---- limits --------------------------------------------------------------------

const char *luna_credit_accepting(luna_broker *b)
{
    static char why[512];
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    if (b->stopping) return "the broker is stopping";
    if (!luna_store_writable(b->store, why, sizeof why)) return why;
    if (depth.pending + depth.in_progress + depth.storing >= b->settings->max_jobs)
        return "the queue is full: [limits] max_jobs";
    if (depth.bytes >= b->settings->max_queued_bytes)
        return "the queue is full: [limits] max_queued_bytes";
    return "yes";
}

//  A client that has nothing in the queue may always have one job there.
static luna_err check_client(const luna_broker *b, const luna_id *client, uint64_t bytes)
{
    const luna_usage usage = luna_scheduler_client(b->scheduler, client);
    if (usage.jobs >= b->settings->max_client_jobs)
        return luna_error(LUNA_BUSY,
                          "this client has %llu jobs in the queue: [limits] "
                          "max_client_jobs",
                          (unsigned long long)usage.jobs);
    const uint64_t limit = b->settings->max_client_bytes;
    if (usage.jobs == 0 || (usage.bytes < limit && bytes <= limit - usage.bytes))
        return LUNA_OK;
    return luna_error(
        LUNA_BUSY, "this client has %llu bytes in the queue: [limits] max_client_bytes",
        (unsigned long long)usage.bytes);
}

luna_err luna_credit_check(luna_broker *b, const luna_id *client, uint64_t bytes)
{
    if (bytes > b->settings->max_job_bytes)
        return luna_error(
            LUNA_TOO_LARGE, "the job has %llu bytes; [limits] max_job_bytes is %llu",
            (unsigned long long)bytes, (unsigned long long)b->settings->max_job_bytes);
    const char *accepting = luna_credit_accepting(b);
    if (strcmp(accepting, "yes") != 0) return luna_error(LUNA_BUSY, "%s", accepting);
    return check_client(b, client, bytes);
}

//  Less room than the largest job needs, in the queue or for this client.
bool luna_credit_low(luna_broker *b, const luna_id *client)
{
    const luna_settings *s = b->settings;
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    const luna_usage usage = luna_scheduler_client(b->scheduler, client);
    if (strcmp(luna_credit_accepting(b), "yes") != 0) return true;
    return depth.bytes + s->max_job_bytes > s->max_queued_bytes ||
           usage.jobs + 1 >= s->max_client_jobs ||
           usage.bytes + s->max_job_bytes > s->max_client_bytes;
}

//  ---- offers --------------------------------------------------------------------

static luna_err answer_offer(luna_broker *b, const luna_msg_offer *offer)
{
    const luna_job *known = luna_scheduler_find(b->scheduler, &offer->id);
    //  One that is being stored gets its receipt when it is.
    if (known && known->place == LUNA_PLACE_STORING) return LUNA_OK;
    if (known) {
        luna_receipt_known(b, &offer->id, &offer->client, known->images);
        return LUNA_OK;
    }
    LUNA_TRY(luna_credit_check(b, &offer->client, offer->bytes));
    luna_receipt_send(
        b, &offer->client,
        &(luna_msg_receipt){.id = offer->id,
                            .status = luna_text_of("send"),
                            .offer_first = luna_credit_low(b, &offer->client)});
    return LUNA_OK;
}

luna_err luna_credit_offer(luna_broker *b, luna_message *message)
{
    luna_msg_offer offer;
    LUNA_TRY(luna_packet_read(message->packet, &offer));
    b->tally.offers++;
    const luna_err err = answer_offer(b, &offer);
    if (err != LUNA_OK)
        luna_receipt_refuse(b, &offer.id, &offer.client, offer.bytes, err);
    return LUNA_OK;
}

//  ---- grants --------------------------------------------------------------------

void luna_credit_blocked(luna_broker *b, const luna_id *client, uint64_t bytes)
{
    for (size_t i = 0; i < b->blocked_count; i++)
        if (luna_id_compare(&b->blocked[i].client, client) == 0) {
            b->blocked[i].bytes = bytes;
            return;
        }
    //  The one left out asks again by itself, after its retry time.
    if (b->blocked_count == LUNA_BLOCKED_MAX) return;
    b->blocked[b->blocked_count++] = (luna_blocked){.client = *client, .bytes = bytes};
}

static void grant(luna_broker *b, const luna_id *client)
{
    luna_peer peer = {.len = LUNA_ID_BYTES};
    memcpy(peer.id, client->byte, LUNA_ID_BYTES);
    luna_control_send(b, &peer, LUNA_MSG_GRANT,
                      &(luna_msg_grant){.offer_first = luna_credit_low(b, client)});
}

void luna_credit_grant(luna_broker *b)
{
    for (size_t i = b->blocked_count; i-- > 0;) {
        const luna_blocked waits = b->blocked[i];
        if (luna_credit_check(b, &waits.client, waits.bytes) == LUNA_BUSY) continue;
        b->blocked[i] = b->blocked[--b->blocked_count];
        grant(b, &waits.client);
    }
}
