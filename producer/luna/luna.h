//  luna.h - hand latents to Luna and learn what became of them
//
//  This header is the whole interface of libluna.so.0 and its manual. It includes
//  nothing but standard headers, and all structs are plain, so that ctypes or any
//  other foreign interface can mirror them field for field.
//
//      luna_client *client = NULL;
//      if (luna_client_new(NULL, NULL, &client) != LUNA_RC_OK)
//          die(luna_last_error());
//      luna_submission job;
//      luna_submission_init(&job);
//      job.input_count = 1;
//      job.inputs[0].data = latent;                //  float32 [4, 16, 128, 128]
//      job.inputs[0].bytes = 4 * 16 * 128 * 128 * sizeof(float);
//      job.inputs[0].dtype = "float32";
//      job.inputs[0].shape[0] = 4;   job.inputs[0].shape[1] = 16;
//      job.inputs[0].shape[2] = 128; job.inputs[0].shape[3] = 128;
//      job.inputs[0].dims = 4;
//      char id[LUNA_JOB_ID_BYTES];
//      if (luna_submit(client, &job, id) != LUNA_RC_OK) die(luna_last_error());
//      ...                                         //  `latent` may be freed here
//      size_t lost = luna_client_destroy(&client, 5000);
//
//  What is promised
//  - luna_submit copies the latents once, queues the job and returns; it never waits
//    for the network. A 4 MiB job takes well under 2 ms.
//  - One background thread a client sends the job and sends it again, with the same
//    id and the same bytes, until the broker's receipt says `accepted` (the job is
//    then on stable storage at the broker) or `refused`. Jobs go out in the order of
//    their submission. A broker that is away, busy or restarted is waited for; one
//    that has no room is asked before the next job's bytes are moved. The caller
//    hears of all that by luna_notices.
//  - Without an outbox a job stays in memory meanwhile, and what is not accepted when
//    the process ends is lost: call luna_wait_receipt, or luna_client_destroy with time
//    to linger, before leaving.
//
//  Outbox. With luna_options.outbox_dir, or the environment's LUNA_OUTBOX, a client has a
//  folder on its own host for what the broker has not accepted:
//  - A job that has no receipt outbox_after_ms after its submission is written there,
//    by a thread of its own: luna_submit never waits for the disk. So is every job that
//    is left at luna_client_destroy. luna_wait_kept tells when a job is on the disk.
//  - What is in the outbox survives a crash of the process and of the host. Whoever opens
//    the folder next sends it first, in its old order and byte for byte as it was. A job
//    that had reached the broker before is known there by its id and not stored twice.
//  - Not covered: a job that is younger than outbox_after_ms when the process is killed.
//    An outbox_after_ms of 0 writes each job at once, which costs a disk write a job.
//  - A file is removed only after the job's receipt. A refused job is moved to the
//    folder's refused/ with its reason; a file that is damaged, to damaged/. Neither is
//    sent or removed any more; both are told by a notice. To send a refused job again,
//    move it back into jobs/ while nobody has the outbox open.
//  - The memory stays bounded by queue_bytes: messages that are on the disk leave it when
//    room is needed and are read back in their turn. The disk is bounded by outbox_bytes,
//    refused/ and damaged/ included. LUNA_RC_BUSY then means that both are full, or that
//    the disk is slower than the caller. A disk that fails or is full costs durability,
//    not jobs: they stay in memory, a notice says so, and it is tried again.
//  - A folder belongs to one client at a time (flock); a child of fork that lives on
//    without exec holds it too. It has an identity that the broker knows: do not use a
//    copy beside the original.
//
//  Errors. Functions that return int return a luna_rc: LUNA_RC_OK (0) or the reason;
//  out parameters are set on LUNA_RC_OK only, unless said otherwise. luna_last_error
//  then gives one sentence: what is wrong and what to do.
//
//  Texts are NUL-terminated UTF-8. Structs are filled by their _init function first
//  and changed after; NULL texts mean "the default". The library borrows everything
//  it is given for the time of the call only. A timeout_ms of 0 does not wait; a
//  negative one waits for ever.
//
//  Threads. Every function may be called from any thread at any time, several at
//  once on one client, except that luna_client_destroy must be the last call.
//  luna_last_error belongs to the calling thread.
//
//  fork. A client does not survive fork: in the child every function on it returns
//  LUNA_RC_UNSUPPORTED and does nothing. Make clients after forking, or exec.
//  The library installs no signal handler, blocks all signals in its own threads,
//  writes nothing to any descriptor of the process, and has a ZeroMQ context of its
//  own, so that it lives beside any other user of ZeroMQ in one process.

