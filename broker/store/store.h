//  store.h - the durable store: job rows in SQLite, payload files in the spool
//
//  What the broker calls accepted is here: an operation that came back LUNA_OK is
//  on stable storage and survives kill -9 and power loss at any later moment; one
//  that came back with an error changed nothing (see luna_store_op for the two
//  places where less is known).
//
//      STATE/luna.db            rows (SQLite, write-ahead log)
//      STATE/luna.lock          held while open
//      STATE/reserve            the ballast: room for the end of jobs on a full disk
//      SPOOL/LOCK               held while open; the owner's process id
//      SPOOL/tmp/<id>           a payload being written; emptied at open
//      SPOOL/ready/<id>         the payload of an active or failed job (proto/payload.h)
//      SPOOL/quarantine/<name>  what was found damaged at open; never touched again
//
//  Asynchronous: the broker's loop thread submits operations, one store thread
//  executes them in the order of submission, and they come back in that order.
//  What has queued up meanwhile forms one batch: its payloads are written and synced
//  together with their folder, and the rows of all committed by one transaction (group
//  commit). Only then do they come back.
//
//  The order that makes this safe:
//      1. payload bytes written under tmp/ and renamed into ready/,
//      2. payload files and the folder synced,
//      3. rows committed; the log synced unless the batch holds nothing but PUTs,
//      4. operations come back,
//      5. payloads of completed and cancelled jobs are unlinked in the background.
//
//  Why that is enough:
//    - Names come before syncs so that one commit of the file system's journal takes
//      both. A power loss between 1 and 2 may leave a name without its bytes; nobody
//      was told of that job, its hash is wrong, and open sets it aside.
//    - The row of a PUT need not be synced: all it says stands in the payload, which
//      is durable before the row is written (2 before 3). A payload without a row
//      becomes the same row at open, with the time of acceptance from its header. It
//      is verified whole and synced first: a killed broker may not have come to 2.
//    - Whatever else happens to a job is synced before it is reported (3), and the log
//      is one file: its sync takes along every transaction before, that of the PUT too.
//      So a job with more history than a PUT has its row.
//    - A row lacks its payload only when it says completed or cancelled (3 before 5).
//      A payload that a power loss brings back finds that row and is removed again.
//    - A row is deleted only after the removal of its payload has been made durable, so
//      that a forgotten job never comes back. A payload that is taken back because its
//      row could not be written is removed just as durably.
//    - After a failed sync of the log nobody knows which of its pages reached the disk.
//      Before anything else is promised, all of it is written anew, into the database.
//
//  Errors of the disk: an fsync or a commit that fails for another reason than a
//  full disk makes the store read-only for good (luna_store_writable): what the
//  kernel has dropped cannot be known, so PUTs answer LUNA_IO until the broker is
//  started again; every other operation is still tried. So does a page of the database
//  that SQLite finds damaged.
//
//  A full disk: a PUT that leaves less than the reserve is refused, so the rest of the
//  disk is there for the others. When another program takes that too and an operation
//  that is no PUT finds no room, the ballast is freed and it is tried again. From then
//  on PUTs are refused until the ballast could be allocated anew, which is tried once a
//  second. So an accepted job can always come to its end.
//
//  Threads: every function here is for the one thread that opened the store.

#ifndef LUNA_BROKER_STORE_H
#define LUNA_BROKER_STORE_H

#include "broker/store/state.h"
#include "common/arena.h"
#include "proto/formats.h"

typedef struct luna_store luna_store;

//  ---- a job as it is stored ----------------------------------------------------

typedef struct luna_store_job {
    luna_job_state state;
    luna_id client;       //  routing id that gets the receipt and the result
    luna_text prompt_id;  //  ComfyUI's; absent when there is none
    uint32_t batches[LUNA_MAX_INPUTS];  //  images of each input, 0 where there is none;
                                        //  all 0 when not known
    luna_formats formats;               //  of its inputs; 0 when not known
    uint64_t content;                   //  luna_job_content; 0 when not known
    uint64_t next_ms;                   //  wall clock of the order "run next"; 0: none
    luna_msg_job_info info;  //  all but `position`, which is 0; info.state is the
                             //  state's name; info.bytes counts the message, the
                             //  payload file is LUNA_PAYLOAD_HEADER_BYTES larger;
                             //  info.next says that next_ms is not 0
} luna_store_job;

