//  events.c - the XPUB: who subscribes gets the present, then what changes
//
//  A snapshot carries the number of the latest event, so that a subscriber drops
//  what it has seen already. Snapshots go out on the very topic of the subscription,
//  so that only those who asked for it get them. XPUB drops for a slow reader; the
//  gap in `seq` tells it.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

enum { TOPIC_BYTES = 256, SNAPSHOT_JOBS = 100, SNAPSHOTS_MAX = 1024 };

static void send_event(void *socket, const char *topic, const void *bytes, size_t len)
{
    if (zmq_send(socket, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(socket, bytes, len, ZMQ_DONTWAIT);
}

static void publish(luna_broker *b, const char *topic, luna_msg_event *event)
{
    void *bytes;
    size_t len;
    event->epoch = b->epoch;
    event->seq = b->seq;
    event->time_ms = (uint64_t)luna_wall_ms();
    if (luna_msg_pack(LUNA_MSG_EVENT, event, &bytes, &len) != LUNA_OK) {
        luna_log(LUNA_LOG_ERROR, "unsendable", "topic=%s detail=\"%s\"", topic,
                 luna_error_text());
        return;
    }
    zsock_t *const sockets[] = {b->events, b->remote.events};
    for (size_t i = 0; i < 2; i++)
        if (sockets[i]) send_event(zsock_resolve(sockets[i]), topic, bytes, len);
    free(bytes);
}

//  ---- changes -------------------------------------------------------------------

void luna_events_job(luna_broker *b, const char *kind, const luna_msg_job_info *info)
{
    char topic[TOPIC_BYTES] = "job/";
    luna_id_text(&info->id, topic + 4);
    luna_msg_event event = {.kind = luna_text_of(kind)};
    event.jobs.items = info;
    event.jobs.count = 1;
    b->seq++;
    publish(b, topic, &event);
}

void luna_events_decoder(luna_broker *b, const char *kind, const luna_decoder *decoder)
{
    char topic[TOPIC_BYTES];
    snprintf(topic, sizeof topic, "decoder/%s", decoder->name);
    const luna_msg_decoder_info info = luna_info_decoder(decoder, luna_now_ms());
    luna_msg_event event = {.kind = luna_text_of(kind)};
    event.decoders.items = &info;
    event.decoders.count = 1;
    b->seq++;
    publish(b, topic, &event);
}

//  Ages grow all the time; they alone are no change.
static bool same_status(const luna_msg_status *a, const luna_msg_status *b)
{
    return a->pending == b->pending && a->in_progress == b->in_progress &&
           a->completed == b->completed && a->failed == b->failed &&
           a->cancelled == b->cancelled && a->decoders == b->decoders &&
           a->paused == b->paused;
}

void luna_events_status(luna_broker *b)
{
    const luna_msg_status status = luna_info_status(b);
    const bool accepting = luna_text_is(status.accepting, "yes");
    if (same_status(&status, &b->told) && accepting == b->told_accepting &&
        b->alarm_changes == b->told_alarm_changes)
        return;
    b->told = status;
    b->told_accepting = accepting;
    b->told_alarm_changes = b->alarm_changes;
    b->seq++;
    publish(b, "status",
            &(luna_msg_event){.kind = luna_text_of("status"), .status = &status});
}

//  ---- snapshots -----------------------------------------------------------------

static void snapshot(luna_broker *b, const char *topic, luna_msg_event *event)
{
    event->kind = luna_text_of("snapshot");
    publish(b, topic, event);
}

static void snapshot_jobs(luna_broker *b, luna_task *task)
{
    const luna_store_jobs *found = &task->op.found;
    luna_msg_job_info *infos = calloc(found->count + 1, sizeof *infos);
    for (size_t i = 0; infos && i < found->count; i++) {
        infos[i] = found->items[i].info;
        luna_info_refresh(b, &infos[i]);
    }
    luna_msg_event event = {0};
    event.jobs.items = infos;
    event.jobs.count = infos ? found->count : 0;
    snapshot(b, task->topic, &event);
    free(infos);
}

static void ask_jobs(luna_broker *b, const char *topic)
{
    luna_id id;
    const bool one = topic[0] && luna_id_parse(topic + 4, &id) == LUNA_OK;
    if (b->task_count >= SNAPSHOTS_MAX) return;
    luna_task *task = luna_task_new(one ? LUNA_STORE_GET : LUNA_STORE_LIST,
                                    one ? &id : NULL, snapshot_jobs);
    if (!task) return;
    task->topic = strdup(topic);
    if (!task->topic) {
        luna_task_free(task);
        return;
    }
    if (!one)
        task->op.in.list =
            (luna_store_list){.state = LUNA_JOB_ANY, .limit = SNAPSHOT_JOBS};
    luna_task_submit(b, task);
}

//  Those whose topic the subscription covers.
static void snapshot_decoders(luna_broker *b, const char *topic, luna_msg_event *event)
{
    luna_msg_decoder_info *infos;
    const char *prefix = strlen(topic) > 8 ? topic + 8 : "";
    const size_t all = luna_info_decoders(b, &infos);
    size_t count = 0;
    for (size_t i = 0; i < all; i++)
        if (strncmp(infos[i].name.data, prefix, strlen(prefix)) == 0)
            infos[count++] = infos[i];
    event->decoders.items = infos;
    event->decoders.count = count;
    snapshot(b, topic, event);
    free(infos);
}

static bool covers(const char *subscription, const char *topic)
{
    return strncmp(subscription, topic, strlen(topic)) == 0;
}

static void answer_subscription(luna_broker *b, const char *topic)
{
    const luna_msg_status status = luna_info_status(b);
    luna_msg_event event = {0};
    if (covers(topic, "job/")) {
        ask_jobs(b, topic);
    } else if (covers(topic, "decoder/")) {
        snapshot_decoders(b, topic, &event);
    } else if (strcmp(topic, "status") == 0) {
        event.status = &status;
        snapshot(b, topic, &event);
    } else if (topic[0] == '\0') {
        event.status = &status;
        snapshot_decoders(b, topic, &event);
        ask_jobs(b, topic);
    }
}

//  1 and the topic to subscribe, 0 and the topic to end it.
int luna_events_ready(zloop_t *loop, zsock_t *reader, void *broker)
{
    (void)loop;
    for (int i = 0; i < 64 && zsock_events(reader) & ZMQ_POLLIN; i++) {
        uint8_t frame[TOPIC_BYTES];
        const int len =
            zmq_recv(zsock_resolve(reader), frame, sizeof frame, ZMQ_DONTWAIT);
        if (len < 1) break;
        if (frame[0] != 1 || len >= (int)sizeof frame) continue;
        char topic[TOPIC_BYTES];
        memcpy(topic, frame + 1, (size_t)len - 1);
        topic[len - 1] = '\0';
        answer_subscription(broker, topic);
    }
    luna_task_hand_over(broker);
    return 0;
}