#ifndef LUNA_H
#define LUNA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LUNA_API __attribute__((visibility("default")))

//  Grows when a struct of this header changes. A caller that mirrors the structs
//  compares it with luna_api_version() before anything else.
#define LUNA_API_VERSION 5

#define LUNA_JOB_ID_BYTES 37  //  36 characters of a UUID and the NUL
#define LUNA_INPUTS_MAX   5   //  latent batches of one job
#define LUNA_DIMS_MAX     5
#define LUNA_HEATMAPS_MAX 4  //  positive and negative, original and modified

//  ---- return codes -----------------------------------------------------------------

typedef enum luna_rc {
    LUNA_RC_OK = 0,
    LUNA_RC_USAGE = 1,         //  an argument is wrong (NULL, not a UUID, ...)
    LUNA_RC_BAD_REQUEST = 2,   //  the job is malformed
    LUNA_RC_BAD_LATENT = 3,    //  shape, type or values of a latent
    LUNA_RC_BAD_MODEL = 4,     //  the file is not a VAE Luna can run
    LUNA_RC_UNKNOWN_VAE = 5,   //  no VAE of this name, or several
    LUNA_RC_UNSUPPORTED = 6,   //  valid, but not offered
    LUNA_RC_FORBIDDEN = 7,     //  a path outside the allowed roots
    LUNA_RC_TOO_LARGE = 8,     //  over a limit
    LUNA_RC_NOT_FOUND = 9,     //  no such job
    LUNA_RC_EXISTS = 10,       //  this job id is already in use
    LUNA_RC_BUSY = 11,         //  the queue is full; try again later
    LUNA_RC_TIMEOUT = 12,      //  no answer in time
    LUNA_RC_CANCELLED = 13,    //  cancelled on request
    LUNA_RC_UNAVAILABLE = 14,  //  no broker, decoder or device
    LUNA_RC_CANT_CREATE = 15,  //  a file cannot be created
    LUNA_RC_NO_SPACE = 16,     //  the disk is full
    LUNA_RC_IO = 17,           //  reading or writing failed
    LUNA_RC_NO_MEMORY = 18,
    LUNA_RC_OVERFLOW = 19,  //  the decode left the number range
    LUNA_RC_DEVICE = 20,    //  the decoder's device failed
    LUNA_RC_LOST = 21,      //  the decoder died or made no progress
    LUNA_RC_PROTOCOL = 22,  //  the broker broke the wire's rules
    LUNA_RC_CONFIG = 23,    //  a setting is wrong
    LUNA_RC_INTERNAL = 24   //  a bug in Luna
} luna_rc;

//  "busy", "bad_latent", ...: the same words as on the wire and in HTTP answers.
//  "internal" for a number that is no luna_rc. Static.
LUNA_API const char *luna_rc_name(int rc);

//  The sentence of the calling thread's latest failure, "" before the first. Valid
//  until the thread's next call into the library.
LUNA_API const char *luna_last_error(void);

//  "0.1.0": of the library that is loaded. Static.
LUNA_API const char *luna_version(void);
LUNA_API int luna_api_version(void);

//  ---- client -------------------------------------------------------------------------

typedef struct luna_client luna_client;  //  opaque

typedef struct luna_options {
    const char *name;            //  shown to operators; "libluna"
    uint64_t queue_bytes;        //  bound of jobs without a receipt in memory; 256 MiB
    uint64_t pool_bytes;         //  unused buffers kept for the next job; 64 MiB
    uint64_t warm_bytes;         //  buffer made ready at the start; 8 MiB, 0 for none
    int32_t receipt_timeout_ms;  //  first wait before a job is sent again; 5000
    int32_t receipt_timeout_max_ms;  //  it doubles up to this; 30000
    const char *outbox_dir;          //  NULL: LUNA_OUTBOX, else none; "": none
    uint64_t outbox_bytes;           //  bound of all its files; 4 GiB
    int32_t outbox_after_ms;         //  a job without a receipt is written then; 1000
} luna_options;