//  A job whose row was lost and made again of its payload has this many attempts, so
//  that no decoder takes the next for one that it had before. It is pending, and its
//  images are not known: a decoder finds those that are saved.
#define LUNA_STORE_REBUILT_ATTEMPTS 1000

//  Stored jobs and everything their texts point to. A zeroed one is empty.
typedef struct luna_store_jobs {
    luna_store_job *items;
    size_t count;
    luna_arena arena;
} luna_store_jobs;

void luna_store_jobs_free(luna_store_jobs *jobs);

//  The row of a job that was just received: pending, no attempts, info.images as
//  luna_job_images, info.deadline_ms from `accepted_ms` on. Texts are borrowed from
//  `job`. `body_bytes` is the length of its message, `accepted_ms` the wall clock.
luna_store_job luna_store_job_new(const luna_msg_job *job, size_t body_bytes,
                                  uint64_t accepted_ms);

//  ---- operations ------------------------------------------------------------------

//  Every operation names what it needs in `in`, and its errors. All may also answer
//  LUNA_IO, LUNA_NO_SPACE, LUNA_NO_MEMORY and LUNA_BUSY (another program holds the
//  database's lock for more than a second). NOT_FOUND: no job of this id.
typedef enum luna_store_kind {
    //  A new job. `in.put.job` as from luna_store_job_new (`id` of the
    //  operation rules), `in.put.body` its message.
    //  LUNA_EXISTS: the id is known (also when finished and not yet forgotten) and
    //  the content is the same; nothing is written, `found` holds the stored job and
    //  `state` its state. LUNA_BAD_REQUEST: the id is known and the content is another;
    //  nothing is written, `state` is the stored job's.
    //  LUNA_NO_SPACE: bytes needed and free are in `detail`. LUNA_IO: read-only.
    LUNA_STORE_PUT,

    //  pending or in_progress -> in_progress. `in.attempt`. Must be back before the
    //  job is sent. NOT_FOUND; LUNA_EXISTS: already finished, `state` says how.
    LUNA_STORE_ATTEMPT,

    //  Adds saved images; one that is there already (same input and index) stays as
    //  it was. `in.images`; `changed` counts the new ones. In any state. NOT_FOUND.
    //  LUNA_BAD_REQUEST: the job has no such input or image; none is added then.
    LUNA_STORE_IMAGES,

    //  active -> completed, failed or cancelled. `in.finish`, with images as above in
    //  the same transaction. NOT_FOUND; LUNA_EXISTS: already finished, `state` says
    //  how; its images are then not added. LUNA_BAD_REQUEST as for IMAGES; the job is
    //  then not finished.
    LUNA_STORE_FINISH,

    //  in_progress -> pending with the given counters; accepted_ms, and with it the
    //  place in the queue, stays. `in.requeue`. A pending job only gets the counters.
    //  NOT_FOUND; LUNA_EXISTS: already finished.
    LUNA_STORE_REQUEUE,

    //  failed -> pending: lost and refused are 0, error is cleared, images already
    //  saved stay. `attempts` goes on: the number is the fence, and a decoder takes
    //  none that it had before. `found` holds the job. NOT_FOUND: no such job, or its
    //  payload is missing or damaged (the whole payload is verified here).
    //  LUNA_BAD_REQUEST: the job is in another state, which `state` says.
    LUNA_STORE_RETRY,

    //  A new priority and place of an active job. `in.prioritise`. NOT_FOUND;
    //  LUNA_EXISTS: already finished; LUNA_BAD_REQUEST: the priority is above
    //  LUNA_PRIORITY_MAX.
    LUNA_STORE_PRIORITISE,

    //  Remembers whether the queue is paused. `in.pause`.
    LUNA_STORE_PAUSE,

    //  `found`: the job with its images (info.files). NOT_FOUND.
    LUNA_STORE_GET,

    //  `found`: jobs, newest accepted first, without their files. `in.list`.
    LUNA_STORE_LIST,

    //  `counts` by state. Costs a walk over an index: meant for the start.
    LUNA_STORE_COUNTS,

    //  Deletes finished jobs (rows, image records, payloads of failed ones) that
    //  finished before `in.forget.before_ms`, oldest first. `changed` counts them;
    //  equal to the limit means that there may be more. A batch of its own.
    LUNA_STORE_FORGET,

    LUNA_STORE_KINDS  //  how many there are
} luna_store_kind;

