//  attempts.h - the attempts in hand, shared by the broker's link and the pipeline
//
//  The link adds attempts, cancels them and fetches reports; the decode thread takes
//  them one after the other; encode threads add the images they saved. What is to be
//  reported is kept here, as part of the attempt, and fetched when there is somebody
//  to send it to: a broker that is away blocks nobody, and no queue of reports grows.
//
//      waiting --take--> running --last release--> ended --report--> told --confirm-->
//      (gone)
//
//  A running attempt whose VAE is not in memory yet may be parked; it is taken again when
//  its wait is over.
//
//  An attempt that was told stays until the broker is known to have read the report
//  (luna_attempts_confirm); after a broken link it is told again, and the broker, who
//  may know it already, absorbs it. Cancelled attempts tell what they saved, for the
//  pictures are there, and end without a report; those that are stopped half-way do the
//  same, and `bye` gives them back.
//
//  A cancel may overtake its work: it is remembered for LUNA_CANCEL_MEMORY_MS.
//
//  Thread-safe throughout; attempts are found by pointer only while they are held.

#ifndef LUNA_WORKER_ATTEMPTS_H
#define LUNA_WORKER_ATTEMPTS_H

#include "decoder/sink/sink.h"
#include "decoder/worker/work.h"

#define LUNA_CANCEL_MEMORY_MS 30000
#define LUNA_CANCELS_MAX      256   //  remembered at a time; the oldest is forgotten
#define LUNA_ATTEMPTS_MAX     1000  //  in hand: what one hello can list

typedef struct luna_attempts luna_attempts;
typedef struct luna_attempt luna_attempt;

LUNA_MUST_USE luna_err luna_attempts_new(luna_attempts **out);

//  After every thread that uses it has ended; nulls the pointer.
void luna_attempts_free(luna_attempts **attempts);

//  ---- the link's side ------------------------------------------------------------

//  Takes the work over, also when it fails. LUNA_EXISTS: this attempt or a later one
//  of the job is in hand; LUNA_CANCELLED: its cancel came first; both need no answer.
//  LUNA_BUSY: LUNA_ATTEMPTS_MAX are in hand. An older attempt of the job is cancelled.
LUNA_MUST_USE luna_err luna_attempts_add(luna_attempts *attempts, luna_work **work,
                                         int64_t now_ms);

//  Stops this attempt of the job and older ones (attempt 0: any) at their next image, or
//  before they arrive.
void luna_attempts_cancel(luna_attempts *attempts, const luna_msg_job_key *key,
                          int64_t now_ms);

//  A file descriptor that turns readable when there is something to report; the link
//  reads its 8 bytes away and then asks until there is nothing more.
int luna_attempts_fd(const luna_attempts *attempts);

//  The next report as a packed message of this epoch, to be freed by the caller:
//  progress, done or failed. LUNA_NOT_FOUND: nothing to say. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_attempts_report(luna_attempts *attempts, const luna_id *epoch,
                                            void **out, size_t *len);

//  Everything that was told up to now was read by the broker: call with `ping` when a
//  ping is sent and with `confirm` when its answer has come.
void luna_attempts_ping(luna_attempts *attempts);
void luna_attempts_confirm(luna_attempts *attempts);

//  The link broke: everything is to be told again.
void luna_attempts_retell(luna_attempts *attempts);

//  The attempts to list in a hello, at most `room`; returns how many.
size_t luna_attempts_list(luna_attempts *attempts, luna_msg_job_key *out, size_t room);

typedef struct luna_attempts_load {
    size_t waiting;
    size_t running;   //  taken, not ended
    size_t parked;    //  of these: their VAE is being loaded
    size_t encoding;  //  of these: decoded, their last images are being saved
    size_t untold;    //  ended, not yet reported
    uint64_t ticks;   //  grows with every step of real progress
} luna_attempts_load;

luna_attempts_load luna_attempts_count(luna_attempts *attempts);

//  Nothing new is taken, and what is running stops at its next image.
void luna_attempts_stop(luna_attempts *attempts);

//  ---- the pipeline's side ------------------------------------------------------------

//  What an attempt waits for while it is parked.
typedef struct luna_parking {
    //  Whether the wait is over. Called with the list locked: must be quick.
    bool (*is_over)(const struct luna_parking *parking);
} luna_parking;

//  Waits for the next attempt, in the order they came, and holds it for the caller. One
//  that was parked comes with its *parking, held as before, when its wait is over or when
//  it is cancelled; a fresh one with NULL. After a stop those that are parked come at
//  once, then NULL.
luna_attempt *luna_attempts_take(luna_attempts *attempts, luna_parking **parking);

//  The taker lets the attempt, which it goes on holding, wait; `parking` is borrowed
//  until it is taken again.
void luna_attempt_park(luna_attempt *attempt, luna_parking *parking);

//  A wait may be over: the taker looks at what is parked.
void luna_attempts_wake(luna_attempts *attempts);

//  One more holder, and one less. The last release ends the attempt and unloads its
//  work. Nulls the pointer.
void luna_attempt_hold(luna_attempt *attempt);
void luna_attempt_release(luna_attempt **attempt);

//  Valid while the attempt is held. Only the decode thread loads and reads it before
//  the first image is handed on; afterwards it is read-only.
luna_work *luna_attempt_work(luna_attempt *attempt);

//  Says how many images the attempt has to report in the end.
LUNA_MUST_USE luna_err luna_attempt_expect(luna_attempt *attempt, size_t images);
//  So many less: the broker knows them as saved and nobody else does.
void luna_attempt_expect_less(luna_attempt *attempt, size_t images);

//  Cancelled, failed or stopped: nothing more is to be decoded for it.
bool luna_attempt_is_over(luna_attempt *attempt);
bool luna_attempt_is_cancelled(luna_attempt *attempt);

typedef struct luna_timings {
    double decode_ms;
    double encode_ms;
    double write_ms;
} luna_timings;

//  One image is saved, now or long ago. LUNA_NO_MEMORY; LUNA_INTERNAL for one more
//  than was expected.
LUNA_MUST_USE luna_err luna_attempt_saved(luna_attempt *attempt,
                                          const luna_image_record *record,
                                          const luna_timings *timings);

//  The first failure counts, with the calling thread's luna_error_text() as its
//  sentence.
void luna_attempt_fail(luna_attempt *attempt, luna_err err);

//  What the broker shows: "loading" or "decoding"; the VAE in use, by name and file.
void luna_attempt_stage(luna_attempt *attempt, const char *stage);
LUNA_MUST_USE luna_err luna_attempt_vae(luna_attempt *attempt, const char *name,
                                        const char *path);

//  The SHA-256 of the VAE's file, 64 hex digits.
void luna_attempt_vae_sha256(luna_attempt *attempt, const char *hex);

//  Its last image is decoded.
void luna_attempt_decoded(luna_attempt *attempt);

//  A step of real progress.
void luna_attempts_tick(luna_attempts *attempts);

//  Turns the link's descriptor readable though there is nothing new to report.
void luna_attempts_nudge(luna_attempts *attempts);

#endif
