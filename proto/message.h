//  message.h - every message on Luna's wire, as C structs
//
//  proto/README.md is the normative text: each table there is a struct here, field
//  for field. A decoded message borrows: texts and bytes point into the received
//  buffer and lists into the packet (proto/codec.h), so both must outlive it.
//  Texts are UTF-8 without a NUL after them. An absent optional field reads as its
//  default: NULL data, 0, or the default the table names.

#ifndef LUNA_PROTO_MESSAGE_H
#define LUNA_PROTO_MESSAGE_H

#include "common/id.h"

#include <stddef.h>
#include <stdint.h>

#define LUNA_WIRE_VERSION        1
#define LUNA_MAX_INPUTS          5
#define LUNA_MAX_DIMS            5
#define LUNA_MAX_BATCH           4096    //  images of one input
#define LUNA_MAX_LIST            100000  //  items of any list
#define LUNA_MAX_NAME_BYTES      1024    //  names, affixes, words
#define LUNA_MAX_PATH_BYTES      4096
#define LUNA_MAX_TEXT_BYTES      65536     //  custom metadata, error sentences
#define LUNA_MAX_PAGE_BYTES      4194304   //  the metrics of one broker
#define LUNA_MAX_JSON_BYTES      33554432  //  prompt, workflow, metadata: 32 MiB each
#define LUNA_PRIORITY_MAX        9         //  most urgent
#define LUNA_PRIORITY_DEFAULT    5
#define LUNA_MIN_QUALITY_DEFAULT 0.3  //  of producers; the wire's own is 0
#define LUNA_MAX_HEATMAP_SETS    4    //  positive and negative, original and modified
#define LUNA_MAX_TOKENS          1024
#define LUNA_MAX_TOKEN_INDEX     65535
#define LUNA_MAX_HEATMAP_SIDE    1024
#define LUNA_MAX_HEATMAP_BYTES   33554432  //  32 MiB: of one image, in all sets

typedef struct luna_text {
    const char *data;  //  UTF-8, no NUL; NULL when absent
    size_t len;        //  bytes
} luna_text;

typedef struct luna_blob {
    const void *data;  //  NULL when absent
    size_t len;        //  bytes
} luna_blob;

typedef struct luna_dims {
    uint64_t at[LUNA_MAX_DIMS];
    size_t count;
} luna_dims;

typedef struct luna_pair {
    luna_text key;
    luna_blob value;
} luna_pair;

#define LUNA_LIST_OF(type) \
    struct {               \
        const type *items; \
        size_t count;      \
    }

//  ---- jobs ---------------------------------------------------------------------

typedef struct luna_msg_input {
    luna_text affix;           //  "" for none
    luna_text format;          //  "png", "webp", "jpeg", "avif" or "jxl"
    uint64_t png_compression;  //  0 to 9
    uint64_t lossy_quality;    //  70 to 100
    bool lossless_webp;
    uint64_t png_bits;  //  8 or 16 a channel
    bool subdir;        //  a folder named after the affix
    luna_text dtype;    //  "float32", "float16" or "bfloat16"
    luna_dims shape;    //  [N, C, H, W] or [N, C, 1, H, W]
    luna_blob latent;   //  little-endian, C order
} luna_msg_input;

//  One word of a prompt, as the text encoder has it.
typedef struct luna_msg_token {
    luna_text text;  //  "" where it is not known
    uint64_t index;  //  its place in the prompt
} luna_msg_token;

//  Where the model looked for each token (DAAM): a map a token, for every image.
typedef struct luna_msg_heatmaps {
    luna_text prompt;                     //  "positive" or "negative": whose tokens
    luna_text variant;                    //  "original" or "modified"
    LUNA_LIST_OF(luna_msg_token) tokens;  //  T of them
    luna_dims shape;                      //  [N, T, H, W]; N is 1 for maps of every image
    luna_blob maps;                       //  float32, little-endian, C order
} luna_msg_heatmaps;

