//  client.h - what a client consists of; shared by the files of this folder only
//
//  Three sides. Any thread of the application calls the functions of luna.h: they put
//  jobs, questions and watches into the client under its lock and ring the bell. One
//  background thread (loop.c) owns the sockets and the session, takes what was put
//  there, and broadcasts `changed` when something came back. With an outbox, a second
//  one (keeper.c) owns its folder. The lock is never held over a copy of latents, a
//  call that may wait, or a callback.

#ifndef LUNA_PRODUCER_CLIENT_H
#define LUNA_PRODUCER_CLIENT_H

#include "common/home.h"
#include "producer/luna/jobs.h"
#include "producer/luna/link.h"
#include "producer/luna/luna.h"
#include "producer/luna/notice.h"
#include "producer/luna/outbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define LUNA_CLIENT_NAME_BYTES 128

//  A question or an order that waits for its answer; lives on its caller's stack.
typedef struct luna_request {
    uint64_t re;
    const void *data;  //  the packed message
    size_t len;
    uint64_t session;  //  in which it was sent; 0: not yet
    bool answered;
    zmq_msg_t frame;  //  the answer, once answered
    struct luna_request *next;
} luna_request;

//  Somebody waits for news of one job. Made by the watcher, freed by the background
//  thread after `ended`, since only that may end its subscription.
typedef struct luna_watch {
    luna_id id;
    char topic[48];   //  "job/<uuid>"
    bool news;        //  something happened since it was last cleared
    bool final;       //  and it was the job's end
    bool subscribed;  //  background thread only
    bool ended;       //  the watcher has left
    struct luna_watch *next;
} luna_watch;

//  Where the conversation with the broker stands; background thread only.
typedef struct luna_session {
    uint64_t number;  //  of welcomes so far; 0: never
    luna_id epoch;    //  of the broker
    bool up;
    int64_t ping_ms;
    int64_t next_ping_ms;
    int64_t heard_ms;    //  when the broker was last heard
    int64_t give_up_ms;  //  down: when the present hello is given up
    int64_t backoff_ms;
    int64_t hold_ms;     //  no job is sent or offered before: the broker was busy
    bool offer_first;    //  the broker wants each job offered before it is sent
    bool told_busy;      //  and so it is until an offer has been answered with "send"
    bool away;           //  a hello has been waited for in vain since it was last up
    int64_t blocked_ms;  //  since when the intake takes nothing; 0: it does
    char intake[LUNA_MAX_PATH_BYTES + 1];
    char events[LUNA_MAX_PATH_BYTES + 1];
} luna_session;

//  A file that is to leave jobs/.
typedef struct luna_removal {
    luna_outbox_name name;
    uint64_t bytes;
    char *reason;  //  refused: why; NULL: it is no longer needed
    struct luna_removal *next;
} luna_removal;

//  The disk thread and what it is to do; under the client's lock, but for the outbox.
typedef struct luna_keeper {
    luna_outbox *outbox;  //  NULL: none. The disk thread's alone while that runs
    pthread_t thread;
    pthread_cond_t work;
    bool body_wanted;        //  the next job's message must be read back
    bool hurry;              //  jobs are written at once
    bool ending;             //  write what there is and end
    int64_t read_retry_ms;   //  the disk failed: nothing is read before; 0: it works
    int64_t write_retry_ms;  //  the same, or the outbox is full: nothing is written
    luna_removal *removals, **last;
    uint64_t asked;        //  removals so far
    uint64_t removed;      //  of these, done
    uint64_t synced;       //  and durable
    uint64_t sync_wanted;  //  somebody waits until so many are
    int64_t sync_ms;       //  when the others are made so; INT64_MAX: all are
} luna_keeper;

struct luna_client {
    //  Constant after luna_client_new.
    pid_t pid;
    char endpoint[LUNA_HOME_BYTES];  //  as it was given
    luna_address broker;
    char name[LUNA_CLIENT_NAME_BYTES];
    luna_options options;
    luna_id id;
    luna_pool *pool;
    pthread_t thread;
    int bell;  //  eventfd: wakes the background thread

    //  Any thread.
    atomic_bool available;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    //  Under the lock.
    luna_jobs jobs;
    luna_request *requests;
    luna_watch *watches;
    uint64_t next_re;
    uint64_t max_job_bytes;  //  the broker's; 0: not known
    bool all_events;         //  an event callback is set
    bool stopping;
    int64_t stop_ms;    //  stopping: not later than this
    char problem[256];  //  why the broker cannot be talked to; "" when that is unknown
    luna_keeper keeper;
    luna_notice_state notices;

    //  Under callback_lock, which is recursive.
    pthread_mutex_t callback_lock;
    luna_event_callback *callback;
    void *callback_context;
    luna_notice_callback *notice_callback;
    void *notice_context;

    //  Background thread only, after luna_client_new.
    luna_link link;
    luna_session session;
    bool subscribed_all;
};

//  ---- client.c ----------------------------------------------------------------------

//  LUNA_UNSUPPORTED in a forked child, LUNA_USAGE for NULL.
LUNA_MUST_USE luna_err luna_client_check(const luna_client *client);

//  Reads the id of a job; LUNA_USAGE for anything else.
LUNA_MUST_USE luna_err luna_job_id(const char *text, luna_id *id);

void luna_client_ring(luna_client *client);
void luna_client_problem(luna_client *client, const char *text);