//  Fills in the defaults.
LUNA_API void luna_options_init(luna_options *options);

//  Makes a client and starts its threads. Returns at once: a broker that is not there
//  is not an error, it is waited for in the background. With an outbox its folders are
//  made and its names read first.
//
//  endpoint  the broker's address: "ipc:///run/luna/control", a tcp:// endpoint of this
//            machine's loopback, or, on another machine, "tcp://host:port?key=KEY" with
//            the broker's public key in 64 hexadecimal digits; NULL: LUNA_BROKER, else
//            the socket under LUNA_HOME or in the user's or the system's runtime folder.
//            For another machine this one's own key is read from the file LUNA_KEY_FILE,
//            else client.key in the folder of Luna's state, and made when it is missing
//  options   NULL: the defaults
//  out       the caller's, to be given to luna_client_destroy
//
//  LUNA_RC_CONFIG when the endpoint, the file of the key or an option is unusable,
//  LUNA_RC_UNAVAILABLE when no thread or socket can be had, LUNA_RC_NO_MEMORY; for a new
//  key LUNA_RC_CANT_CREATE, LUNA_RC_IO, LUNA_RC_NO_SPACE. For options->outbox_dir also
//  LUNA_RC_BUSY when another client has it, LUNA_RC_CANT_CREATE, LUNA_RC_IO. A folder
//  that only LUNA_OUTBOX names is no reason to fail: the client goes without an outbox,
//  and a notice "outbox_failed" says why.
LUNA_API int luna_client_new(const char *endpoint, const luna_options *options,
                             luna_client **out);

//  Waits at most linger_ms until every job has its receipt, stops the threads, frees
//  the client and nulls the pointer. Returns how many jobs were given up without
//  having been accepted or refused: they are lost to this process (one that had been
//  sent may still have reached the broker). With an outbox it does not linger for a
//  broker that is away, writes what is left to the disk, which takes its time, and
//  returns how many jobs could not be written: 0, unless the disk or the outbox is full
//  or fails. NULL and a nulled pointer give 0.
LUNA_API size_t luna_client_destroy(luna_client **client, int32_t linger_ms);

//  1 while the broker answers, else 0. Never waits: the state is kept up to date in
//  the background.
LUNA_API int luna_available(const luna_client *client);

//  Waits until the broker answers. LUNA_RC_UNAVAILABLE after timeout_ms.
LUNA_API int luna_wait_available(luna_client *client, int32_t timeout_ms);

//  The endpoint in use; valid as long as the client.
LUNA_API const char *luna_endpoint(const luna_client *client);

//  Jobs and their bytes that have no receipt yet. Either pointer may be NULL.
LUNA_API void luna_unsettled(const luna_client *client, size_t *jobs, uint64_t *bytes);

//  ---- submitting ---------------------------------------------------------------------

//  One latent batch. `data` holds shape[0] * ... * shape[dims - 1] values of `dtype`
//  in C order, little-endian: [N, C, H, W], or [N, C, 1, H, W] from video models.
//  They are in the VAE's own space, as ComfyUI's LATENT: no scaling is applied. An input
//  of the format "no save" is left out; the others keep their order and count from 0.
typedef struct luna_latent {
    const void *data;
    uint64_t bytes;     //  exactly what dtype and shape need
    const char *dtype;  //  "float32", "float16" or "bfloat16"; default "float32"
    uint32_t dims;      //  4 or 5
    uint64_t shape[LUNA_DIMS_MAX];
    const char *affix;         //  in names and as folder; default "", none
    const char *format;        //  "png", "webp", "jpeg", "avif", "jxl", "no save"; "png"
    uint32_t png_compression;  //  0 to 9; default 4
    uint32_t lossy_quality;    //  70 to 100, all but png; default 90
    int32_t lossless_webp;     //  0 or 1, webp and jxl; default 0
    int32_t subdir;            //  1: a folder named after the affix; default 1
    uint32_t png_bits;         //  8 or 16 a channel, png only; default 8
} luna_latent;

