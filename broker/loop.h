//  loop.h - what the parts of the broker's loop share; not for anybody else
//
//      intake.c    PULL: jobs in, receipts out
//      credit.c    who may send how much: limits, offers, grants
//      control.c   ROUTER: hello, credit, pings, progress, results
//      answer.c    questions
//      orders.c    cancel, retry, prioritise, pause, resume, drain
//      dispatch.c  the scheduler's decisions: attempts, ends, what comes back
//      work.c      slots and the work that goes through them
//      events.c    XPUB: snapshots and numbered events
//      info.c      jobs, decoders and status as the wire shows them
//      metrics.c   what has happened, counted and timed
//      alarm.c     what needs a person
//      task.c      operations of the store and what follows them
//      reload.c    SIGHUP
//      broker.c    start, ticks, stop
//
//  A change of state goes: message > scheduler > call > store operation > what is
//  told to others. Nobody is told of anything that is not durable.

#ifndef LUNA_BROKER_LOOP_H
#define LUNA_BROKER_LOOP_H

#include "broker/http/http.h"
#include "broker/remote.h"
#include "broker/scheduler.h"
#include "broker/settings.h"
#include "broker/slot.h"
#include "broker/store/store.h"
#include "common/metrics.h"
#include "proto/codec.h"

#include <czmq.h>

//  A received message with everything that must live while it is used.
typedef struct luna_message {
    luna_peer peer;
    zframe_t *frame;
    luna_packet *packet;
} luna_message;

void luna_message_close(luna_message *message);

//  The message in hand, so that the scheduler's calls can say what they are part of.
typedef struct luna_current {
    luna_message *message;    //  may be moved into a task; then it is empty
    luna_store_images saved;  //  with progress and done; borrows from the message
    luna_store_vae vae;       //  with done; the same
    bool saved_taken;         //  a task records them
    bool order;               //  a task will answer the peer
    bool remote;              //  it came from another machine
    uint64_t re;
} luna_current;

#define LUNA_BLOCKED_MAX 256

//  A client that was told "busy", and the size of the job it wanted to send.
typedef struct luna_blocked {
    luna_id client;
    uint64_t bytes;
} luna_blocked;

//  What has happened since the start; every count only grows.
typedef struct luna_tally {
    uint64_t accepted;
    uint64_t accepted_bytes;
    uint64_t duplicates;
    uint64_t busy;
    uint64_t refused;
    uint64_t offers;
    uint64_t attempts;
    uint64_t requeued;  //  attempts given back
    uint64_t lost;      //  of them: the decoder died, hung or forgot it
    uint64_t declined;  //  of them: the decoder answered failed
    uint64_t retried;
    uint64_t ended[LUNA_JOB_STATES];
    uint64_t images;
    uint64_t image_bytes;
    uint64_t bad_messages;
    uint64_t store_failures;
    luna_histogram accept;  //  job received to receipt sent
    luna_histogram wait;    //  accepted to first dispatched
    luna_histogram run;     //  dispatched to completed, the last attempt
    luna_histogram total;   //  accepted to completed
    luna_histogram decode;  //  stages of an image, as its decoder says
    luna_histogram encode;
    luna_histogram write;
    luna_histogram store[LUNA_STORE_KINDS];  //  submitted to back, by operation
} luna_tally;