typedef struct luna_store_put {
    luna_store_job job;
    luna_blob body;
} luna_store_put;

typedef struct luna_store_attempt {
    uint64_t attempt;     //  from 1
    luna_text decoder;    //  its name
    uint64_t started_ms;  //  wall clock
} luna_store_attempt;

typedef struct luna_store_images {
    const luna_msg_image *items;
    size_t count;
} luna_store_images;

//  The VAE that decoded a job; its file and that file's hash.
typedef struct luna_store_vae {
    luna_text name;  //  absent: keeps what is stored
    luna_text path;
    luna_text sha256;
} luna_store_vae;

typedef struct luna_store_finish {
    luna_job_state state;  //  COMPLETED, FAILED or CANCELLED
    luna_text error;       //  error name; absent when completed
    luna_text detail;      //  one sentence
    uint64_t finished_ms;  //  wall clock
    luna_store_images images;
    luna_store_vae vae;
} luna_store_finish;

typedef struct luna_store_requeue {
    uint64_t lost;     //  new value
    uint64_t refused;  //  new value
    luna_text error;   //  why it comes back; absent keeps the stored one
    luna_text detail;
} luna_store_requeue;

typedef struct luna_store_prioritise {
    uint64_t priority;  //  0 to LUNA_PRIORITY_MAX
    uint64_t next_ms;   //  as in luna_store_job
} luna_store_prioritise;

typedef struct luna_store_pause {
    bool paused;
} luna_store_pause;

typedef struct luna_store_list {
    luna_job_state state;  //  or LUNA_JOB_ANY
    uint64_t limit;        //  at most this many
} luna_store_list;

typedef struct luna_store_forget {
    uint64_t before_ms;
    uint64_t limit;
} luna_store_forget;

//  One operation. The caller allocates it, zeroes it, fills the first part and
//  submits it; from then until luna_store_collect returns it, it belongs to the
//  store and so do all bytes it borrows. Whatever `err` is, nothing is kept: the
//  caller frees the borrowed bytes, calls luna_store_op_clear and reuses or frees it.
//
//  After LUNA_IO from a failed sync or commit two things are uncertain, and both end
//  well: a PUT may turn up as a pending job after a restart (the producer sends it
//  again under the same id and gets "exists"), and a row change may have reached the
//  disk (every one of them can be repeated).
typedef struct luna_store_op {
    luna_store_kind kind;
    luna_id id;  //  the job; not used by PAUSE, LIST, COUNTS and FORGET
    void *user;  //  the caller's; never looked at
    union {
        luna_store_put put;
        luna_store_attempt attempt;
        luna_store_images images;
        luna_store_finish finish;
        luna_store_requeue requeue;
        luna_store_prioritise prioritise;
        luna_store_pause pause;
        luna_store_list list;
        luna_store_forget forget;
    } in;

    luna_err err;
    char detail[512];       //  one sentence when err is not LUNA_OK, else ""
    luna_job_state state;   //  of the job afterwards; LUNA_JOB_ANY when not known
    luna_store_jobs found;  //  freed by luna_store_op_clear
    uint64_t changed;
    uint64_t counts[LUNA_JOB_STATES];

    struct luna_store_op *next;  //  the store's
} luna_store_op;

//  Frees the results and zeroes the whole operation.
void luna_store_op_clear(luna_store_op *op);

//  ---- the store ---------------------------------------------------------------------