//  A further key of extra_pnginfo: `value` is JSON.
typedef struct luna_extra {
    const char *key;
    const char *value;
} luna_extra;

//  One word of a prompt, as the text encoder has it.
typedef struct luna_token {
    const char *text;  //  NULL where it is not known
    uint32_t index;    //  its place in the prompt, at most 65535
} luna_token;

//  Where the model looked for each token of a prompt (DAAM). `data` holds images *
//  token_count * height * width values in C order; map [n, t] belongs to image n of every
//  input, and the maps of one image alone to every image. They become the text
//  "daam_heatmaps" of the pictures' metadata, bit for bit. Sides are at most 1024, tokens
//  1024; one image has at most 32 MiB of maps in all sets.
typedef struct luna_heatmaps {
    const float *data;
    const char *prompt;   //  "positive" or "negative": whose tokens
    const char *variant;  //  "original" or "modified"
    const luna_token *tokens;
    uint32_t token_count;
    uint32_t images;
    uint32_t height;
    uint32_t width;
} luna_heatmaps;

//  One job. JSON texts travel as the bytes they are and are never re-written. A decoder
//  that does not offer a save mode fails the job with LUNA_RC_UNSUPPORTED; luna-decoder
//  offers "daemon".
typedef struct luna_submission {
    const char *job_id;           //  a UUID of the caller's; default NULL, a new one
    uint32_t priority;            //  0 to 9, 9 most urgent; default 5
    uint64_t deadline_ms;         //  from acceptance to completion; default 0, none
    const char *vae;              //  a name, a path or "auto"; default "auto"
    const char *output_dir;       //  absolute; default NULL, the decoder's first root
    const char *save_path;        //  template of the folders below it; default NULL
    const char *filename;         //  template of the name; default NULL
    const char *model_name;       //  for %model_name% and the metadata; default NULL
    uint64_t filename_index;      //  for %index%; default 0
    const char *save_mode;        //  "daemon" or "database_store"; default "daemon"
    const char *quality_gate;     //  "disabled", "variance", "edge_density" or "both"
    double min_quality;           //  0 to 1; default 0.3
    int32_t embed_workflow;       //  1: prompt and workflow go into the files; default 1
    int32_t round_pixels;         //  1: round, 0: truncate as ComfyUI; default 0
    const char *custom_metadata;  //  free text; default NULL
    const char *prompt_id;        //  ComfyUI's; default NULL
    const char *prompt;           //  JSON; default NULL
    const char *workflow;         //  JSON; default NULL
    const char *metadata;         //  a JSON object of generation data; default NULL
    const luna_extra *extras;     //  default NULL
    uint32_t extra_count;
    uint32_t input_count;  //  1 to LUNA_INPUTS_MAX; default 0
    luna_latent inputs[LUNA_INPUTS_MAX];
    int32_t sidecar;     //  1: a JSON file of the texts beside each picture; default 0
    int32_t parameters;  //  1: also AUTOMATIC1111's text, made of `metadata`; default 0
    const luna_heatmaps *heatmaps;  //  each prompt and variant once; default NULL
    uint32_t heatmap_count;         //  at most LUNA_HEATMAPS_MAX
} luna_submission;

//  Fills in the defaults of the job and of every input.
LUNA_API void luna_submission_init(luna_submission *submission);

//  Checks the job, copies it once into a message and queues it. On LUNA_RC_OK job_id
//  holds its id (also the given one) and everything borrowed may be reused.
//  LUNA_RC_BAD_REQUEST, LUNA_RC_BAD_LATENT, LUNA_RC_UNSUPPORTED with a sentence that
//  names the input; LUNA_RC_BUSY when the queue's byte bound is reached (the broker
//  is away or slow: wait for a receipt, then try again); LUNA_RC_TOO_LARGE when the
//  job alone exceeds the bound or the broker's limit; LUNA_RC_EXISTS when this client
//  or its outbox has a job of the given id; LUNA_RC_NO_MEMORY. Nothing is queued on an
//  error.
LUNA_API int luna_submit(luna_client *client, const luna_submission *submission,
                         char job_id[LUNA_JOB_ID_BYTES]);