typedef struct luna_msg_job {
    luna_id id;
    luna_id client;          //  routing id of the DEALER that gets the receipt
    uint64_t created_ms;     //  the producer's wall clock
    int64_t utc_offset_min;  //  its time zone
    uint64_t priority;       //  0 to 9, 9 most urgent
    uint64_t deadline_ms;    //  from acceptance to completion at most; 0: no limit
    luna_text vae;           //  a name, a path or "auto"
    luna_text output_dir;    //  absolute; absent: the decoder's first root
    luna_text save_path;     //  template of the folders below output_dir
    luna_text filename;      //  template of the name
    luna_text model_name;
    uint64_t filename_index;
    luna_text save_mode;     //  "daemon" or "database_store"
    luna_text quality_gate;  //  "disabled", "variance", "edge_density", "both"
    double min_quality;
    bool embed_workflow;
    bool round_pixels;  //  round instead of ComfyUI's truncation
    bool sidecar;       //  a JSON file of the texts beside each picture
    bool parameters;    //  also AUTOMATIC1111's text, made of `metadata`
    luna_text custom_metadata;
    luna_text prompt_id;  //  ComfyUI's, for cancel-by-prompt
    luna_blob prompt;     //  JSON as the producer has it, never re-serialised
    luna_blob workflow;
    luna_blob metadata;             //  generation metadata, a JSON object
    LUNA_LIST_OF(luna_pair) extra;  //  further extra_pnginfo keys
    LUNA_LIST_OF(luna_msg_heatmaps) heatmaps;
    LUNA_LIST_OF(luna_msg_input) inputs;
} luna_msg_job;

typedef struct luna_msg_receipt {
    luna_id id;
    luna_text status;   //  "accepted", "busy", "refused"; to an offer also "send"
    luna_text error;    //  error name with busy and refused
    luna_text detail;   //  one sentence with busy and refused
    uint64_t retry_ms;  //  with busy: ask again after this time
    uint64_t position;  //  with accepted: jobs ahead of it
    uint64_t images;
    bool duplicate;    //  the id was known; the first receipt is repeated
    bool offer_first;  //  the client's credit is used up: offer jobs before sending them
} luna_msg_receipt;

//  A job that would be sent: asks before its bytes move.
typedef struct luna_msg_offer {
    luna_id id;
    luna_id client;  //  routing id of the DEALER that gets the receipt
    uint64_t bytes;  //  of the job message
    uint64_t priority;
} luna_msg_offer;

//  To a client that was told "busy": there is room for it again.
typedef struct luna_msg_grant {
    bool offer_first;
} luna_msg_grant;

//  One saved picture.
typedef struct luna_msg_image {
    uint64_t input;  //  0 to 4
    uint64_t index;  //  place in the batch
    luna_text path;  //  absolute
    uint64_t bytes;
    luna_text sha256;  //  of the file, lower-case hex
    uint64_t width;    //  pixels
    uint64_t height;
    double decode_ms;
    double encode_ms;
    double write_ms;
    luna_text note;  //  what is to be told of it, one sentence; absent for nothing
} luna_msg_image;

//  ---- control: both roles --------------------------------------------------------

typedef struct luna_msg_job_key {  //  a running attempt, for re-adoption
    luna_id id;
    uint64_t attempt;
} luna_msg_job_key;

typedef struct luna_msg_vae {
    luna_text name;
} luna_msg_vae;

typedef struct luna_msg_hello {
    luna_text role;  //  "producer" or "decoder"
    luna_text name;
    luna_id instance;  //  new for every process start: the fence of a decoder
    luna_text host;    //  machine and boot, equal only on the same running host
    uint64_t pid;
    luna_text version;
    luna_text device;                        //  decoder: "cpu", "cuda:1"
    LUNA_LIST_OF(luna_msg_vae) vaes;         //  decoder: names it can serve
    LUNA_LIST_OF(luna_msg_job_key) running;  //  decoder: attempts in hand
    luna_text formats;  //  decoder: those it writes, as formats.h has them; absent: all
} luna_msg_hello;

typedef struct luna_msg_welcome {
    luna_id epoch;  //  new for every broker start
    luna_text version;
    luna_text intake;     //  producer: where to PUSH jobs
    luna_text events;     //  where to SUBscribe
    luna_text slot;       //  decoder: where to PULL work
    luna_text spool_dir;  //  decoder on the same host: payloads can be mapped here
    luna_text host;
    uint64_t lease_ms;
    uint64_t ping_ms;
    uint64_t max_job_bytes;
    bool offer_first;  //  producer: as in a receipt
} luna_msg_welcome;

