#include "decoder/worker/attempts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "decoder/worker/attempts_own.h"
#include "proto/codec.h"

luna_err luna_attempts_new(luna_attempts **out)
{
    luna_attempts *attempts = calloc(1, sizeof *attempts);
    if (!attempts)
        return luna_error(LUNA_NO_MEMORY, "no memory for the list of attempts");
    attempts->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (attempts->fd < 0) {
        free(attempts);
        return luna_error_errno(LUNA_IO, "cannot make an event descriptor");
    }
    pthread_mutex_init(&attempts->lock, NULL);
    pthread_cond_init(&attempts->news, NULL);
    *out = attempts;
    return LUNA_OK;
}

void luna_attempt_free(luna_attempt *attempt)
{
    luna_work_close(&attempt->work);
    luna_arena_free(&attempt->memory);
    free(attempt->images);
    free(attempt->vae);
    free(attempt->vae_path);
    free(attempt);
}

void luna_attempts_free(luna_attempts **attempts)
{
    if (!*attempts) return;
    luna_attempt *attempt = (*attempts)->first;
    while (attempt) {
        luna_attempt *next = attempt->next;
        luna_attempt_free(attempt);
        attempt = next;
    }
    close((*attempts)->fd);
    pthread_cond_destroy(&(*attempts)->news);
    pthread_mutex_destroy(&(*attempts)->lock);
    free(*attempts);
    *attempts = NULL;
}

int luna_attempts_fd(const luna_attempts *attempts)
{
    return attempts->fd;
}

//  The counter cannot overflow: the link reads it away, and a full one is readable.
void luna_attempts_nudge(luna_attempts *attempts)
{
    const uint64_t one = 1;
    if (write(attempts->fd, &one, sizeof one) < 0) return;
}

void luna_attempts_unlink(luna_attempt *attempt)
{
    luna_attempt **at = &attempt->table->first;
    while (*at != attempt) at = &(*at)->next;
    *at = attempt->next;
    attempt->next = NULL;
}

//  ---- cancels that came first --------------------------------------------------------

static bool covers(const luna_msg_job_key *cancel, const luna_msg_job_key *key)
{
    return luna_id_compare(&cancel->id, &key->id) == 0 &&
           (cancel->attempt == 0 || key->attempt <= cancel->attempt);
}

static void note_cancel(luna_attempts *attempts, const luna_msg_job_key *key,
                        int64_t now_ms)
{
    attempts->cancels[attempts->cancel_at] =
        (luna_cancel_note){*key, now_ms + LUNA_CANCEL_MEMORY_MS};
    attempts->cancel_at = (attempts->cancel_at + 1) % LUNA_CANCELS_MAX;
}

static bool use_cancel(luna_attempts *attempts, const luna_msg_job_key *key,
                       int64_t now_ms)
{
    for (size_t i = 0; i < LUNA_CANCELS_MAX; i++) {
        luna_cancel_note *note = &attempts->cancels[i];
        if (note->until_ms <= now_ms || !covers(&note->key, key)) continue;
        *note = (luna_cancel_note){0};
        return true;
    }
    return false;
}

//  Cancels one attempt. One that has nothing to tell is returned for the caller to free;
//  one that is running ends with its last holder. Locked.
static luna_attempt *cancel_one(luna_attempt *attempt)
{
    attempt->cancelled = true;
    if (attempt->parking) pthread_cond_signal(&attempt->table->news);
    if (attempt->state == ATTEMPT_RUNNING || attempt->saved > attempt->told) return NULL;
    luna_attempts_unlink(attempt);
    return attempt;
}

static luna_attempt *find_job(luna_attempts *attempts, const luna_id *id)
{
    luna_attempt *attempt = attempts->first;
    while (attempt && (attempt->cancelled || luna_id_compare(&attempt->id, id) != 0))
        attempt = attempt->next;
    return attempt;
}

static luna_msg_job_key key_of(const luna_attempt *attempt)
{
    return (luna_msg_job_key){attempt->id, attempt->number};
}

void luna_attempts_cancel(luna_attempts *attempts, const luna_msg_job_key *key,
                          int64_t now_ms)
{
    pthread_mutex_lock(&attempts->lock);
    luna_attempt *attempt = find_job(attempts, &key->id);
    const luna_msg_job_key held = attempt ? key_of(attempt) : *key;
    luna_attempt *gone = NULL;
    if (!attempt)
        note_cancel(attempts, key, now_ms);
    else if (covers(key, &held))
        gone = cancel_one(attempt);
    pthread_mutex_unlock(&attempts->lock);
    if (gone) luna_attempt_free(gone);
}

//  ---- adding -------------------------------------------------------------------------

static size_t count_all(const luna_attempts *attempts)
{
    size_t count = 0;
    for (const luna_attempt *at = attempts->first; at; at = at->next) count++;
    return count;
}

