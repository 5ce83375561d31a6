//  The disk thread: reads back what is to be sent next, removes what is settled, writes
//  what the broker has not accepted in time; in this order of urgency.
//
//  Its work is found by looking at the jobs under the lock, and done without it. A job
//  may be settled meanwhile, and its entry be gone: it is looked up again by id and
//  order.

#include "producer/luna/client.h"

#include "common/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD         4     //  jobs whose messages are read back before their turn
#define FULL_RETRY_MS 1000  //  an outbox without room
#define DISK_RETRY_MS 5000  //  a disk that fails
#define SYNC_LATER_MS 1000  //  removals wait so long for others to share their sync

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static luna_outbox_name name_of(const luna_client *client, const luna_entry *entry)
{
    return (luna_outbox_name){
        .order = entry->order, .job = entry->id, .client = client->id};
}

static luna_entry *still_there(luna_client *client, const luna_outbox_name *name)
{
    luna_entry *entry = luna_jobs_find(&client->jobs, &name->job);
    const bool same = entry && entry->order == name->order;
    return same && entry->state != LUNA_ENTRY_SETTLED ? entry : NULL;
}

//  Notes how reading or writing went, whose time to try again is *retry_ms. An outbox
//  that is full must still be read, so each has its own.
static void judge(luna_client *client, luna_err err, int64_t *retry_ms)
{
    luna_keeper *keeper = &client->keeper;
    const int64_t wait_ms = err == LUNA_NO_SPACE ? FULL_RETRY_MS : DISK_RETRY_MS;
    if (err != LUNA_OK)
        luna_notice_begin(&client->notices, LUNA_TROUBLE_FAILED, err, luna_error_text(),
                          0);
    if (err != LUNA_TOO_LARGE) *retry_ms = err == LUNA_OK ? 0 : luna_now_ms() + wait_ms;
    if (err == LUNA_OK && keeper->read_retry_ms == 0 && keeper->write_retry_ms == 0)
        luna_notice_end(&client->notices, LUNA_TROUBLE_FAILED);
}

//  ---- reading back ----------------------------------------------------------------

