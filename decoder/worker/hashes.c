#include "decoder/worker/hashes.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "decoder/sink/sha256.h"
#include "decoder/worker/hashes_cache.h"

#define NICE    10   //  of the thread: decodes go first
#define LOOK_MS 100  //  between looks at who has waited long enough

//  An attempt that is held.
typedef struct waiter {
    struct waiter *next;
    luna_attempt *attempt;
    int64_t until_ms;
} waiter;

//  A file that is to be read, or is.
typedef struct reading {
    struct reading *next;
    luna_file_key file;
    waiter *waiters;
} reading;

struct luna_hashes {
    luna_hashes_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    luna_hash_list known;
    reading *first;     //  the one that is being read
    int64_t looked_ms;  //  the thread's own: for those that waited long enough
    atomic_bool stopped;
};

//  ---- reading a file ----------------------------------------------------------------

static void release(waiter *waiters, const char *sha256)
{
    while (waiters) {
        waiter *next = waiters->next;
        if (sha256) luna_attempt_vae_sha256(waiters->attempt, sha256);
        luna_attempt_release(&waiters->attempt);
        free(waiters);
        waiters = next;
    }
}

//  Moves those that have waited long enough to *out. Locked.
static void take_overdue(reading *of, int64_t now_ms, waiter **out)
{
    waiter **at = &of->waiters;
    while (*at) {
        waiter *here = *at;
        if (here->until_ms > now_ms) {
            at = &here->next;
            continue;
        }
        *at = here->next;
        here->next = *out;
        *out = here;
    }
}

static void release_overdue(luna_hashes *hashes)
{
    const int64_t now_ms = luna_now_ms();
    waiter *overdue = NULL;
    if (now_ms - hashes->looked_ms < LOOK_MS) return;
    hashes->looked_ms = now_ms;
    pthread_mutex_lock(&hashes->lock);
    for (reading *at = hashes->first; at; at = at->next)
        take_overdue(at, now_ms, &overdue);
    pthread_mutex_unlock(&hashes->lock);
    if (overdue)
        luna_log(
            LUNA_LOG_INFO, "vae_hash_is_late",
            "path=\"%s\" next=\"the jobs that end meanwhile are recorded without it\"",
            hashes->first->file.path);
    release(overdue, NULL);
}

static bool go_on(void *context)
{
    luna_hashes *hashes = context;
    if (hashes->options.step) hashes->options.step(hashes->options.context);
    release_overdue(hashes);
    return !atomic_load(&hashes->stopped);
}

static luna_err check_same(int fd, const luna_file_key *file)
{
    luna_file_key now;
    LUNA_TRY(luna_file_key_of_open(fd, file->path, &now));
    if (luna_file_key_equal(&now, file)) return LUNA_OK;
    return luna_error(LUNA_IO, "%s was changed since it was loaded", file->path);
}

//  Before and after: it must have been that version all the time.
static luna_err hash_open(luna_hashes *hashes, int fd, luna_hash *out)
{
    const luna_sha256_watch watch = {go_on, hashes};
    uint64_t bytes;
    LUNA_TRY(check_same(fd, &out->file));
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    LUNA_TRY(luna_sha256_file_watched(fd, out->file.path, &watch, out->sha256, &bytes));
    return check_same(fd, &out->file);
}