typedef struct luna_msg_ready {  //  also "credit": a change of it
    uint64_t credit_jobs;        //  jobs it will hold at a time, 0 pauses
    uint64_t credit_bytes;
    bool maps_payload;  //  payload paths reach it
} luna_msg_ready;

typedef struct luna_msg_ping {
    uint64_t running;  //  jobs in hand
    uint64_t ticks;    //  grows while the decode loop makes progress
} luna_msg_ping;

typedef struct luna_msg_pong {
    luna_id epoch;
    luna_text order;  //  "run", "drain" (finish, take nothing) or "stop"
} luna_msg_pong;

typedef struct luna_msg_bye {
    luna_text reason;
} luna_msg_bye;

//  ---- work -----------------------------------------------------------------------

typedef struct luna_msg_image_key {
    uint64_t input;
    uint64_t index;
} luna_msg_image_key;

typedef struct luna_msg_work {
    luna_id id;
    uint64_t attempt;  //  from 1; durable before it is sent
    luna_id epoch;
    uint64_t lease_ms;
    uint64_t payload_bytes;
    luna_text payload_path;                 //  same host: the spool file, header included
    luna_blob payload;                      //  else: the same bytes
    LUNA_LIST_OF(luna_msg_image_key) done;  //  images the broker has as saved
} luna_msg_work;

typedef struct luna_msg_progress {
    luna_id id;
    uint64_t attempt;
    luna_id epoch;
    luna_text stage;                      //  "received", "loading", "decoding", "saved"
    LUNA_LIST_OF(luna_msg_image) images;  //  newly saved
} luna_msg_progress;

typedef struct luna_msg_done {
    luna_id id;
    uint64_t attempt;
    luna_id epoch;
    luna_text vae;                        //  the one that was used
    LUNA_LIST_OF(luna_msg_image) images;  //  every image of the job
    luna_text vae_path;                   //  its file
    luna_text vae_sha256;                 //  of that file
} luna_msg_done;

typedef struct luna_msg_failed {
    luna_id id;
    uint64_t attempt;
    luna_id epoch;
    luna_text error;
    luna_text detail;
    bool retry;  //  another attempt may succeed
} luna_msg_failed;

//  ---- questions, orders and their answer -------------------------------------------

typedef struct luna_msg_query {
    uint64_t re;      //  repeated in the answer
    luna_text what;   //  "status", "jobs", "job", "decoders", "metrics"
    luna_id id;       //  job
    luna_text state;  //  jobs: only these
    uint64_t limit;   //  jobs: newest first, at most this many
} luna_msg_query;

//  "cancel", "retry", "prioritise", "pause", "resume", "drain"
typedef struct luna_msg_order {
    uint64_t re;        //  0: no answer is wanted
    luna_id id;         //  the job of cancel, retry and prioritise
    uint64_t attempt;   //  cancel to a decoder: this attempt and older ones; 0: any
    bool failed;        //  retry: all failed jobs instead of one
    uint64_t priority;  //  prioritise: the new one
    bool next;          //  prioritise: before all others instead
    luna_text decoder;  //  drain and resume: this one; absent: all
} luna_msg_order;

typedef struct luna_msg_status {
    uint64_t pending;
    uint64_t in_progress;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t queued_bytes;
    uint64_t oldest_ms;   //  age of the oldest pending job
    uint64_t decoders;    //  ready
    luna_text accepting;  //  "yes", or why not
    luna_text version;
    bool paused;          //  no attempt is started until "resume"
    uint64_t images;      //  saved since the broker's start
    uint64_t free_bytes;  //  of the spool's disk
    uint64_t uptime_ms;
    luna_text alarm;  //  what needs a person, one sentence
} luna_msg_status;

typedef struct luna_msg_job_info {
    luna_id id;
    luna_text state;  //  pending, in_progress, completed, failed, cancelled
    uint64_t priority;
    uint64_t position;  //  pending: jobs ahead
    uint64_t images;
    uint64_t images_done;
    uint64_t bytes;
    uint64_t attempts;
    uint64_t lost;        //  attempts whose decoder died or hung
    uint64_t refused;     //  attempts that a decoder answered with failed
    uint64_t created_ms;  //  wall clock
    uint64_t accepted_ms;
    uint64_t started_ms;
    uint64_t finished_ms;
    luna_text vae;
    luna_text decoder;
    luna_text error;
    luna_text detail;
    LUNA_LIST_OF(luna_msg_image) files;
    uint64_t deadline_ms;  //  wall clock; 0: none
    bool next;             //  goes before all others
    luna_text vae_name;    //  completed: the VAE that decoded it,
    luna_text vae_path;    //  its file
    luna_text vae_sha256;  //  and of that file
} luna_msg_job_info;