typedef struct luna_broker {
    luna_settings *settings;  //  SIGHUP changes them
    const char *config;       //  the file they come from; NULL: the usual place
    luna_id epoch;
    luna_id nobodys_epoch;  //  tells a decoder that is not known to say hello
    char host[80];
    zloop_t *loop;
    zsock_t *control;
    zsock_t *intake;
    zsock_t *events;
    luna_http *http;
    luna_store *store;
    luna_scheduler *scheduler;
    luna_slot *slots[LUNA_DECODERS_MAX];
    size_t slot_count;
    luna_slot_namer namer;
    luna_remote remote;
    luna_peer given_up[LUNA_DECODERS_MAX];  //  ring: decoders that must say hello again
    size_t given_up_next;
    luna_current current;
    luna_tally tally;
    luna_blocked blocked[LUNA_BLOCKED_MAX];
    size_t blocked_count;
    char alarm[512];  //  "": all is well
    uint64_t alarm_changes;
    uint64_t free_bytes;  //  of the spool's disk, a moment ago
    int64_t started_ms;
    size_t task_count;        //  operations at the store, or on their way to it
    luna_store_op *first_op;  //  on their way, linked
    luna_store_op *last_op;
    struct luna_task *stalled;  //  waiting to be tried again, oldest first
    uint64_t held_bytes;        //  of jobs on their way to the disk
    bool intake_paused;
    int64_t accepted_ms;              //  of the latest job: never steps back
    uint64_t seq;                     //  of the latest event
    uint64_t ended[LUNA_JOB_STATES];  //  finished jobs by state
    luna_msg_status told;             //  status of the latest status event
    bool told_accepting;              //  what it said of accepting; the text is not kept
    uint64_t told_alarm_changes;
    int64_t status_due_ms;
    int64_t forget_due_ms;
    int64_t wall_ahead_ms;   //  of the steady clock
    int64_t wall_steady_ms;  //  since when, by the steady clock
    int64_t watchdog_due_ms;
    int64_t trim_due_ms;
    bool untrimmed;  //  a payload was in memory; malloc may keep its pages
    bool forgetting;
    int64_t tick_ms;  //  of the latest tick
    bool stopping;    //  no more jobs and attempts
    bool closing;     //  and nothing more is sent
    int64_t stop_due_ms;
} luna_broker;

//  ---- task.c --------------------------------------------------------------------

typedef struct luna_task luna_task;

//  What follows an operation that is back; the task is freed after it.
typedef void luna_task_back(luna_broker *broker, luna_task *task);

struct luna_task {
    luna_store_op op;
    luna_task_back *back;
    luna_message message;  //  what the operation borrows from
    luna_peer peer;        //  who waits for the answer
    bool order;            //  with `re`: an order to be answered
    uint64_t re;
    uint64_t limit;
    uint32_t attempt;
    char name[LUNA_DECODER_BYTES];
    char error[33];
    char detail[1024];
    char *topic;                 //  of a snapshot; owned
    struct luna_retry_all *all;  //  one of the jobs of `retry --failed`
    int64_t began_ns;            //  when what it is about began
    int64_t submitted_ns;
    int64_t due_ms;  //  stalled: next try
    luna_task *next;
};

//  NULL, with a line in the log, when memory is short.
luna_task *luna_task_new(luna_store_kind kind, const luna_id *id, luna_task_back *back);
void luna_task_free(luna_task *task);
//  Takes effect with the next luna_task_hand_over.
void luna_task_submit(luna_broker *broker, luna_task *task);
//  Gives the store all that was submitted, at once, so that what one message brings, the
//  end of an attempt and the start of the next, is one commit. At the end of each
//  callback of the loop.
void luna_task_hand_over(luna_broker *broker);
//  Everything that is back.
void luna_task_collect(luna_broker *broker);
void luna_task_retry_stalled(luna_broker *broker, int64_t now_ms);

//  ---- intake.c ------------------------------------------------------------------

int luna_intake_ready(zloop_t *loop, zsock_t *reader, void *broker);
//  Starts or stops reading, by what is held in memory.
void luna_intake_pace(luna_broker *broker);
void luna_receipt_send(luna_broker *broker, const luna_id *client,
                       const luna_msg_receipt *receipt);
//  A job that is known from before gets the receipt it had then.
void luna_receipt_known(luna_broker *broker, const luna_id *id, const luna_id *client,
                        uint64_t images);
//  "busy" for an error that another try may mend, else "refused"; luna_error_text() is
//  the detail, `bytes` the job's size.
void luna_receipt_refuse(luna_broker *broker, const luna_id *id, const luna_id *client,
                         uint64_t bytes, luna_err err);

//  ---- credit.c ------------------------------------------------------------------

