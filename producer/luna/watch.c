//  Events: subscriptions as they are wanted, news to who waits, calls to who asked
//
//  Events only say that there is something to ask about; the truth is in the broker's
//  store. So nothing depends on their coming: a watcher also looks from time to time.

#include "producer/luna/client.h"

#include <stdlib.h>
#include <string.h>

static const char *const every_topic[] = {"job/", "decoder/", "status"};

static void subscribe(luna_client *client, const char *topic, bool on)
{
    zmq_setsockopt(client->link.events, on ? ZMQ_SUBSCRIBE : ZMQ_UNSUBSCRIBE, topic,
                   strlen(topic));
}

//  Takes out and frees the watches whose watchers have left.
static void drop_ended(luna_client *client)
{
    for (luna_watch **at = &client->watches; *at;) {
        luna_watch *watch = *at;
        if (!watch->ended) {
            at = &watch->next;
            continue;
        }
        if (watch->subscribed && client->link.events)
            subscribe(client, watch->topic, false);
        *at = watch->next;
        free(watch);
    }
}

static bool have_socket(luna_client *client)
{
    luna_session *session = &client->session;
    if (client->link.events) return true;
    if (!session->up || session->events[0] == '\0') return false;
    if (luna_link_events(&client->link, session->events) == LUNA_OK) return true;
    session->events[0] = '\0';  //  not again before the next welcome
    return false;
}

void luna_watch_tick(luna_client *client)
{
    pthread_mutex_lock(&client->lock);
    drop_ended(client);
    const bool all = client->all_events;
    const bool wanted = all || client->watches;
    if (client->link.events || (wanted && have_socket(client))) {
        for (size_t i = 0; all != client->subscribed_all && i < 3; i++)
            subscribe(client, every_topic[i], all);
        client->subscribed_all = all;
        for (luna_watch *watch = client->watches; watch; watch = watch->next) {
            if (!watch->subscribed) subscribe(client, watch->topic, true);
            watch->subscribed = true;
        }
    }
    pthread_mutex_unlock(&client->lock);
}

void luna_watch_reset(luna_client *client)
{
    luna_link_events_close(&client->link);
    client->subscribed_all = false;
    pthread_mutex_lock(&client->lock);
    for (luna_watch *watch = client->watches; watch; watch = watch->next) {
        watch->subscribed = false;
        watch->news = true;
    }
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

static bool is_final(luna_text state)
{
    return luna_text_is(state, "completed") || luna_text_is(state, "failed") ||
           luna_text_is(state, "cancelled");
}

static void tell_watchers(luna_client *client, const luna_msg_event *event)
{
    pthread_mutex_lock(&client->lock);
    for (size_t i = 0; i < event->jobs.count; i++) {
        const luna_msg_job_info *job = &event->jobs.items[i];
        for (luna_watch *watch = client->watches; watch; watch = watch->next) {
            if (luna_id_compare(&watch->id, &job->id) != 0) continue;
            watch->news = true;
            watch->final = watch->final || is_final(job->state);
        }
    }
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

static void call_back(luna_client *client, const luna_msg_event *event)
{
    const luna_msg_answer content = {
        .status = event->status,
        .jobs = {.items = event->jobs.items, .count = event->jobs.count},
        .decoders = {.items = event->decoders.items, .count = event->decoders.count}};
    char kind[40];
    luna_answer *answer;
    luna_text_copy(event->kind, kind, sizeof kind);
    pthread_mutex_lock(&client->callback_lock);
    //  Without memory the event is left out: the gap in `seq` tells.
    if (client->callback && luna_answer_make(&content, &answer) == LUNA_OK) {
        const luna_event public = {.seq = event->seq,
                                   .time_ms = event->time_ms,
                                   .kind = kind,
                                   .content = answer};
        client->callback(client->callback_context, &public);
        luna_answer_free(&answer);
    }
    pthread_mutex_unlock(&client->callback_lock);
}

void luna_watch_event(luna_client *client, zmq_msg_t *frame)
{
    luna_packet *packet = NULL;
    luna_msg_event event;
    if (luna_packet_open(zmq_msg_data(frame), zmq_msg_size(frame), &packet) != LUNA_OK)
        return;
    if (luna_packet_type(packet) == LUNA_MSG_EVENT &&
        luna_packet_read(packet, &event) == LUNA_OK) {
        tell_watchers(client, &event);
        call_back(client, &event);
    }
    luna_packet_close(&packet);
}

int luna_events(luna_client *client, luna_event_callback *callback, void *context)
{
    LUNA_TRY(luna_client_check(client));
    pthread_mutex_lock(&client->callback_lock);
    client->callback = callback;
    client->callback_context = context;
    pthread_mutex_unlock(&client->callback_lock);
    pthread_mutex_lock(&client->lock);
    client->all_events = callback != NULL;
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
    return LUNA_RC_OK;
}
