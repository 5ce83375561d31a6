//  The conversation with the broker
//
//  down: a hello has been sent; without a welcome by give_up_ms another one is sent,
//        with a longer and longer wait in between.
//  up:   a ping each ping_ms; every message is a sign of life, and when none has come
//        for three pings the conversation starts anew.
//  A new epoch means that the broker is another process: whatever was under way to
//  the former one is sent again.

#include "producer/luna/client.h"

#include "common/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 1000
#define BACKOFF_MAX_MS 5000
#define PING_MIN_MS    20
#define PING_MAX_MS    60000
#define MISSED_PINGS   3

static luna_err send_hello(luna_client *client)
{
    char host[80];
    luna_home_host(host);
    const luna_msg_hello hello = {.role = luna_text_of("producer"),
                                  .name = luna_text_of(client->name),
                                  .instance = client->id,
                                  .host = luna_text_of(host),
                                  .pid = (uint64_t)client->pid,
                                  .version = luna_text_of(LUNA_VERSION)};
    LUNA_TRY(luna_link_control(&client->link));
    return luna_link_send(&client->link, LUNA_MSG_HELLO, &hello);
}

static void down(luna_client *client, int64_t now_ms)
{
    luna_session *session = &client->session;
    session->up = false;
    atomic_store(&client->available, false);
    if (session->backoff_ms < BACKOFF_MIN_MS) session->backoff_ms = BACKOFF_MIN_MS;
    session->give_up_ms = now_ms + session->backoff_ms;
    session->backoff_ms *= 2;
    if (session->backoff_ms > BACKOFF_MAX_MS) session->backoff_ms = BACKOFF_MAX_MS;
}

void luna_session_call(luna_client *client, int64_t now_ms)
{
    down(client, now_ms);
    if (send_hello(client) != LUNA_OK) luna_client_problem(client, luna_error_text());
}

static int64_t tick_up(luna_client *client, int64_t now_ms)
{
    luna_session *session = &client->session;
    const int64_t silent_ms = session->heard_ms + MISSED_PINGS * session->ping_ms;
    if (now_ms >= silent_ms) {
        luna_client_problem(client, "it stopped answering");
        luna_session_call(client, now_ms);
        return session->give_up_ms;
    }
    if (now_ms >= session->next_ping_ms) {
        //  A ping that finds no room is as good as a missed one.
        if (luna_link_send(&client->link, LUNA_MSG_PING, &(luna_msg_ping){0}) == LUNA_OK)
            session->next_ping_ms = now_ms + session->ping_ms;
        else
            session->next_ping_ms = now_ms + PING_MIN_MS;
    }
    return session->next_ping_ms < silent_ms ? session->next_ping_ms : silent_ms;
}

static void go_away(luna_client *client)
{
    char text[LUNA_NOTICE_TEXT_BYTES];
    client->session.away = true;
    pthread_mutex_lock(&client->lock);
    const char *why = client->problem;
    (void)snprintf(text, sizeof text, "no broker answers at %.700s%s%s%s",
                   client->endpoint, why[0] ? " (" : "", why, why[0] ? ")" : "");
    luna_notice_begin(&client->notices, LUNA_TROUBLE_AWAY, LUNA_UNAVAILABLE, text, 0);
    pthread_mutex_unlock(&client->lock);
}

int64_t luna_session_tick(luna_client *client, int64_t now_ms)
{
    if (client->session.up) return tick_up(client, now_ms);
    if (now_ms >= client->session.give_up_ms) {
        go_away(client);
        luna_session_call(client, now_ms);
    }
    return client->session.give_up_ms;
}

//  The jobs under way are lost with a former broker or a former pipe.
static luna_err connect_intake(luna_client *client, const luna_msg_welcome *welcome)
{
    luna_session *session = &client->session;
    const bool other_broker = luna_id_compare(&session->epoch, &welcome->epoch) != 0;
    const bool other_place = !luna_text_is(welcome->intake, session->intake);
    const bool same = client->link.intake && !other_broker && !other_place;
    if (!same) LUNA_TRY(luna_link_intake(&client->link, welcome->intake));
    luna_text_copy(welcome->intake, session->intake, sizeof session->intake);
    session->epoch = welcome->epoch;
    luna_intake_welcome(client, welcome, !same);
    return LUNA_OK;
}

static int64_t clamp(uint64_t value, int64_t least, int64_t most)
{
    if (value > (uint64_t)most) return most;
    return (int64_t)value < least ? least : (int64_t)value;
}

