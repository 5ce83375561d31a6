//  Questions and orders: one message each way on the control socket
//
//  A request lives on the stack of the thread that asks, in the client's list for as
//  long as that thread waits. One that was sent in a former conversation is sent
//  again: questions and orders may be repeated.

#include "producer/luna/client.h"

#include "common/clock.h"

#include <stdlib.h>

void luna_ask_tick(luna_client *client)
{
    if (!client->session.up) return;
    pthread_mutex_lock(&client->lock);
    for (luna_request *r = client->requests; r; r = r->next) {
        if (r->answered || r->session == client->session.number) continue;
        if (luna_link_send_bytes(&client->link, r->data, r->len) != LUNA_OK) break;
        r->session = client->session.number;
    }
    pthread_mutex_unlock(&client->lock);
}

void luna_ask_answer(luna_client *client, const luna_msg_answer *answer, zmq_msg_t *frame)
{
    pthread_mutex_lock(&client->lock);
    luna_request *request = client->requests;
    while (request && request->re != answer->re) request = request->next;
    if (request && !request->answered) {
        zmq_msg_init(&request->frame);
        zmq_msg_copy(&request->frame, frame);
        request->answered = true;
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->lock);
}

static void enlist(luna_client *client, luna_request *request)
{
    pthread_mutex_lock(&client->lock);
    request->next = client->requests;
    client->requests = request;
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
}

//  Waits, and takes the request out of the list either way.
static bool await(luna_client *client, luna_request *request, int64_t deadline_ms)
{
    pthread_mutex_lock(&client->lock);
    while (!request->answered && luna_client_wait(client, deadline_ms)) continue;
    luna_request **at = &client->requests;
    while (*at != request) at = &(*at)->next;
    *at = request->next;
    pthread_mutex_unlock(&client->lock);
    return request->answered;
}

static luna_err read_answer(luna_packet *packet, luna_question *question,
                            luna_answer **out)
{
    luna_msg_answer answer;
    char name[40], detail[512];
    if (luna_packet_type(packet) != LUNA_MSG_ANSWER)
        return luna_error(LUNA_PROTOCOL, "the broker's answer is of another type");
    LUNA_TRY(luna_packet_read(packet, &answer));
    if (answer.error.len) {
        luna_text_copy(answer.error, name, sizeof name);
        luna_text_copy(answer.detail, detail, sizeof detail);
        const luna_err err = luna_err_from_name(name);
        return luna_error(err == LUNA_OK ? LUNA_PROTOCOL : err, "%s",
                          detail[0] ? detail : name);
    }
    question->changed = answer.changed;
    return out ? luna_answer_make(&answer, out) : LUNA_OK;
}

static luna_err open_answer(zmq_msg_t *frame, luna_question *question, luna_answer **out)
{
    luna_packet *packet = NULL;
    luna_err err = luna_packet_open(zmq_msg_data(frame), zmq_msg_size(frame), &packet);
    if (err == LUNA_OK) err = read_answer(packet, question, out);
    luna_packet_close(&packet);
    zmq_msg_close(frame);
    return err;
}

static uint64_t next_re(luna_client *client)
{
    pthread_mutex_lock(&client->lock);
    const uint64_t re = ++client->next_re;
    pthread_mutex_unlock(&client->lock);
    return re;
}

luna_err luna_ask(luna_client *client, luna_question *question, int64_t deadline_ms,
                  luna_answer **out)
{
    void *data;
    luna_request request = {.re = next_re(client)};
    question->query.re = question->order.re = request.re;
    const bool query = question->type == LUNA_MSG_QUERY;
    LUNA_TRY(luna_msg_pack(question->type,
                           query ? (const void *)&question->query : &question->order,
                           &data, &request.len));
    request.data = data;
    enlist(client, &request);
    const bool answered = await(client, &request, deadline_ms);
    free(data);
    return answered ? open_answer(&request.frame, question, out)
                    : luna_client_late(client, "no answer");
}

static int query(luna_client *client, luna_msg_query fields, int32_t timeout_ms,
                 luna_answer **out)
{
    luna_question question = {.type = LUNA_MSG_QUERY, .query = fields};
    LUNA_TRY(luna_client_check(client));
    if (!out) return luna_error(LUNA_USAGE, "the place for the answer is NULL");
    return luna_ask(client, &question, luna_deadline_ms(timeout_ms), out);
}

int luna_query_status(luna_client *client, int32_t timeout_ms, luna_answer **out)
{
    luna_answer *answer;
    if (!out) return luna_error(LUNA_USAGE, "the place for the answer is NULL");
    const luna_msg_query fields = {.what = luna_text_of("status")};
    const int rc = query(client, fields, timeout_ms, &answer);
    if (rc != LUNA_RC_OK) return rc;
    if (!answer->status) {
        luna_answer_free(&answer);
        return luna_error(LUNA_PROTOCOL, "the broker's answer holds no status");
    }
    *out = answer;
    return LUNA_RC_OK;
}

int luna_query_jobs(luna_client *client, const char *state, uint64_t limit,
                    int32_t timeout_ms, luna_answer **out)
{
    const luna_msg_query fields = {
        .what = luna_text_of("jobs"), .state = luna_text_of(state), .limit = limit};
    return query(client, fields, timeout_ms, out);
}

int luna_query_job(luna_client *client, const char *job_id, int32_t timeout_ms,
                   luna_answer **out)
{
    luna_answer *answer = NULL;
    luna_msg_query fields = {.what = luna_text_of("job")};
    if (!out) return luna_error(LUNA_USAGE, "the place for the answer is NULL");
    LUNA_TRY(luna_job_id(job_id, &fields.id));
    const int rc = query(client, fields, timeout_ms, &answer);
    const bool none = rc == LUNA_RC_OK && answer->job_count != 1;
    if (none || rc == LUNA_RC_NOT_FOUND) {
        luna_answer_free(&answer);
        return luna_error(LUNA_NOT_FOUND, "the broker has no job %s", job_id);
    }
    if (rc == LUNA_RC_OK) *out = answer;
    return rc;
}

int luna_query_decoders(luna_client *client, int32_t timeout_ms, luna_answer **out)
{
    const luna_msg_query fields = {.what = luna_text_of("decoders")};
    return query(client, fields, timeout_ms, out);
}

int luna_query_metrics(luna_client *client, int32_t timeout_ms, luna_answer **out)
{
    const luna_msg_query fields = {.what = luna_text_of("metrics")};
    return query(client, fields, timeout_ms, out);
}