//  A told attempt that no pong confirms would stay for ever: the oldest gives way.
static luna_attempt *oldest_told(luna_attempts *attempts)
{
    luna_attempt *attempt = attempts->first;
    while (attempt && attempt->state != ATTEMPT_TOLD) attempt = attempt->next;
    if (attempt) luna_attempts_unlink(attempt);
    return attempt;
}

static void append(luna_attempts *attempts, luna_attempt *attempt)
{
    luna_attempt **at = &attempts->first;
    while (*at) at = &(*at)->next;
    *at = attempt;
    pthread_cond_signal(&attempts->news);
}

static luna_err add_locked(luna_attempts *attempts, luna_attempt *attempt, int64_t now_ms,
                           luna_attempt **gone)
{
    luna_attempt *known = find_job(attempts, &attempt->id);
    const luna_msg_job_key key = key_of(attempt);
    if (known && known->number >= attempt->number)
        return luna_error(LUNA_EXISTS, "this attempt of the job is in hand already");
    if (known)
        *gone = cancel_one(known);
    else if (use_cancel(attempts, &key, now_ms))
        return luna_error(LUNA_CANCELLED, "the job was cancelled before it came");
    if (count_all(attempts) >= LUNA_ATTEMPTS_MAX && !*gone) *gone = oldest_told(attempts);
    if (count_all(attempts) >= LUNA_ATTEMPTS_MAX)
        return luna_error(LUNA_BUSY,
                          "%d attempts are in hand; the broker sent more than "
                          "the credit it was given",
                          LUNA_ATTEMPTS_MAX);
    append(attempts, attempt);
    return LUNA_OK;
}

luna_err luna_attempts_add(luna_attempts *attempts, luna_work **work, int64_t now_ms)
{
    luna_attempt *attempt = calloc(1, sizeof *attempt), *gone = NULL;
    if (!attempt) {
        luna_work_close(work);
        return luna_error(LUNA_NO_MEMORY, "no memory for an attempt");
    }
    attempt->table = attempts;
    attempt->work = *work;
    attempt->id = luna_work_message(*work)->id;
    attempt->number = luna_work_message(*work)->attempt;
    attempt->stage = "received";
    *work = NULL;
    pthread_mutex_lock(&attempts->lock);
    const luna_err err = add_locked(attempts, attempt, now_ms, &gone);
    pthread_mutex_unlock(&attempts->lock);
    if (gone) luna_attempt_free(gone);
    if (err != LUNA_OK) luna_attempt_free(attempt);
    luna_attempts_nudge(attempts);
    return err;
}

//  ---- reports ------------------------------------------------------------------------

static luna_err pack_done(luna_attempt *attempt, const luna_id *epoch, void **out,
                          size_t *len)
{
    const luna_msg_done done = {
        .id = attempt->id,
        .attempt = attempt->number,
        .epoch = *epoch,
        .vae = luna_text_of(attempt->vae),
        .vae_path = luna_text_of(attempt->vae_path),
        .vae_sha256 = luna_text_of(attempt->vae_sha256[0] ? attempt->vae_sha256 : NULL),
        .images = {attempt->images, attempt->saved}};
    return luna_msg_pack(LUNA_MSG_DONE, &done, out, len);
}

static luna_err pack_failed(luna_attempt *attempt, const luna_id *epoch, void **out,
                            size_t *len)
{
    const luna_msg_failed failed = {.id = attempt->id,
                                    .attempt = attempt->number,
                                    .epoch = *epoch,
                                    .error = luna_text_of(luna_err_name(attempt->err)),
                                    .detail = luna_text_of(attempt->detail),
                                    .retry = luna_err_retry(attempt->err)};
    return luna_msg_pack(LUNA_MSG_FAILED, &failed, out, len);
}

static luna_err pack_progress(luna_attempt *attempt, const luna_id *epoch, void **out,
                              size_t *len)
{
    const size_t news = attempt->saved - attempt->told;
    const luna_msg_progress progress = {
        .id = attempt->id,
        .attempt = attempt->number,
        .epoch = *epoch,
        .stage = luna_text_of(news ? "saved" : attempt->stage),
        .images = {news ? attempt->images + attempt->told : NULL, news}};
    return luna_msg_pack(LUNA_MSG_PROGRESS, &progress, out, len);
}

static luna_err tell_progress(luna_attempt *attempt, const luna_id *epoch, void **out,
                              size_t *len)
{
    LUNA_TRY(pack_progress(attempt, epoch, out, len));
    attempt->told = attempt->saved;
    attempt->stage = NULL;
    return LUNA_OK;
}

static void mark_told(luna_attempt *attempt)
{
    attempt->state = ATTEMPT_TOLD;
    attempt->told_ping = attempt->table->pings;
}

static luna_err tell_end(luna_attempt *attempt, const luna_id *epoch, void **out,
                         size_t *len)
{
    LUNA_TRY(attempt->err == LUNA_OK ? pack_done(attempt, epoch, out, len)
                                     : pack_failed(attempt, epoch, out, len));
    mark_told(attempt);
    return LUNA_OK;
}

