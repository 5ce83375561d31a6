//  The background thread: waits for sockets, the bell and the next deadline; the rest
//  is in session.c (the conversation), intake.c (jobs), ask.c (questions), watch.c
//  (events) and notice.c (what the application is told).

#include "producer/luna/client.h"

#include "common/clock.h"

#include <unistd.h>

#define WAIT_MAX_MS 60000

//  Whether all that a longer wait could bring is in the outbox already.
static bool kept(const luna_client *client)
{
    return client->session.away &&
           luna_jobs_kept_count(&client->jobs) == luna_jobs_unsettled(&client->jobs);
}

//  INT64_MAX while nobody wants the client to end.
static bool finished(luna_client *client, int64_t now_ms, int64_t *stop_ms)
{
    pthread_mutex_lock(&client->lock);
    *stop_ms = client->stopping ? client->stop_ms : INT64_MAX;
    client->keeper.hurry = client->stopping && client->session.away;
    const bool done = client->stopping && (luna_jobs_unsettled(&client->jobs) == 0 ||
                                           kept(client) || now_ms >= client->stop_ms);
    pthread_mutex_unlock(&client->lock);
    return done;
}

static int64_t keeper_tick(luna_client *client, int64_t now_ms)
{
    pthread_mutex_lock(&client->lock);
    const int64_t next_ms = luna_keeper_tick(client, now_ms);
    pthread_mutex_unlock(&client->lock);
    return next_ms;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

//  Does what is due, and returns when the next thing is.
static int64_t tick(luna_client *client, int64_t now_ms, bool *wants_room)
{
    const int64_t session_ms = luna_session_tick(client, now_ms);
    luna_ask_tick(client);
    luna_watch_tick(client);
    const int64_t intake_ms = luna_intake_tick(client, now_ms, wants_room);
    const int64_t keeper_ms = keeper_tick(client, now_ms);
    luna_notice_tick(client);
    return earlier(session_ms, earlier(intake_ms, keeper_ms));
}

static void wait_until(luna_client *client, int64_t next_ms, bool wants_room)
{
    luna_link *link = &client->link;
    zmq_pollitem_t items[4] = {{.fd = client->bell, .events = ZMQ_POLLIN}};
    int count = 1;
    if (link->control)
        items[count++] = (zmq_pollitem_t){.socket = link->control, .events = ZMQ_POLLIN};
    if (link->events)
        items[count++] = (zmq_pollitem_t){.socket = link->events, .events = ZMQ_POLLIN};
    if (link->intake && wants_room)
        items[count++] = (zmq_pollitem_t){.socket = link->intake, .events = ZMQ_POLLOUT};
    const int64_t now_ms = luna_now_ms();
    int64_t wait_ms = next_ms < now_ms ? 0 : next_ms - now_ms;
    if (wait_ms > WAIT_MAX_MS) wait_ms = WAIT_MAX_MS;
    (void)zmq_poll(items, count, (long)wait_ms);
}

//  The control socket may be another one after each message.
static void receive_all(luna_client *client)
{
    uint64_t rings;
    zmq_msg_t frame;
    if (read(client->bell, &rings, sizeof rings) < 0) rings = 0;
    while (luna_link_receive(client->link.control, &frame)) {
        luna_session_take(client, &frame, luna_now_ms());
        zmq_msg_close(&frame);
    }
    while (luna_link_receive(client->link.events, &frame)) {
        luna_watch_event(client, &frame);
        zmq_msg_close(&frame);
    }
}

void *luna_loop_run(void *arg)
{
    luna_client *client = arg;
    int64_t stop_ms;
    luna_session_call(client, luna_now_ms());
    if (client->options.warm_bytes)
        luna_pool_warm(client->pool, (size_t)client->options.warm_bytes);
    while (!finished(client, luna_now_ms(), &stop_ms)) {
        bool wants_room;
        const int64_t next_ms = tick(client, luna_now_ms(), &wants_room);
        wait_until(client, earlier(next_ms, stop_ms), wants_room);
        receive_all(client);
    }
    luna_watch_tick(client);  //  frees what its watchers have left
    return NULL;
}