static void up(luna_client *client, const luna_msg_welcome *welcome, int64_t now_ms)
{
    luna_session *session = &client->session;
    session->up = true;
    session->away = false;
    session->number++;
    session->backoff_ms = 0;
    session->ping_ms = clamp(welcome->ping_ms, PING_MIN_MS, PING_MAX_MS);
    session->next_ping_ms = now_ms + session->ping_ms;
    pthread_mutex_lock(&client->lock);
    client->max_job_bytes = welcome->max_job_bytes;
    client->problem[0] = '\0';
    luna_notice_end(&client->notices, LUNA_TROUBLE_AWAY);
    atomic_store(&client->available, true);
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    luna_watch_reset(client);
}

static luna_err take_welcome(luna_client *client, luna_packet *packet, int64_t now_ms)
{
    luna_msg_welcome welcome;
    LUNA_TRY(luna_packet_read(packet, &welcome));
    if (welcome.intake.len == 0)
        return luna_error(LUNA_PROTOCOL, "its welcome names no intake");
    LUNA_TRY(connect_intake(client, &welcome));
    luna_text_copy(welcome.events, client->session.events, sizeof client->session.events);
    up(client, &welcome, now_ms);
    return LUNA_OK;
}

static luna_err take_pong(luna_client *client, luna_packet *packet, int64_t now_ms)
{
    luna_msg_pong pong;
    LUNA_TRY(luna_packet_read(packet, &pong));
    if (client->session.up && luna_id_compare(&pong.epoch, &client->session.epoch) != 0)
        luna_session_call(client, now_ms);
    return LUNA_OK;
}

static luna_err take_receipt(luna_client *client, luna_packet *packet, int64_t now_ms)
{
    luna_msg_receipt receipt;
    LUNA_TRY(luna_packet_read(packet, &receipt));
    luna_intake_receipt(client, &receipt, now_ms);
    return LUNA_OK;
}

static luna_err take_grant(luna_client *client, luna_packet *packet)
{
    luna_msg_grant grant;
    LUNA_TRY(luna_packet_read(packet, &grant));
    luna_intake_grant(client, &grant);
    return LUNA_OK;
}

//  An answer to nothing is the broker's way to say what it cannot take.
static luna_err take_answer(luna_client *client, luna_packet *packet, zmq_msg_t *frame)
{
    luna_msg_answer answer;
    char detail[200];
    LUNA_TRY(luna_packet_read(packet, &answer));
    luna_text_copy(answer.detail, detail, sizeof detail);
    if (answer.re == 0 && answer.error.len)
        return luna_error(LUNA_PROTOCOL, "%s", detail);
    luna_ask_answer(client, &answer, frame);
    return LUNA_OK;
}

static luna_err take_bye(luna_client *client, luna_packet *packet, int64_t now_ms)
{
    luna_msg_bye bye;
    char reason[200];
    LUNA_TRY(luna_packet_read(packet, &bye));
    luna_text_copy(bye.reason, reason, sizeof reason);
    luna_client_problem(client, reason);
    down(client, now_ms);
    return LUNA_OK;
}

static luna_err take_packet(luna_client *client, luna_packet *packet, zmq_msg_t *frame,
                            int64_t now_ms)
{
    switch (luna_packet_type(packet)) {
        case LUNA_MSG_WELCOME:
            return take_welcome(client, packet, now_ms);
        case LUNA_MSG_PONG:
            return take_pong(client, packet, now_ms);
        case LUNA_MSG_RECEIPT:
            return take_receipt(client, packet, now_ms);
        case LUNA_MSG_GRANT:
            return take_grant(client, packet);
        case LUNA_MSG_ANSWER:
            return take_answer(client, packet, frame);
        case LUNA_MSG_BYE:
            return take_bye(client, packet, now_ms);
        default:
            return LUNA_OK;
    }
}

//  What cannot be understood is passed over, and kept as the reason in case that
//  nothing works.
void luna_session_take(luna_client *client, zmq_msg_t *frame, int64_t now_ms)
{
    luna_packet *packet = NULL;
    luna_err err = luna_packet_open(zmq_msg_data(frame), zmq_msg_size(frame), &packet);
    if (err == LUNA_OK) {
        client->session.heard_ms = now_ms;
        err = take_packet(client, packet, frame, now_ms);
    }
    if (err != LUNA_OK) luna_client_problem(client, luna_error_text());
    luna_packet_close(&packet);
}