typedef struct luna_receipt {
    int32_t error;      //  luna_rc: LUNA_RC_OK is accepted, else why it was refused
    int32_t duplicate;  //  1: the broker had a job of this id already
    uint64_t position;  //  accepted: jobs ahead of it
    uint64_t images;    //  accepted: pictures it will become
    char detail[512];   //  refused: one sentence
} luna_receipt;

//  Waits until the job is accepted (LUNA_RC_OK) or refused (the reason's code, also
//  in receipt->error; final, the bytes are gone). LUNA_RC_UNAVAILABLE or
//  LUNA_RC_TIMEOUT after timeout_ms: the job is still queued and still being sent.
//  LUNA_RC_CANCELLED after luna_cancel took it back unsent. LUNA_RC_NOT_FOUND for an
//  id that this client neither submitted nor found in its outbox; receipts of the latest
//  4096 jobs are kept. `receipt` may be NULL.
LUNA_API int luna_wait_receipt(luna_client *client, const char *job_id,
                               int32_t timeout_ms, luna_receipt *receipt);

//  Waits until the job is on stable storage: in the outbox, or accepted by the broker.
//  Errors as luna_wait_receipt. Without an outbox the same as that.
LUNA_API int luna_wait_kept(luna_client *client, const char *job_id, int32_t timeout_ms);

//  ---- notices ------------------------------------------------------------------------

//  What keeps jobs from being accepted, told once when it begins and once when it ends:
//
//  begins           ends             what
//  "away"           "back"           no broker answers
//  "busy"           "clear"          the broker takes no jobs; the reason is its own.
//  Told
//                                    again when the reason becomes one of another kind
//  "outbox"         "delivered"      jobs are kept in the outbox
//  "outbox_failed"  "outbox_works"   the outbox is full, fails, or cannot be opened
//
//  And once each:
//  "refused"        a job of the outbox was refused, and is in refused/
//  "lost"           a file of the outbox is damaged or gone: the job is not sent
//
//  Further kinds may come.
typedef struct luna_notice {
    const char *kind;
    const char *reason;  //  one sentence, never NULL
    const char *job_id;  //  "refused" and "lost", else ""
    uint64_t retry_ms;   //  "busy": the broker asked to be left alone so long
    uint64_t jobs;       //  without a receipt
    uint64_t bytes;      //  of these
    uint64_t kept;       //  how many of them are in the outbox
} luna_notice;

//  Valid for the time of the call. Runs on a background thread of the client: return
//  soon, and call no function of the client that waits.
typedef void luna_notice_callback(void *context, const luna_notice *notice);

//  Sets the notice callback, or removes it with NULL. When this returns, the former one
//  is not running and will not run again, unless it is the caller. A new one is told
//  what lasts at present. The last call may come within luna_client_destroy.
LUNA_API int luna_notices(luna_client *client, luna_notice_callback *callback,
                          void *context);

//  ---- asking -------------------------------------------------------------------------

typedef struct luna_status {
    uint64_t pending;  //  jobs
    uint64_t in_progress;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t queued_bytes;
    uint64_t oldest_ms;     //  age of the oldest pending job
    uint64_t decoders;      //  ready
    const char *accepting;  //  "yes", or why not
    const char *version;    //  of the broker
    int32_t paused;         //  1: no attempt is started until luna_resume
    uint64_t images;        //  saved since the broker's start
    uint64_t free_bytes;    //  of the disk that jobs wait on
    uint64_t uptime_ms;     //  of the broker
    const char *alarm;      //  what needs a person, one sentence; "" for nothing
} luna_status;

//  One saved picture.
typedef struct luna_image {
    uint64_t input;      //  0 to 4
    uint64_t index;      //  place in the batch
    const char *path;    //  absolute, on the decoder's host
    uint64_t bytes;      //  of the file
    const char *sha256;  //  of the file, lower-case hex
    uint64_t width;      //  pixels
    uint64_t height;
    double decode_ms;
    double encode_ms;
    double write_ms;
    const char *note;  //  it was discarded, or texts did not fit; "" for nothing
} luna_image;