//  "yes", or why no job is taken now. The text lives until the next call.
const char *luna_credit_accepting(luna_broker *broker);
//  Whether a job of so many bytes may come from this client: LUNA_BUSY, LUNA_TOO_LARGE.
luna_err luna_credit_check(luna_broker *broker, const luna_id *client, uint64_t bytes);
//  Whether the client should offer its next job before it sends it.
bool luna_credit_low(luna_broker *broker, const luna_id *client);
luna_err luna_credit_offer(luna_broker *broker, luna_message *message);
//  Notes that a client was told "busy"; and tells those for whom there is room again.
void luna_credit_blocked(luna_broker *broker, const luna_id *client, uint64_t bytes);
void luna_credit_grant(luna_broker *broker);

//  ---- unsent.c ------------------------------------------------------------------

//  Whether a peer has so much unread that its questions wait.
bool luna_unsent_full(const luna_peer *peer);
//  Sends bytes, which it takes over, to a peer of a ROUTER. False when the peer is gone
//  or does not read. `other`: a second ROUTER, asked when the first does not know the
//  peer; NULL: there is none.
bool luna_unsent_send(void *socket, void *other, const luna_peer *peer, void *bytes,
                      size_t len);

//  ---- sockets.c, door.c ---------------------------------------------------------

#define LUNA_CONTROL_INPROC "inproc://luna-control"
#define LUNA_INTAKE_INPROC  "inproc://luna-intake"
//  So much too large gets an answer, not a cut.
enum { LUNA_INTAKE_SLACK_BYTES = 64 << 20 };

//  Binds all. LUNA_BUSY, LUNA_CANT_CREATE, LUNA_CONFIG, LUNA_NO_MEMORY; what was opened
//  is closed by luna_sockets_close.
LUNA_MUST_USE luna_err luna_sockets_open(luna_broker *broker);
void luna_sockets_close(luna_broker *broker);
//  Has the loop read them.
void luna_sockets_serve(luna_broker *broker);
void luna_sockets_pause_intake(luna_broker *broker, bool pause);
int luna_door_ready(zloop_t *loop, zsock_t *reader, void *broker);
//  Shuts the ports for other machines while half of the descriptors are in use, and opens
//  them again.
void luna_door_watch(luna_broker *broker);

//  ---- control.c -----------------------------------------------------------------

int luna_control_ready(zloop_t *loop, zsock_t *reader, void *broker);
//  False when the peer is gone or does not read; the message is then dropped.
bool luna_control_send(luna_broker *broker, const luna_peer *peer, luna_msg_type type,
                       const void *message);

//  A pong with what the decoder on this routing id should do; other peers: "run".
void luna_control_pong(luna_broker *broker, const luna_peer *peer);

//  ---- answer.c ------------------------------------------------------------------

void luna_answer_query(luna_broker *broker, luna_message *message);
//  Whether the store may be asked one more thing: LUNA_BUSY.
luna_err luna_answer_room(const luna_broker *broker);
//  The answer to an order that applied to `changed` jobs or decoders;
//  luna_error_text() is the detail of an error.
void luna_answer_order(luna_broker *broker, const luna_peer *peer, uint64_t re,
                       luna_err err, uint64_t changed);

//  ---- orders.c ------------------------------------------------------------------

//  CANCEL, RETRY, PRIORITISE, PAUSE, RESUME, DRAIN. Errors are answered.
void luna_order_take(luna_broker *broker, luna_message *message);

//  ---- work.c --------------------------------------------------------------------

//  The lowest free descriptor, which is about how many are in use, and their limit.
//  False: there is none.
typedef struct luna_descriptor_count {
    size_t used;
    size_t limit;
} luna_descriptor_count;
bool luna_descriptors(const luna_broker *broker, luna_descriptor_count *out);

//  A new slot for the session. Errors of luna_slot_open.
LUNA_MUST_USE luna_err luna_work_open(luna_broker *broker, uint32_t session,
                                      const luna_peer *peer, luna_slot **out);
