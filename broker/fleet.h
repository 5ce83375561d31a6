//  fleet.h - the decoders the broker knows, and which attempts each one holds
//
//  A decoder is one hello: it gets a session number that is never used again, so a
//  message of an earlier session can never touch a later one. What it holds is
//  bounded by its credit, in jobs and in bytes. A decoder that went away is
//  remembered for a while, so that jobs that only it can do wait for it.
//  Plain data, no clock, loop thread only.

#ifndef LUNA_BROKER_FLEET_H
#define LUNA_BROKER_FLEET_H

#include "proto/formats.h"

#define LUNA_HOLDS_MAX     64    //  attempts one decoder can hold
#define LUNA_VAES_MAX      1000  //  names of one decoder that are looked at
#define LUNA_DECODERS_MAX  256
#define LUNA_DECODER_BYTES 128  //  longest kept name, device, version or host

typedef enum luna_decoder_state {
    LUNA_DECODER_GREETED,  //  said hello, has not given credit
    LUNA_DECODER_READY,
    LUNA_DECODER_LEAVING,  //  its slot is disconnected; a last message may come
    LUNA_DECODER_LOST      //  gone; only remembered
} luna_decoder_state;

typedef struct luna_hold {
    luna_id id;
    uint32_t attempt;
    uint64_t bytes;
    bool wanted;          //  false: cancelled or given back; only the credit is used
    bool sent;            //  false while the attempt is being made durable
    bool cold;            //  its VAE had to be loaded, as far as is known
    int64_t deadline_ms;  //  end of the lease
    int64_t loading_ms;   //  when it began to load its VAE; 0: not heard
    int64_t served_ms;    //  when its service can have begun; 0: it teaches no pace
} luna_hold;

typedef struct luna_decoder {
    uint32_t session;
    luna_decoder_state state;
    luna_id instance;
    char name[LUNA_DECODER_BYTES];
    char device[LUNA_DECODER_BYTES];
    char version[LUNA_DECODER_BYTES];
    char host[LUNA_DECODER_BYTES];
    uint64_t pid;
    luna_msg_vae *vaes;  //  names it can serve; owned
    size_t vae_count;
    luna_formats formats;                    //  those it writes
    char format_words[LUNA_FORMATS_BYTES];   //  the same, as words
    char last_vae[LUNA_MAX_PATH_BYTES + 1];  //  of the job it was given last
    struct luna_queue *queue;                //  of last_vae; NULL when it has none now
    bool loaded;                             //  it has shown that last_vae is loaded
    bool draining;                           //  it gets no more work, as ordered
    bool maps_payload;
    bool orderly;          //  it left of its own will
    uint64_t credit_jobs;  //  at most LUNA_HOLDS_MAX
    uint64_t credit_bytes;
    luna_hold holds[LUNA_HOLDS_MAX];
    size_t hold_count;
    uint64_t held_bytes;
    int64_t seen_ms;  //  monotonic time of its last message; LOST: of its end
    int64_t gone_ms;  //  LEAVING: when it is given up
    int64_t idle_ms;  //  when it answered an attempt last
    uint64_t ticks;   //  of its last ping
    uint64_t images_done;
    uint64_t jobs_done;
    uint64_t jobs_failed;
} luna_decoder;

typedef struct luna_fleet {
    luna_decoder *at[LUNA_DECODERS_MAX];
    size_t count;
    uint32_t last_session;
    uint64_t version;  //  another one whenever places or VAEs have changed
} luna_fleet;

//  Decoders by their place in the fleet; void with the next version.
typedef struct luna_decoder_set {
    uint64_t bits[LUNA_DECODERS_MAX / 64];
} luna_decoder_set;

bool luna_decoder_set_has(const luna_decoder_set *set, size_t place);

//  Those that list the VAE; when none does, not even a lost one, all. Of them those that
//  write all of the formats; when none does, all of them.
luna_decoder_set luna_fleet_for(const luna_fleet *fleet, const char *vae,
                                luna_formats formats);

//  Those that work (luna_decoder_works) and have credit for one more job; false when
//  there are none.
bool luna_fleet_free(const luna_fleet *fleet, luna_decoder_set *out);

//  A new decoder in a new session. Forgets a lost one of the same name, or the
//  longest lost one when there are too many. LUNA_BUSY when all are alive;
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_fleet_add(luna_fleet *fleet, const luna_msg_hello *hello,
                                      int64_t now_ms, luna_decoder **out);

//  NULL for 0, an unknown session or a lost decoder.
luna_decoder *luna_fleet_find(const luna_fleet *fleet, uint32_t session);

//  The living decoder of an instance, or NULL.
luna_decoder *luna_fleet_instance(const luna_fleet *fleet, const luna_id *instance);

//  Frees one decoder, or all of them.
void luna_fleet_remove(luna_fleet *fleet, luna_decoder *decoder);
void luna_fleet_clear(luna_fleet *fleet);

bool luna_decoder_serves(const luna_decoder *decoder, const char *vae);
bool luna_decoder_writes(const luna_decoder *decoder, luna_formats formats);

//  Ready, not draining, and with any credit: it will take more jobs, now or soon.
bool luna_decoder_works(const luna_decoder *decoder);

//  Whether its credit has room for `bytes`. A job larger than the whole credit is
//  still taken by a decoder that holds nothing.
bool luna_decoder_has_room(const luna_decoder *decoder, uint64_t bytes);

//  NULL when it does not hold this attempt, wanted or not.
luna_hold *luna_decoder_hold(luna_decoder *decoder, const luna_id *id, uint32_t attempt);
bool luna_decoder_holds(const luna_decoder *decoder, const luna_msg_job_key *key);
bool luna_decoder_holds_job(const luna_decoder *decoder, const luna_id *id);

//  Adds a hold; there must be fewer than LUNA_HOLDS_MAX. Release invalidates the
//  pointers to the other holds.
void luna_decoder_take(luna_decoder *decoder, const luna_hold *hold);
void luna_decoder_release(luna_decoder *decoder, luna_hold *hold);

#endif