//  A file that will never be sent: it is moved out of the way, and the job is settled.
static void lose(luna_client *client, const luna_outbox_name *name, uint64_t bytes,
                 luna_err err)
{
    char why[256], moved[LUNA_OUTBOX_PATH_BYTES], text[LUNA_NOTICE_TEXT_BYTES];
    (void)snprintf(why, sizeof why, "%s", luna_error_text());
    if (err == LUNA_NOT_FOUND)
        (void)snprintf(text, sizeof text, "a job of the outbox is gone: %s", why);
    else if (luna_outbox_set_aside(client->keeper.outbox, name, bytes, moved) == LUNA_OK)
        (void)snprintf(text, sizeof text,
                       "a job of the outbox is not sent (%s), it is set aside as %.600s",
                       why, moved);
    else
        (void)snprintf(text, sizeof text,
                       "a job of the outbox is not sent (%s), and %.600s", why,
                       luna_error_text());
    pthread_mutex_lock(&client->lock);
    luna_entry *entry = still_there(client, name);
    if (entry) {
        (void)luna_jobs_settle(&client->jobs, entry, LUNA_IO, text);
        luna_notice_loss(&client->notices, "lost", &name->job, text);
    }
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

//  True when the buffer has become the job's.
static bool give_body(luna_client *client, const luna_outbox_name *name, luna_err err,
                      luna_buffer *body, uint64_t priority)
{
    pthread_mutex_lock(&client->lock);
    luna_entry *entry = still_there(client, name);
    const bool given = entry && err == LUNA_OK;
    if (entry) luna_jobs_read(&client->jobs, entry, given ? body : NULL);
    if (given) entry->priority = priority;
    judge(client, err, &client->keeper.read_retry_ms);
    pthread_mutex_unlock(&client->lock);
    return given;
}

static void read_file(luna_client *client, const luna_outbox_name *name, uint64_t bytes)
{
    uint64_t priority = 0;
    luna_buffer *body = luna_pool_take(client->pool, bytes);
    const luna_err err =
        body ? luna_outbox_get(client->keeper.outbox, name, body->data, bytes, &priority)
             : luna_error(LUNA_NO_MEMORY, "no memory for a job of %" PRIu64 " bytes",
                          bytes);
    if (err == LUNA_BAD_REQUEST || err == LUNA_NOT_FOUND) {
        lose(client, name, bytes, err);
    } else if (give_body(client, name, err, body, priority)) {
        return;
    }
    luna_buffer_release(body);
}

//  Under the lock, which it gives up for the work, and then returns true: what there is
//  to do may have changed meanwhile. So do the next ones.
static bool read_one(luna_client *client, int64_t now_ms)
{
    luna_keeper *keeper = &client->keeper;
    luna_jobs *jobs = &client->jobs;
    if (!keeper->body_wanted || keeper->ending || now_ms < keeper->read_retry_ms)
        return false;
    const luna_entry *head = luna_jobs_next(jobs);
    luna_buffer *evicted =
        head && head->place == LUNA_BODY_DISK ? luna_jobs_evict(jobs, head->bytes) : NULL;
    luna_entry *entry = luna_jobs_wanted(jobs, AHEAD);
    if (!entry && !evicted) {
        keeper->body_wanted = false;
        return false;
    }
    const luna_outbox_name name = entry ? name_of(client, entry) : (luna_outbox_name){0};
    const uint64_t bytes = entry ? entry->bytes : 0;
    if (entry) luna_jobs_reading(jobs, entry);
    pthread_mutex_unlock(&client->lock);
    luna_buffer_release_chain(evicted);
    if (entry) read_file(client, &name, bytes);
    luna_client_ring(client);
    pthread_mutex_lock(&client->lock);
    return true;
}

//  ---- removing --------------------------------------------------------------------

static void tell_refused(luna_client *client, const luna_removal *removal, luna_err err,
                         const char *moved)
{
    char text[LUNA_NOTICE_TEXT_BYTES];
    if (err == LUNA_NOT_FOUND) return;  //  it never got as far as the disk
    if (err == LUNA_OK)
        (void)snprintf(
            text, sizeof text,
            "the broker refused a job of the outbox: %.500s; it is kept as %.400s",
            removal->reason, moved);
    else
        (void)snprintf(text, sizeof text,
                       "the broker refused a job of the outbox: %.500s; %.400s",
                       removal->reason, luna_error_text());
    pthread_mutex_lock(&client->lock);
    luna_notice_loss(&client->notices, "refused", &removal->name.job, text);
    pthread_mutex_unlock(&client->lock);
}

static void remove_file(luna_client *client, const luna_removal *removal)
{
    luna_outbox *outbox = client->keeper.outbox;
    char moved[LUNA_OUTBOX_PATH_BYTES];
    luna_err err;
    if (removal->reason) {
        err = luna_outbox_refuse(outbox, &removal->name, removal->bytes, removal->reason,
                                 moved);
        tell_refused(client, removal, err, moved);
        return;
    }
    //  One that stays is sent again by the next process, and known to the broker.
    err = luna_outbox_remove(outbox, &removal->name, removal->bytes);
    pthread_mutex_lock(&client->lock);
    if (err != LUNA_OK) judge(client, err, &client->keeper.write_retry_ms);
    pthread_mutex_unlock(&client->lock);
}

static void free_removal(luna_removal *removal)
{
    free(removal->reason);
    free(removal);
}

static luna_removal *take_removal(luna_keeper *keeper)
{
    luna_removal *removal = keeper->removals;
    keeper->removals = removal->next;
    if (!keeper->removals) keeper->last = &keeper->removals;
    return removal;
}

static bool remove_one(luna_client *client)
{
    luna_keeper *keeper = &client->keeper;
    if (!keeper->removals) return false;
    luna_removal *removal = take_removal(keeper);
    pthread_mutex_unlock(&client->lock);
    remove_file(client, removal);
    luna_client_ring(client);
    free_removal(removal);
    pthread_mutex_lock(&client->lock);
    keeper->removed++;
    const int64_t later_ms = luna_now_ms() + SYNC_LATER_MS;
    if (keeper->sync_ms > later_ms) keeper->sync_ms = later_ms;
    return true;
}

static bool must_sync(const luna_keeper *keeper, int64_t now_ms)
{
    if (keeper->removed == keeper->synced) return false;
    if (keeper->ending || now_ms >= keeper->sync_ms) return true;
    return keeper->sync_wanted > keeper->synced && now_ms >= keeper->write_retry_ms;
}

static bool sync_removals(luna_client *client, int64_t now_ms)
{
    luna_keeper *keeper = &client->keeper;
    const uint64_t removed = keeper->removed;
    if (!must_sync(keeper, now_ms)) return false;
    pthread_mutex_unlock(&client->lock);
    const luna_err err = luna_outbox_sync(keeper->outbox);
    pthread_mutex_lock(&client->lock);
    if (err == LUNA_OK || keeper->ending) keeper->synced = removed;
    keeper->sync_ms = err == LUNA_OK ? INT64_MAX : now_ms + DISK_RETRY_MS;
    if (err != LUNA_OK) judge(client, err, &keeper->write_retry_ms);
    pthread_cond_broadcast(&client->changed);
    return true;
}

uint64_t luna_keeper_drop(luna_client *client, const luna_entry *entry, luna_err error,
                          const char *reason)
{
    luna_keeper *keeper = &client->keeper;
    const bool on_disk = luna_jobs_kept(entry) || entry->place == LUNA_BODY_WRITING;
    luna_removal *removal = on_disk ? calloc(1, sizeof *removal) : NULL;
    const bool refused = error != LUNA_OK && error != LUNA_CANCELLED;
    if (removal && refused) removal->reason = strdup(reason);
    //  Without memory the file stays: see remove_file.
    if (!removal || (refused && !removal->reason)) {
        free(removal);
        return 0;
    }
    removal->name = name_of(client, entry);
    removal->bytes = entry->bytes;
    *keeper->last = removal;
    keeper->last = &removal->next;
    pthread_cond_signal(&keeper->work);
    return ++keeper->asked;
}

bool luna_keeper_wait(luna_client *client, uint64_t ticket, int64_t deadline_ms)
{
    luna_keeper *keeper = &client->keeper;
    if (keeper->sync_wanted < ticket) keeper->sync_wanted = ticket;
    pthread_cond_signal(&keeper->work);
    while (keeper->synced < ticket && luna_client_wait(client, deadline_ms)) continue;
    return keeper->synced >= ticket;
}

//  ---- writing ---------------------------------------------------------------------

static bool must_write(const luna_client *client, const luna_entry *entry, int64_t now_ms)
{
    const luna_keeper *keeper = &client->keeper;
    const luna_jobs *jobs = &client->jobs;
    if (!entry) return false;
    if (keeper->ending) return true;
    if (now_ms < keeper->write_retry_ms) return false;
    return keeper->hurry || now_ms >= entry->keep_ms ||
           jobs->bytes - jobs->kept_bytes > jobs->max_bytes / 2;
}

static bool write_one(luna_client *client, int64_t now_ms)
{
    luna_keeper *keeper = &client->keeper;
    luna_entry *entry = luna_jobs_unkept(&client->jobs);
    if (!must_write(client, entry, now_ms)) return false;
    const luna_outbox_name name = name_of(client, entry);
    luna_buffer *body = luna_buffer_hold(entry->body);
    const luna_blob message = {.data = body->data, .len = entry->bytes};
    luna_jobs_writing(&client->jobs, entry);
    pthread_mutex_unlock(&client->lock);
    const luna_err err = luna_outbox_put(keeper->outbox, &name, message);
    luna_buffer_release(body);
    pthread_mutex_lock(&client->lock);
    const bool again = err != LUNA_TOO_LARGE && !keeper->ending;
    entry = still_there(client, &name);
    if (entry) luna_jobs_written(&client->jobs, entry, err == LUNA_OK, again);
    judge(client, err, &keeper->write_retry_ms);
    pthread_cond_broadcast(&client->changed);
    luna_client_ring(client);
    return true;
}

//  ---- the thread ------------------------------------------------------------------

static bool has_ended(const luna_client *client)
{
    const luna_keeper *keeper = &client->keeper;
    return keeper->ending && !keeper->removals && keeper->removed == keeper->synced &&
           !luna_jobs_unkept(&client->jobs);
}

static void wait_for_work(luna_client *client)
{
    luna_keeper *keeper = &client->keeper;
    const int64_t until_ms = keeper->sync_ms;
    const struct timespec until = {.tv_sec = until_ms / 1000,
                                   .tv_nsec = until_ms % 1000 * 1000000};
    if (until_ms == INT64_MAX)
        pthread_cond_wait(&keeper->work, &client->lock);
    else
        pthread_cond_timedwait(&keeper->work, &client->lock, &until);
}

void *luna_keeper_run(void *arg)
{
    luna_client *client = arg;
    pthread_mutex_lock(&client->lock);
    while (!has_ended(client)) {
        const int64_t now_ms = luna_now_ms();
        if (read_one(client, now_ms) || remove_one(client) || write_one(client, now_ms) ||
            sync_removals(client, now_ms))
            continue;
        if (!has_ended(client)) wait_for_work(client);
    }
    (void)luna_keeper_tick(client, luna_now_ms());
    pthread_mutex_unlock(&client->lock);
    luna_notice_tick(client);
    return NULL;
}

void luna_keeper_want(luna_client *client)
{
    client->keeper.body_wanted = true;
}

//  Whether the outbox holds jobs, and why.
static void note_kept(luna_client *client)
{
    luna_notice_state *notices = &client->notices;
    char text[LUNA_NOTICE_TEXT_BYTES];
    if (luna_jobs_kept_count(&client->jobs) == 0) {
        luna_notice_end(notices, LUNA_TROUBLE_OUTBOX);
        return;
    }
    if (notices->trouble[LUNA_TROUBLE_OUTBOX].on) return;
    const char *dir = luna_keeper_dir(client);
    if (notices->trouble[LUNA_TROUBLE_BUSY].on)
        (void)snprintf(text, sizeof text,
                       "the broker takes no jobs now (%.400s): jobs are kept in %.500s",
                       notices->trouble[LUNA_TROUBLE_BUSY].text, dir);
    else if (client->session.away)
        (void)snprintf(text, sizeof text,
                       "no broker answers at %.400s: jobs are kept in %.500s",
                       client->endpoint, dir);
    else
        (void)snprintf(text, sizeof text,
                       "jobs are kept in %.900s until the broker has accepted them", dir);
    luna_notice_begin(notices, LUNA_TROUBLE_OUTBOX, LUNA_UNAVAILABLE, text, 0);
}

int64_t luna_keeper_tick(luna_client *client, int64_t now_ms)
{
    luna_keeper *keeper = &client->keeper;
    const luna_entry *entry = luna_jobs_unkept(&client->jobs);
    const int64_t write_ms =
        entry ? later(entry->keep_ms, keeper->write_retry_ms) : INT64_MAX;
    const int64_t read_ms = keeper->body_wanted ? keeper->read_retry_ms : INT64_MAX;
    if (!keeper->outbox) return INT64_MAX;
    note_kept(client);
    if (!must_write(client, entry, now_ms) && now_ms < read_ms)
        return write_ms < read_ms ? write_ms : read_ms;
    pthread_cond_signal(&keeper->work);  //  which rings when it is done
    return INT64_MAX;
}
