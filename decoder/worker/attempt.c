//  One attempt, as the pipeline sees it: held, filled with images, released.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "decoder/worker/attempts_own.h"

static bool is_takeable(const luna_attempt *attempt)
{
    const bool stopped = attempt->table->stopped;
    if (!attempt->parking) return attempt->state == ATTEMPT_WAITING && !stopped;
    return stopped || attempt->cancelled || attempt->parking->is_over(attempt->parking);
}

static luna_attempt *next_takeable(luna_attempts *attempts)
{
    luna_attempt *attempt = attempts->first;
    while (attempt && !is_takeable(attempt)) attempt = attempt->next;
    return attempt;
}

//  A parked one is held already.
static luna_parking *begin(luna_attempt *attempt)
{
    luna_parking *parking = attempt->parking;
    attempt->parking = NULL;
    attempt->state = ATTEMPT_RUNNING;
    if (!parking) attempt->holders = 1;
    return parking;
}

luna_attempt *luna_attempts_take(luna_attempts *attempts, luna_parking **parking)
{
    luna_attempt *attempt;
    pthread_mutex_lock(&attempts->lock);
    while (!(attempt = next_takeable(attempts)) && !attempts->stopped)
        pthread_cond_wait(&attempts->news, &attempts->lock);
    if (attempt) *parking = begin(attempt);
    pthread_mutex_unlock(&attempts->lock);
    return attempt;
}

void luna_attempt_park(luna_attempt *attempt, luna_parking *parking)
{
    pthread_mutex_lock(&attempt->table->lock);
    attempt->parking = parking;
    pthread_mutex_unlock(&attempt->table->lock);
    luna_attempts_nudge(attempt->table);
}

void luna_attempt_hold(luna_attempt *attempt)
{
    pthread_mutex_lock(&attempt->table->lock);
    attempt->holders++;
    pthread_mutex_unlock(&attempt->table->lock);
}

//  True when the attempt was cancelled and has nothing more to tell: it is gone from the
//  list. Locked.
static bool settle(luna_attempt *attempt)
{
    const bool whole = attempt->saved == attempt->room;
    attempt->holders = 0;
    attempt->state = whole || attempt->err != LUNA_OK ? ATTEMPT_ENDED : ATTEMPT_STOPPED;
    const bool gone = attempt->cancelled && attempt->saved == attempt->told;
    if (gone) luna_attempts_unlink(attempt);
    return gone;
}

static void log_end(const luna_attempt *attempt)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&attempt->id, id);
    if (attempt->err == LUNA_OK)
        luna_log(LUNA_LOG_INFO, "job_ended", "job=%s attempt=%llu images=%zu of=%zu", id,
                 (unsigned long long)attempt->number, attempt->saved, attempt->room);
    else
        luna_log(LUNA_LOG_WARNING, "job_failed",
                 "job=%s attempt=%llu images=%zu of=%zu err=%s retry=%s detail=\"%s\"",
                 id, (unsigned long long)attempt->number, attempt->saved, attempt->room,
                 luna_err_name(attempt->err), luna_err_retry(attempt->err) ? "yes" : "no",
                 attempt->detail);
}

void luna_attempt_release(luna_attempt **held)
{
    luna_attempt *attempt = *held;
    luna_attempts *table = attempt->table;
    *held = NULL;
    pthread_mutex_lock(&table->lock);
    const bool last = attempt->holders == 1;
    if (!last) attempt->holders--;
    pthread_mutex_unlock(&table->lock);
    if (!last) return;
    //  Nobody else can hold it any more: the payload goes before the attempt ends.
    luna_work_unload(attempt->work);
    pthread_mutex_lock(&table->lock);
    const bool gone = settle(attempt);
    if (!attempt->cancelled) log_end(attempt);
    pthread_mutex_unlock(&table->lock);
    if (gone) luna_attempt_free(attempt);
    luna_attempts_tick(table);
    luna_attempts_nudge(table);
}

luna_work *luna_attempt_work(luna_attempt *attempt)
{
    return attempt->work;
}

luna_err luna_attempt_expect(luna_attempt *attempt, size_t images)
{
    luna_msg_image *room = calloc(images ? images : 1, sizeof *room);
    if (!room) return luna_error(LUNA_NO_MEMORY, "no memory for %zu images", images);
    pthread_mutex_lock(&attempt->table->lock);
    attempt->images = room;
    attempt->room = images;
    pthread_mutex_unlock(&attempt->table->lock);
    return LUNA_OK;
}

