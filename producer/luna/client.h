//  client.h - what a client consists of; shared by the files of this folder only
//
//  Two sides. Any thread of the application calls the functions of luna.h: they put
//  jobs, questions and watches into the client under its lock and ring the bell. One
//  background thread (loop.c) owns the sockets and the session, takes what was put
//  there, and broadcasts `changed` when something came back. The lock is never held
//  over a copy of latents, a call that may wait, or a callback.

#ifndef LUNA_PRODUCER_CLIENT_H
#define LUNA_PRODUCER_CLIENT_H

#include "common/home.h"
#include "producer/luna/jobs.h"
#include "producer/luna/link.h"
#include "producer/luna/luna.h"

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
    int64_t hold_ms;     //  no job is sent before: the broker was busy
    int64_t blocked_ms;  //  since when the intake takes nothing; 0: it does
    char intake[LUNA_MAX_PATH_BYTES + 1];
    char events[LUNA_MAX_PATH_BYTES + 1];
} luna_session;

struct luna_client {
    //  Constant after luna_client_new.
    pid_t pid;
    char endpoint[LUNA_HOME_BYTES];
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

    //  Under callback_lock, which is recursive.
    pthread_mutex_t callback_lock;
    luna_event_callback *callback;
    void *callback_context;

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

//  Takes a receipt.
void luna_intake_receipt(luna_client *client, const luna_msg_receipt *receipt,
                         int64_t now_ms);

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