//  NULL when the session has none.
luna_slot *luna_work_slot(const luna_broker *broker, uint32_t session);
//  The latest session of a routing id; NULL when it is no decoder's.
luna_slot *luna_work_peer(const luna_broker *broker, const luna_peer *peer);
//  Closes the slot of a decoder that is gone.
void luna_work_give_up(luna_broker *broker, uint32_t session);
//  Whether the decoder on this routing id was given up and has not said hello since.
bool luna_work_gave_up(const luna_broker *broker, const luna_peer *peer);
void luna_work_close_all(luna_broker *broker);
//  A durable attempt goes into the outbox, and out as soon as there is room.
void luna_work_queue(luna_broker *broker, luna_slot *slot, const luna_job_key *key);
//  Sends what the slot has room for.
void luna_work_flush(luna_broker *broker, luna_slot *slot);
//  A decoder that never connected to its slot and has missed three pings is gone: there
//  is no connection whose end would tell.
void luna_work_watch(luna_broker *broker, int64_t now_ms);
//  Tells the decoder to drop this attempt and older ones of the job.
void luna_work_stop(luna_broker *broker, const luna_peer *peer, const luna_job_key *key);

//  ---- dispatch.c ----------------------------------------------------------------

luna_calls luna_dispatch_calls(luna_broker *broker);
//  Starts what can start, and hands over what was submitted; after every round of
//  messages.
void luna_dispatch_settle(luna_broker *broker);
//  Records images that no other task recorded.
void luna_dispatch_record(luna_broker *broker, const luna_id *id);

//  ---- events.c ------------------------------------------------------------------

int luna_events_ready(zloop_t *loop, zsock_t *reader, void *broker);
void luna_events_job(luna_broker *broker, const char *kind,
                     const luna_msg_job_info *info);
void luna_events_decoder(luna_broker *broker, const char *kind,
                         const luna_decoder *decoder);
//  When something changed since the last one.
void luna_events_status(luna_broker *broker);

//  ---- metrics.c -----------------------------------------------------------------

//  The page of /metrics; the caller frees it.
void luna_metrics_page(luna_broker *broker, luna_page *page);
//  Durations of a job and of its images.
void luna_metrics_dispatched(luna_broker *broker, const luna_job *job);
void luna_metrics_ended(luna_broker *broker, const luna_job *job, luna_job_state state,
                        uint64_t finished_ms);
void luna_metrics_images(luna_broker *broker, const luna_msg_image *images, size_t count);
void luna_metrics_store(luna_broker *broker, const luna_task *task);

//  ---- alarm.c, forget.c, reload.c, broker.c -------------------------------------

//  Looks whether all is well; each second.
void luna_alarm_check(luna_broker *broker);
//  Finished jobs that are older than they are kept leave the store; each tick.
void luna_forget_old(luna_broker *broker, int64_t now_ms);
//  Fetches the numbers of finished jobs from the store.
void luna_ask_counts(luna_broker *broker);
//  Reads the settings again.
void luna_reload(luna_broker *broker);
luna_rules luna_loop_rules(const luna_settings *settings);
//  Enters a stored job, which is active, in the scheduler; `former`: at the start.
luna_err luna_loop_enter(luna_broker *broker, const luna_store_job *stored,
                         luna_job_place place, bool former, int64_t now_ms);

//  ---- info.c --------------------------------------------------------------------

//  Texts borrow from the broker and live until its next change.
luna_msg_job_info luna_info_job(const luna_broker *broker, const luna_job *job);
//  Brings a stored row up to what the scheduler knows of an active job; without its
//  position, which costs a walk over the jobs.
void luna_info_refresh(const luna_broker *broker, luna_msg_job_info *info);
void luna_info_position(const luna_broker *broker, luna_msg_job_info *info);
luna_msg_decoder_info luna_info_decoder(const luna_decoder *decoder, int64_t now_ms);
luna_msg_status luna_info_status(luna_broker *broker);
//  All decoders; the caller frees *out. Returns how many; 0 and NULL without memory.
size_t luna_info_decoders(const luna_broker *broker, luna_msg_decoder_info **out);

#endif