static luna_err hash_file(luna_hashes *hashes, luna_hash *out)
{
    const int64_t start_ms = luna_now_ms();
    const int fd = open(out->file.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return luna_error_errno(LUNA_IO, "cannot read %s", out->file.path);
    const luna_err err = hash_open(hashes, fd, out);
    close(fd);
    LUNA_TRY(err);
    luna_log(LUNA_LOG_INFO, "vae_hashed", "sha256=%s bytes=%llu ms=%lld path=\"%s\"",
             out->sha256, (unsigned long long)out->file.bytes,
             (long long)(luna_now_ms() - start_ms), out->file.path);
    return LUNA_OK;
}

static void note_failure(const luna_file_key *file, luna_err err)
{
    const bool given_up = err == LUNA_CANCELLED;
    luna_log(given_up ? LUNA_LOG_INFO : LUNA_LOG_WARNING, "vae_not_hashed",
             "path=\"%s\" err=%s detail=\"%s\" next=\"its jobs are recorded without the "
             "hash of their VAE\"",
             file->path, luna_err_name(err), luna_error_text());
}

//  ---- the thread --------------------------------------------------------------------

//  Takes the first out of the queue, with those that waited for it. Locked.
static void end_reading(luna_hashes *hashes, const char *sha256)
{
    reading *done = hashes->first;
    hashes->first = done->next;
    pthread_mutex_unlock(&hashes->lock);
    release(done->waiters, sha256);
    luna_file_key_free(&done->file);
    free(done);
    pthread_mutex_lock(&hashes->lock);
}

static void keep_on_disk(const luna_hashes *hashes, const luna_hash *found)
{
    const luna_hashes_options *options = &hashes->options;
    if (options->cache && found->file.bytes >= options->kept_bytes_min)
        luna_hash_list_append(options->cache, found);
}

//  Locked.
static void read_first(luna_hashes *hashes)
{
    luna_hash found = {.file = hashes->first->file};
    pthread_mutex_unlock(&hashes->lock);
    const luna_err err = hash_file(hashes, &found);
    if (err == LUNA_OK)
        keep_on_disk(hashes, &found);
    else
        note_failure(&found.file, err);
    pthread_mutex_lock(&hashes->lock);
    if (err == LUNA_OK) (void)luna_hash_list_put(&hashes->known, &found);
    end_reading(hashes, err == LUNA_OK ? found.sha256 : NULL);
}

static void *serve(void *context)
{
    luna_hashes *hashes = context;
    (void)setpriority(PRIO_PROCESS, 0, NICE);  //  in Linux of this thread only
    pthread_mutex_lock(&hashes->lock);
    while (!atomic_load(&hashes->stopped)) {
        if (hashes->first)
            read_first(hashes);
        else
            pthread_cond_wait(&hashes->news, &hashes->lock);
    }
    while (hashes->first) end_reading(hashes, NULL);
    pthread_mutex_unlock(&hashes->lock);
    return NULL;
}

//  ---- questions ---------------------------------------------------------------------

//  The reading of this file, begun when there is none; NULL without memory. Locked.
static reading *reading_of(luna_hashes *hashes, const luna_file_key *file)
{
    reading **at = &hashes->first;
    while (*at && !luna_file_key_equal(&(*at)->file, file)) at = &(*at)->next;
    if (*at) return *at;
    reading *fresh = calloc(1, sizeof *fresh);
    if (!fresh || luna_file_key_copy(file, &fresh->file) != LUNA_OK) {
        free(fresh);
        return NULL;
    }
    *at = fresh;
    pthread_cond_signal(&hashes->news);
    return fresh;
}

void luna_hashes_begin(luna_hashes *hashes, const luna_file_key *file)
{
    pthread_mutex_lock(&hashes->lock);
    if (!luna_hash_list_find(&hashes->known, file)) (void)reading_of(hashes, file);
    pthread_mutex_unlock(&hashes->lock);
}

//  Without memory the attempt ends without a hash. One that is over needs none. Locked.
static void wait_for(luna_hashes *hashes, const luna_file_key *file,
                     luna_attempt *attempt)
{
    if (luna_attempt_is_over(attempt)) return;
    waiter *fresh = calloc(1, sizeof *fresh);
    reading *of = fresh ? reading_of(hashes, file) : NULL;
    if (!of) {
        free(fresh);
        return;
    }
    *fresh = (waiter){of->waiters, attempt, luna_now_ms() + hashes->options.wait_ms};
    of->waiters = fresh;
    luna_attempt_hold(attempt);
}

void luna_hashes_tell(luna_hashes *hashes, const luna_file_key *file,
                      luna_attempt *attempt)
{
    pthread_mutex_lock(&hashes->lock);
    const luna_hash *known = luna_hash_list_find(&hashes->known, file);
    if (known)
        luna_attempt_vae_sha256(attempt, known->sha256);
    else
        wait_for(hashes, file, attempt);
    pthread_mutex_unlock(&hashes->lock);
}

//  ---- start and end -----------------------------------------------------------------

static void free_hashes(luna_hashes *hashes)
{
    luna_hash_list_clear(&hashes->known);
    pthread_cond_destroy(&hashes->news);
    pthread_mutex_destroy(&hashes->lock);
    free(hashes);
}

luna_err luna_hashes_start(const luna_hashes_options *options, luna_hashes **out)
{
    luna_hashes *hashes = calloc(1, sizeof *hashes);
    if (!hashes) return luna_error(LUNA_NO_MEMORY, "no memory for the hashes of VAEs");
    hashes->options = *options;
    pthread_mutex_init(&hashes->lock, NULL);
    pthread_cond_init(&hashes->news, NULL);
    if (options->cache) luna_hash_list_read(options->cache, &hashes->known);
    if (pthread_create(&hashes->thread, NULL, serve, hashes) != 0) {
        free_hashes(hashes);
        return luna_error(LUNA_NO_MEMORY, "cannot start the thread that hashes VAEs");
    }
    *out = hashes;
    return LUNA_OK;
}

void luna_hashes_stop(luna_hashes **held)
{
    luna_hashes *hashes = *held;
    if (!hashes) return;
    pthread_mutex_lock(&hashes->lock);
    atomic_store(&hashes->stopped, true);
    pthread_cond_broadcast(&hashes->news);
    pthread_mutex_unlock(&hashes->lock);
    pthread_join(hashes->thread, NULL);
    free_hashes(hashes);
    *held = NULL;
}