typedef struct luna_store_options {
    const char *state_dir;   //  made when missing, mode 0700
    const char *spool_dir;   //  the same, 0750; all of it on one local file system
    uint64_t reserve_bytes;  //  a PUT that would leave less free than this is refused
    uint64_t ballast_bytes;  //  0: 16 MiB; kept free for the end of jobs on a full disk
    bool recover;            //  a damaged database is moved aside, see luna_store_open
    size_t log_bytes;        //  0: 8 MiB; of the database's log, allocated ahead
    size_t batch_ops;        //  0: 64; one transaction holds at most so many
    size_t batch_bytes;      //  0: 64 MiB; or so many payload bytes (one is always taken)
    const struct luna_files *files;  //  NULL: the system's (broker/store/files.h)
    bool sync_in_order;              //  for tests: one sync after the other
} luna_store_options;

//  Locks both folders, opens or makes the database, repairs what a crash left and
//  starts the threads. `active` receives the pending and in_progress jobs with
//  their saved images, oldest accepted first: the caller frees it. A job whose payload
//  was missing or damaged is failed by then (error "io", the payload aside in
//  quarantine/); each repair is one line in the log.
//
//  Damage: the row of an active job that cannot be right is moved to the database's
//  table `damaged`, and the job made again of its payload. A row that SQLite cannot read
//  is left alone with its job; the store is read-only then, and its alarm says to run
//  luna-broker --recover. So does the sentence of LUNA_IO when the database cannot be
//  opened at all. With `recover`, a database that PRAGMA quick_check finds fault with is
//  moved aside as luna.db.damaged-<time>, and a new one made of the spool alone: every
//  sound payload is a pending job then, those of failed jobs too, and what had ended is
//  not known. A sound one is kept, and rows that are missing are made.
//
//  LUNA_BUSY: another broker has the folders (its process id is in the sentence);
//  LUNA_UNSUPPORTED: written by a newer Luna; LUNA_CANT_CREATE, LUNA_IO,
//  LUNA_NO_SPACE, LUNA_NO_MEMORY.
//  Cost: about 15 us an active job once its header is in the page cache.
LUNA_MUST_USE luna_err luna_store_open(const luna_store_options *options,
                                       luna_store **out, luna_store_jobs *active);

//  Hands an operation over; never blocks on the disk and never fails.
void luna_store_submit(luna_store *store, luna_store_op *op);

//  Hands over several, linked by `next`, at once: they share a batch, and so its syncs,
//  as far as a batch has room. The links are the store's from here on.
void luna_store_submit_all(luna_store *store, luna_store_op *first);

//  A file descriptor that polls readable when operations have come back: collect then
//  until NULL. Only to be polled; closed by luna_store_close.
int luna_store_fd(const luna_store *store);

//  The oldest operation that is back, or NULL when there is none: call until NULL.
luna_store_op *luna_store_collect(luna_store *store);

//  Blocks until every submitted operation is back (they are collected as usual).
void luna_store_drain(luna_store *store);

//  Whether jobs are accepted: no sync has failed and the spool has more free space than
//  its reserve. When not, the reason as one sentence in `why` (NULL: not wanted).
bool luna_store_writable(luna_store *store, char *why, size_t room);

//  The latest LUNA_STORE_PAUSE that was durable when the store was opened; false before
//  the first.
bool luna_store_paused(const luna_store *store);

//  How the store is, for a status: one statvfs.
typedef struct luna_store_condition_t {
    uint64_t free_bytes;  //  of the spool's disk, for ordinary users
    bool read_only;       //  a sync failed: no job is accepted until the next start
    bool ballast_spent;   //  the state folder's disk is full: no job is accepted
    char alarm[512];      //  what needs a person, one sentence; "" when all is well
} luna_store_condition_t;

void luna_store_condition(luna_store *store, luna_store_condition_t *out);

//  Where the payload file of an active or failed job lies: for the work message of
//  a decoder on this host, or to map and send. LUNA_TOO_LARGE when it does not fit.
LUNA_MUST_USE luna_err luna_store_payload_path(const luna_store *store, const luna_id *id,
                                               char *out, size_t room);

//  Executes what is queued, stops the threads, closes and unlocks; nulls the
//  pointer. Operations not collected by then are the caller's again.
void luna_store_close(luna_store **store);

#endif