void luna_attempt_expect_less(luna_attempt *attempt, size_t images)
{
    pthread_mutex_lock(&attempt->table->lock);
    attempt->room -= images;
    pthread_mutex_unlock(&attempt->table->lock);
}

bool luna_attempt_is_over(luna_attempt *attempt)
{
    pthread_mutex_lock(&attempt->table->lock);
    const bool over =
        attempt->cancelled || attempt->err != LUNA_OK || attempt->table->stopped;
    pthread_mutex_unlock(&attempt->table->lock);
    return over;
}

bool luna_attempt_is_cancelled(luna_attempt *attempt)
{
    pthread_mutex_lock(&attempt->table->lock);
    const bool cancelled = attempt->cancelled;
    pthread_mutex_unlock(&attempt->table->lock);
    return cancelled;
}

static luna_err save_locked(luna_attempt *attempt, const luna_image_record *record,
                            const luna_timings *timings)
{
    if (attempt->saved == attempt->room)
        return luna_error(LUNA_INTERNAL, "more images than the job has");
    const char *path =
        luna_arena_text(&attempt->memory, record->path, strlen(record->path));
    const char *hash =
        luna_arena_text(&attempt->memory, record->sha256, strlen(record->sha256));
    const char *note =
        luna_arena_text(&attempt->memory, record->note, strlen(record->note));
    if (!path || !hash || !note)
        return luna_error(LUNA_NO_MEMORY, "no memory for an image's record");
    attempt->images[attempt->saved++] =
        (luna_msg_image){.input = record->key.input,
                         .index = record->key.index,
                         .path = luna_text_of(path),
                         .bytes = record->bytes,
                         .sha256 = luna_text_of(hash),
                         .width = record->width,
                         .height = record->height,
                         .decode_ms = timings->decode_ms,
                         .encode_ms = timings->encode_ms,
                         .write_ms = timings->write_ms,
                         .note = luna_text_of(note[0] ? note : NULL)};
    return LUNA_OK;
}

luna_err luna_attempt_saved(luna_attempt *attempt, const luna_image_record *record,
                            const luna_timings *timings)
{
    luna_attempts *table = attempt->table;
    pthread_mutex_lock(&table->lock);
    const luna_err err = save_locked(attempt, record, timings);
    pthread_mutex_unlock(&table->lock);
    luna_attempts_tick(table);
    luna_attempts_nudge(table);
    return err;
}

void luna_attempt_fail(luna_attempt *attempt, luna_err err)
{
    pthread_mutex_lock(&attempt->table->lock);
    if (attempt->err == LUNA_OK) {
        attempt->err = err;
        luna_text_copy(luna_text_of(luna_error_text()), attempt->detail,
                       sizeof attempt->detail);
    }
    pthread_mutex_unlock(&attempt->table->lock);
}

void luna_attempt_stage(luna_attempt *attempt, const char *stage)
{
    pthread_mutex_lock(&attempt->table->lock);
    attempt->stage = stage;
    pthread_mutex_unlock(&attempt->table->lock);
    luna_attempts_tick(attempt->table);
    luna_attempts_nudge(attempt->table);
}

luna_err luna_attempt_vae(luna_attempt *attempt, const char *name, const char *path)
{
    char *name_copy = strdup(name), *path_copy = strdup(path);
    if (!name_copy || !path_copy) {
        free(name_copy);
        free(path_copy);
        return luna_error(LUNA_NO_MEMORY, "no memory for a VAE's name");
    }
    pthread_mutex_lock(&attempt->table->lock);
    free(attempt->vae);
    free(attempt->vae_path);
    attempt->vae = name_copy;
    attempt->vae_path = path_copy;
    pthread_mutex_unlock(&attempt->table->lock);
    return LUNA_OK;
}

void luna_attempt_vae_sha256(luna_attempt *attempt, const char *hex)
{
    pthread_mutex_lock(&attempt->table->lock);
    snprintf(attempt->vae_sha256, sizeof attempt->vae_sha256, "%s", hex);
    pthread_mutex_unlock(&attempt->table->lock);
}

void luna_attempt_decoded(luna_attempt *attempt)
{
    pthread_mutex_lock(&attempt->table->lock);
    attempt->decoded = true;
    pthread_mutex_unlock(&attempt->table->lock);
    luna_attempts_nudge(attempt->table);
}

void luna_attempts_tick(luna_attempts *attempts)
{
    atomic_fetch_add(&attempts->ticks, 1);
}