typedef struct luna_job {
    const char *id;
    const char *state;  //  "pending", "in_progress", "completed", "failed", "cancelled"
    uint64_t priority;
    uint64_t position;  //  pending: jobs ahead
    uint64_t images;
    uint64_t images_done;
    uint64_t bytes;
    uint64_t attempts;
    uint64_t lost;        //  attempts whose decoder died or hung
    uint64_t refused;     //  attempts that a decoder answered with an error
    uint64_t created_ms;  //  wall clock, milliseconds since 1970 UTC; 0: not yet
    uint64_t accepted_ms;
    uint64_t started_ms;
    uint64_t finished_ms;
    const char *vae;  //  as the job has it
    const char *decoder;
    const char *error;   //  failed: a word of luna_rc_name, else ""
    const char *detail;  //  failed: one sentence, else ""
    const luna_image *files;
    size_t file_count;
    uint64_t deadline_ms;    //  wall clock: not completed by then, it fails; 0: none
    int32_t next;            //  pending: 1 goes before all others
    const char *vae_name;    //  completed: the VAE that decoded it, else ""
    const char *vae_path;    //  its file
    const char *vae_sha256;  //  of that file, 64 hex digits; "" when not known
} luna_job;

typedef struct luna_decoder {
    const char *name;
    const char *state;  //  "ready", "busy", "draining", "lost"
    const char *device;
    const char *version;
    const char *host;
    uint64_t pid;
    uint64_t running;  //  jobs in hand
    uint64_t credit_jobs;
    uint64_t images_done;
    uint64_t jobs_done;
    uint64_t jobs_failed;
    uint64_t seen_ms;         //  since its last message
    const char *const *vaes;  //  names it can serve
    size_t vae_count;
    const char *vae;  //  of the job it was given last
    const char
        *formats;  //  those it writes: "png webp jpeg", spaces between; "": unknown
} luna_decoder;

//  What a question brought back. Everything hangs on it and is freed with it. Texts
//  are never NULL: "" when absent.
typedef struct luna_answer {
    const luna_status *status;  //  luna_query_status only, else NULL
    const luna_job *jobs;       //  luna_query_job, luna_query_jobs
    size_t job_count;
    const luna_decoder *decoders;  //  luna_query_decoders
    size_t decoder_count;
    const char *text;  //  luna_query_metrics
} luna_answer;

//  Each sends a question and waits at most timeout_ms; *out is the caller's, to be
//  freed with luna_answer_free. LUNA_RC_UNAVAILABLE when no broker answered,
//  LUNA_RC_TIMEOUT when it was there but did not answer this, LUNA_RC_NO_MEMORY,
//  LUNA_RC_PROTOCOL, or the error of the broker's answer.
LUNA_API int luna_query_status(luna_client *client, int32_t timeout_ms,
                               luna_answer **out);

//  Newest first, at most `limit` jobs (0: the broker's own limit), without their
//  files. `state` NULL: all.
LUNA_API int luna_query_jobs(luna_client *client, const char *state, uint64_t limit,
                             int32_t timeout_ms, luna_answer **out);

//  One job with its files: out->jobs[0]. LUNA_RC_NOT_FOUND when the broker has none
//  of this id (one that is not accepted yet, too).
LUNA_API int luna_query_job(luna_client *client, const char *job_id, int32_t timeout_ms,
                            luna_answer **out);

LUNA_API int luna_query_decoders(luna_client *client, int32_t timeout_ms,
                                 luna_answer **out);

//  The broker's counters: out->text, in the text format of Prometheus.
LUNA_API int luna_query_metrics(luna_client *client, int32_t timeout_ms,
                                luna_answer **out);

//  Frees an answer and nulls the pointer. NULL and nulled pointers are fine.
LUNA_API void luna_answer_free(luna_answer **answer);

//  ---- orders -------------------------------------------------------------------------

//  Each sends an order and waits at most timeout_ms for the broker to have done it.
//  LUNA_RC_UNAVAILABLE and LUNA_RC_TIMEOUT as with questions: the order may have been
//  carried out all the same, and giving it again does no harm. Else the error of the
//  broker's answer. `changed`, which may be NULL, is how many jobs or decoders were
//  changed.