//  The monotonic time of a timeout in ms; INT64_MAX for a negative one.
int64_t luna_deadline_ms(int32_t timeout_ms);

//  Waits for `changed` under the lock; false once deadline_ms has passed.
bool luna_client_wait(luna_client *client, int64_t deadline_ms);

//  Notes and returns why something did not happen in time. Not under the lock.
luna_err luna_client_late(luna_client *client, const char *what);

//  Starts a thread that no signal of the application is delivered to and that never
//  takes the core from the one that wakes it. LUNA_UNAVAILABLE.
LUNA_MUST_USE luna_err luna_client_thread(pthread_t *thread, void *(*run)(void *),
                                          luna_client *client);

//  luna_jobs_settle, and what it means for the outbox and for those who wait. Under the
//  lock.
luna_buffer *luna_client_settle(luna_client *client, luna_entry *entry, luna_err error,
                                const char *detail);

//  ---- loop.c, session.c, intake.c, watch.c: the background thread -----------------

void *luna_loop_run(void *client);

//  Starts a new conversation with a hello.
void luna_session_call(luna_client *client, int64_t now_ms);

//  Pings, gives up, calls again. Returns when it wants to be called again.
int64_t luna_session_tick(luna_client *client, int64_t now_ms);

//  Takes one message of the control socket.
void luna_session_take(luna_client *client, zmq_msg_t *frame, int64_t now_ms);

//  Sends what may be sent and looks for overdue receipts. Returns when it wants to be
//  called again; *wants_room: also when the intake has room.
int64_t luna_intake_tick(luna_client *client, int64_t now_ms, bool *wants_room);

//  Takes a receipt, a grant.
void luna_intake_receipt(luna_client *client, const luna_msg_receipt *receipt,
                         int64_t now_ms);
void luna_intake_grant(luna_client *client, const luna_msg_grant *grant);

//  After a welcome; `other` when it is not the broker that was talked to before.
void luna_intake_welcome(luna_client *client, const luna_msg_welcome *welcome,
                         bool other);

//  Calls the application for what is new.
void luna_notice_tick(luna_client *client);

//  ---- keeper.c: the outbox and its thread --------------------------------------------

//  Opens the outbox of the options or of the environment, takes the identity of the jobs
//  in it and queues them. Before the thread; the client has its options and an id.
//  LUNA_OK without an outbox; errors as luna_client_new.
LUNA_MUST_USE luna_err luna_keeper_open(luna_client *client);

//  Nothing to do without an outbox. LUNA_UNAVAILABLE.
LUNA_MUST_USE luna_err luna_keeper_start(luna_client *client);
void *luna_keeper_run(void *client);

//  Writes what the broker has not accepted and ends the thread. Afterwards the jobs that
//  are unsettled and not kept are lost. Nothing to do without an outbox.
void luna_keeper_stop(luna_client *client);

//  Gives up the folder. After luna_keeper_stop, or without luna_keeper_start.
void luna_keeper_close(luna_client *client);

//  The outbox's folder, "" without one.
const char *luna_keeper_dir(const luna_client *client);

//  Wakes the disk thread when there is something to write. Returns when it wants to be
//  called again. Under the lock.
int64_t luna_keeper_tick(luna_client *client, int64_t now_ms);

//  Asks for the message of the next job. Under the lock.
void luna_keeper_want(luna_client *client);

//  Before a job is settled: its file, if it has one, is no longer needed, or was refused.
//  Returns a ticket for luna_keeper_wait, 0 when there is no file. Under the lock.
uint64_t luna_keeper_drop(luna_client *client, const luna_entry *entry, luna_err error,
                          const char *reason);

//  Waits until all files up to the ticket are durably gone. False at the deadline. Under
//  the lock.
bool luna_keeper_wait(luna_client *client, uint64_t ticket, int64_t deadline_ms);

//  Sends unsent questions, keeps the subscriptions as they are wanted, takes an event.
void luna_ask_tick(luna_client *client);
void luna_watch_tick(luna_client *client);
void luna_watch_event(luna_client *client, zmq_msg_t *frame);

//  After a welcome: other endpoints may be in use and news may have been missed.
void luna_watch_reset(luna_client *client);

//  Gives an answer to the request it belongs to; takes the frame's content then.
void luna_ask_answer(luna_client *client, const luna_msg_answer *answer,
                     zmq_msg_t *frame);

//  ---- ask.c, orders.c, answer.c: for the functions of luna.h
//  --------------------------------

typedef struct luna_question {
    luna_msg_type type;  //  LUNA_MSG_QUERY or an order
    luna_msg_query query;
    luna_msg_order order;  //  used unless it is a query
    uint64_t changed;      //  set on LUNA_OK: how many jobs or decoders an order changed
} luna_question;

//  Sends a query or an order, whose `re` is filled in here, and waits for the answer.
//  `out` may be NULL. Errors as luna_query_status.
LUNA_MUST_USE luna_err luna_ask(luna_client *client, luna_question *question,
                                int64_t deadline_ms, luna_answer **out);

//  luna_wait_receipt with an id and a deadline.
LUNA_MUST_USE luna_err luna_receipt_wait(luna_client *client, const luna_id *id,
                                         int64_t deadline_ms, luna_receipt *receipt);

//  Copies status, jobs, decoders and text of a message; LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_answer_make(const luna_msg_answer *from, luna_answer **out);

#endif