typedef struct luna_msg_decoder_info {
    luna_text name;
    luna_text state;  //  "ready", "busy", "draining", "lost"
    luna_text device;
    luna_text version;
    luna_text host;
    uint64_t pid;
    uint64_t running;
    uint64_t credit_jobs;
    uint64_t images_done;
    uint64_t jobs_done;
    uint64_t jobs_failed;
    uint64_t seen_ms;  //  since its last message
    LUNA_LIST_OF(luna_msg_vae) vaes;
    luna_text vae;      //  of the job it was given last
    luna_text formats;  //  those it writes, as formats.h has them
} luna_msg_decoder_info;

typedef struct luna_msg_answer {
    uint64_t re;
    luna_text error;  //  absent: success
    luna_text detail;
    const luna_msg_status *status;
    LUNA_LIST_OF(luna_msg_job_info) jobs;
    LUNA_LIST_OF(luna_msg_decoder_info) decoders;
    uint64_t changed;  //  orders: jobs or decoders it applied to
    luna_text text;    //  metrics: Prometheus text format
} luna_msg_answer;

//  ---- events -----------------------------------------------------------------------

typedef struct luna_msg_event {
    luna_id epoch;
    uint64_t seq;      //  one more for every event of this epoch
    uint64_t time_ms;  //  wall clock
    luna_text kind;    //  "snapshot", "accepted", "dispatched", "image", ...
    const luna_msg_status *status;
    LUNA_LIST_OF(luna_msg_job_info) jobs;
    LUNA_LIST_OF(luna_msg_decoder_info) decoders;
} luna_msg_event;

//  ---- the table of messages ----------------------------------------------------------

//  X(symbol, type on the wire, struct)
#define LUNA_MSG_TABLE(X)                       \
    X(JOB, "job", luna_msg_job)                 \
    X(RECEIPT, "receipt", luna_msg_receipt)     \
    X(OFFER, "offer", luna_msg_offer)           \
    X(GRANT, "grant", luna_msg_grant)           \
    X(HELLO, "hello", luna_msg_hello)           \
    X(WELCOME, "welcome", luna_msg_welcome)     \
    X(READY, "ready", luna_msg_ready)           \
    X(CREDIT, "credit", luna_msg_ready)         \
    X(PING, "ping", luna_msg_ping)              \
    X(PONG, "pong", luna_msg_pong)              \
    X(BYE, "bye", luna_msg_bye)                 \
    X(WORK, "work", luna_msg_work)              \
    X(PROGRESS, "progress", luna_msg_progress)  \
    X(DONE, "done", luna_msg_done)              \
    X(FAILED, "failed", luna_msg_failed)        \
    X(QUERY, "query", luna_msg_query)           \
    X(CANCEL, "cancel", luna_msg_order)         \
    X(RETRY, "retry", luna_msg_order)           \
    X(PRIORITISE, "prioritise", luna_msg_order) \
    X(PAUSE, "pause", luna_msg_order)           \
    X(RESUME, "resume", luna_msg_order)         \
    X(DRAIN, "drain", luna_msg_order)           \
    X(ANSWER, "answer", luna_msg_answer)        \
    X(EVENT, "event", luna_msg_event)

typedef enum luna_msg_type {
#define X(symbol, name, type) LUNA_MSG_##symbol,
    LUNA_MSG_TABLE(X)
#undef X
        LUNA_MSG_COUNT
} luna_msg_type;

//  Text helpers: a literal or C string as luna_text, comparison, and a bounded copy
//  that always ends with a NUL; when `room` is too small it is cut between characters.
luna_text luna_text_of(const char *text);  //  NULL gives an absent text; borrows
bool luna_text_is(luna_text text, const char *word);
void luna_text_copy(luna_text text, char *out, size_t room);

#endif