//  Without memory the same is told at the next wake. Any other failure means a record
//  that the wire does not take, and then the attempt has failed.
static luna_err tell(luna_attempt *attempt, const luna_id *epoch, void **out, size_t *len)
{
    const bool news = attempt->saved > attempt->told || attempt->stage;
    const luna_err err = news ? tell_progress(attempt, epoch, out, len)
                              : tell_end(attempt, epoch, out, len);
    if (err == LUNA_NO_MEMORY) return err;
    if (attempt->cancelled && attempt->state != ATTEMPT_RUNNING) mark_told(attempt);
    if (err == LUNA_OK) return LUNA_OK;
    attempt->told = attempt->saved;
    attempt->stage = NULL;
    if (attempt->err == LUNA_OK) {
        attempt->err = err;
        luna_text_copy(luna_text_of(luna_error_text()), attempt->detail,
                       sizeof attempt->detail);
    }
    return luna_error(LUNA_BUSY, "ask again");
}

//  Of a cancelled one only the pictures that are there all the same.
static bool has_news(const luna_attempt *attempt)
{
    if (attempt->state == ATTEMPT_TOLD) return false;
    if (attempt->saved > attempt->told) return true;
    return !attempt->cancelled && (attempt->stage || attempt->state == ATTEMPT_ENDED);
}

luna_err luna_attempts_report(luna_attempts *attempts, const luna_id *epoch, void **out,
                              size_t *len)
{
    luna_err err;
    pthread_mutex_lock(&attempts->lock);
    do {
        luna_attempt *attempt = attempts->first;
        while (attempt && !has_news(attempt)) attempt = attempt->next;
        err = attempt ? tell(attempt, epoch, out, len) : LUNA_NOT_FOUND;
    } while (err == LUNA_BUSY);
    pthread_mutex_unlock(&attempts->lock);
    return err;
}

void luna_attempts_ping(luna_attempts *attempts)
{
    pthread_mutex_lock(&attempts->lock);
    attempts->pings++;
    pthread_mutex_unlock(&attempts->lock);
}

//  The pong that answers ping number `answers`: everything told before that ping was
//  sent has been read.
void luna_attempts_confirm(luna_attempts *attempts)
{
    luna_attempt *gone = NULL;
    pthread_mutex_lock(&attempts->lock);
    if (attempts->answers < attempts->pings) attempts->answers++;
    for (luna_attempt *at = attempts->first, *next; at; at = next) {
        next = at->next;
        if (at->state != ATTEMPT_TOLD || at->told_ping >= attempts->answers) continue;
        luna_attempts_unlink(at);
        at->next = gone;
        gone = at;
    }
    pthread_mutex_unlock(&attempts->lock);
    while (gone) {
        luna_attempt *next = gone->next;
        luna_attempt_free(gone);
        gone = next;
    }
}

void luna_attempts_retell(luna_attempts *attempts)
{
    pthread_mutex_lock(&attempts->lock);
    attempts->pings = attempts->answers = 0;
    for (luna_attempt *at = attempts->first; at; at = at->next) {
        at->told = 0;
        if (at->state == ATTEMPT_TOLD) at->state = ATTEMPT_ENDED;
    }
    pthread_mutex_unlock(&attempts->lock);
    luna_attempts_nudge(attempts);
}

size_t luna_attempts_list(luna_attempts *attempts, luna_msg_job_key *out, size_t room)
{
    size_t count = 0;
    pthread_mutex_lock(&attempts->lock);
    for (luna_attempt *at = attempts->first; at && count < room; at = at->next)
        if (!at->cancelled) out[count++] = (luna_msg_job_key){at->id, at->number};
    pthread_mutex_unlock(&attempts->lock);
    return count;
}

luna_attempts_load luna_attempts_count(luna_attempts *attempts)
{
    luna_attempts_load load = {.ticks = atomic_load(&attempts->ticks)};
    pthread_mutex_lock(&attempts->lock);
    for (const luna_attempt *at = attempts->first; at; at = at->next) {
        load.waiting += at->state == ATTEMPT_WAITING;
        load.running += at->state == ATTEMPT_RUNNING;
        load.parked += at->parking != NULL;
        load.encoding += at->state == ATTEMPT_RUNNING && at->decoded;
        load.untold += at->state == ATTEMPT_ENDED;
    }
    pthread_mutex_unlock(&attempts->lock);
    return load;
}

void luna_attempts_wake(luna_attempts *attempts)
{
    pthread_mutex_lock(&attempts->lock);
    pthread_cond_broadcast(&attempts->news);
    pthread_mutex_unlock(&attempts->lock);
}

void luna_attempts_stop(luna_attempts *attempts)
{
    pthread_mutex_lock(&attempts->lock);
    attempts->stopped = true;
    pthread_cond_broadcast(&attempts->news);
    pthread_mutex_unlock(&attempts->lock);
}