//  Cancels a job. One of this client that has not been sent is taken out of the
//  queue and durably out of the outbox; one under way, or of a former process, is
//  cancelled after its receipt. LUNA_RC_NOT_FOUND,
//  LUNA_RC_EXISTS or another error of the broker (a finished job), LUNA_RC_TIMEOUT,
//  LUNA_RC_UNAVAILABLE.
LUNA_API int luna_cancel(luna_client *client, const char *job_id, int32_t timeout_ms);

//  Puts a failed job back in the queue; a cancelled one has no payload any more. Errors
//  as luna_cancel.
LUNA_API int luna_retry(luna_client *client, const char *job_id, int32_t timeout_ms);

//  Puts every failed job back in the queue.
LUNA_API int luna_retry_failed(luna_client *client, int32_t timeout_ms,
                               uint64_t *changed);

//  Gives a waiting job another priority, 0 to 9. A job of this client
//  without a receipt is given it after its receipt, and a refusal is returned.
//  LUNA_RC_USAGE for another priority; else errors as luna_cancel, for a job that waits
//  no more, too.
LUNA_API int luna_prioritise(luna_client *client, const char *job_id, uint32_t priority,
                             int32_t timeout_ms);

//  Puts a waiting job before all others, whatever its priority. Errors as
//  luna_prioritise.
LUNA_API int luna_run_next(luna_client *client, const char *job_id, int32_t timeout_ms);

//  From now on no attempt is started; those that run go on, and jobs are accepted. It
//  holds until luna_resume, across a restart of the broker, too.
LUNA_API int luna_pause(luna_client *client, int32_t timeout_ms);

//  Lets one drained decoder take work again; with NULL all of them, and ends a pause.
//  LUNA_RC_NOT_FOUND for a decoder the broker does not know.
LUNA_API int luna_resume(luna_client *client, const char *decoder, int32_t timeout_ms,
                         uint64_t *changed);

//  One decoder, or with NULL all of them, finishes what it holds and is given no more
//  until luna_resume. It is drained once its luna_decoder.running is 0. Errors as
//  luna_resume.
LUNA_API int luna_drain(luna_client *client, const char *decoder, int32_t timeout_ms,
                        uint64_t *changed);

//  ---- watching -----------------------------------------------------------------------

//  Called for each picture that has been saved (`image` set) and for each change of
//  the job (`image` NULL), on the thread that called luna_wait_job. Both are valid
//  for the time of the call. May call any function but luna_client_destroy.
typedef void luna_job_callback(void *context, const luna_job *job,
                               const luna_image *image);

//  Waits until a job has ended, reporting each of its pictures exactly once.
//  LUNA_RC_OK when it is completed; the job's own error when it failed;
//  LUNA_RC_CANCELLED; LUNA_RC_NOT_FOUND; LUNA_RC_TIMEOUT or LUNA_RC_UNAVAILABLE after
//  timeout_ms (the job goes on). A job of this client that has no receipt yet is
//  waited for, and its refusal is returned. A broker that goes away meanwhile is
//  waited for. `callback` may be NULL.
LUNA_API int luna_wait_job(luna_client *client, const char *job_id, int32_t timeout_ms,
                           luna_job_callback *callback, void *context);

//  Something that happened at the broker. The first after a (re)connection is
//  "snapshot". `seq` counts the events of every topic and starts anew when the broker
//  does; a gap may mean that events were lost: ask again what matters.
typedef struct luna_event {
    uint64_t seq;
    uint64_t time_ms;            //  wall clock
    const char *kind;            //  "snapshot", "accepted", "dispatched", "image", ...
    const luna_answer *content;  //  what changed; borrowed, never NULL
} luna_event;

//  Valid for the time of the call. Runs on the client's background thread: return
//  soon, and call no function of the client that waits.
typedef void luna_event_callback(void *context, const luna_event *event);

//  Sets the event callback, or removes it with NULL. When this returns, the former
//  one is not running and will not run again, unless it is the caller.
LUNA_API int luna_events(luna_client *client, luna_event_callback *callback,
                         void *context);

#ifdef __cplusplus
}
#endif

#endif
