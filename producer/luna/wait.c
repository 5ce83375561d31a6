//  Waiting for receipts and for the end of jobs
//
//  luna_wait_job asks the broker, reports what is new, sleeps until an event says that
//  there is more, and asks again; also each POLL_MS without one, since events may get
//  lost. Events that come thick are answered by one question each LEAST_MS.

#include "common/clock.h"
#include "producer/luna/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS  1000
#define LEAST_MS 50
#define ASK_MS   5000  //  one question; the next conversation may answer the next

static void fill_receipt(const luna_entry *entry, luna_receipt *receipt)
{
    *receipt = (luna_receipt){.error = (int32_t)entry->error,
                              .duplicate = entry->duplicate,
                              .position = entry->position,
                              .images = entry->images};
    snprintf(receipt->detail, sizeof receipt->detail, "%s",
             entry->detail ? entry->detail : "");
}

luna_err luna_receipt_wait(luna_client *client, const luna_id *id, int64_t deadline_ms,
                           luna_receipt *receipt)
{
    luna_receipt found = {0};
    bool in_time = true;
    luna_entry *entry;
    pthread_mutex_lock(&client->lock);
    while ((entry = luna_jobs_find(&client->jobs, id)) &&
           entry->state != LUNA_ENTRY_SETTLED && in_time)
        in_time = luna_client_wait(client, deadline_ms);
    const bool settled = entry && entry->state == LUNA_ENTRY_SETTLED;
    if (settled) fill_receipt(entry, &found);
    pthread_mutex_unlock(&client->lock);
    if (!entry) return luna_error(LUNA_NOT_FOUND, "this client submitted no such job");
    if (!settled) return luna_client_late(client, "the job has no receipt yet");
    if (receipt) *receipt = found;
    const luna_err err = (luna_err)found.error;
    return err == LUNA_OK ? LUNA_OK : luna_error(err, "%s", found.detail);
}

int luna_wait_receipt(luna_client *client, const char *job_id, int32_t timeout_ms,
                      luna_receipt *receipt)
{
    luna_id id;
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &id));
    return luna_receipt_wait(client, &id, luna_deadline_ms(timeout_ms), receipt);
}

static bool is_kept(const luna_entry *entry)
{
    return entry->state == LUNA_ENTRY_SETTLED || luna_jobs_kept(entry);
}

int luna_wait_kept(luna_client *client, const char *job_id, int32_t timeout_ms)
{
    luna_id id;
    luna_entry *entry;
    bool in_time = true;
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &id));
    const int64_t deadline_ms = luna_deadline_ms(timeout_ms);
    pthread_mutex_lock(&client->lock);
    while ((entry = luna_jobs_find(&client->jobs, &id)) && !is_kept(entry) && in_time)
        in_time = luna_client_wait(client, deadline_ms);
    const bool kept = entry && luna_jobs_kept(entry);
    pthread_mutex_unlock(&client->lock);
    if (kept) return LUNA_RC_OK;
    return luna_receipt_wait(client, &id, luna_now_ms(), NULL);
}

//  What luna_wait_job has reported of a job.
typedef struct progress {
    luna_job_callback *callback;
    void *context;
    uint8_t seen[LUNA_MAX_INPUTS][LUNA_MAX_BATCH / 8];
    char state[32];
    uint64_t position, images_done, attempts;
} progress;

static bool first_time(progress *so_far, const luna_image *image)
{
    uint8_t *byte = &so_far->seen[image->input][image->index / 8];
    const uint8_t bit = (uint8_t)(1U << image->index % 8);
    const bool first = !(*byte & bit);
    *byte |= bit;
    return first;
}

static bool changed(progress *so_far, const luna_job *job)
{
    const bool same =
        strcmp(so_far->state, job->state) == 0 && so_far->position == job->position &&
        so_far->images_done == job->images_done && so_far->attempts == job->attempts;
    snprintf(so_far->state, sizeof so_far->state, "%s", job->state);
    so_far->position = job->position;
    so_far->images_done = job->images_done;
    so_far->attempts = job->attempts;
    return !same;
}

static void report(progress *so_far, const luna_job *job)
{
    if (!so_far->callback) return;
    for (size_t i = 0; i < job->file_count; i++)
        if (first_time(so_far, &job->files[i]))
            so_far->callback(so_far->context, job, &job->files[i]);
    if (changed(so_far, job)) so_far->callback(so_far->context, job, NULL);
}

//  True when the job has ended; *result says how.
static bool ended(const luna_job *job, luna_err *result)
{
    *result = LUNA_OK;
    if (strcmp(job->state, "completed") == 0) return true;
    if (strcmp(job->state, "cancelled") == 0)
        *result = luna_error(LUNA_CANCELLED, "job %s was cancelled", job->id);
    if (strcmp(job->state, "failed") == 0) {
        const luna_err err = luna_err_from_name(job->error);
        *result = luna_error(err == LUNA_OK ? LUNA_INTERNAL : err,
                             "job %s failed (%s): %s", job->id, job->error, job->detail);
    }
    return *result != LUNA_OK;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

//  One question and its report. True when there is nothing more to wait for.
static bool look(luna_client *client, const luna_id *id, int64_t deadline_ms,
                 progress *so_far, luna_err *result)
{
    luna_answer *answer;
    luna_question question = {.type = LUNA_MSG_QUERY,
                              .query = {.what = luna_text_of("job"), .id = *id}};
    *result = luna_ask(client, &question, earlier(deadline_ms, luna_now_ms() + ASK_MS),
                       &answer);
    if (*result == LUNA_UNAVAILABLE || *result == LUNA_TIMEOUT)
        return luna_now_ms() >= deadline_ms;
    if (*result != LUNA_OK) return true;
    bool end = true;
    if (answer->job_count != 1) {
        *result = luna_error(LUNA_NOT_FOUND, "the broker has no such job");
    } else {
        report(so_far, &answer->jobs[0]);
        end = ended(&answer->jobs[0], result);
    }
    luna_answer_free(&answer);
    return end;
}

static luna_watch *watch_begin(luna_client *client, const luna_id *id)
{
    luna_watch *watch = calloc(1, sizeof *watch);
    char text[LUNA_ID_TEXT_BYTES];
    if (!watch) return NULL;
    watch->id = *id;
    luna_id_text(id, text);
    snprintf(watch->topic, sizeof watch->topic, "job/%s", text);
    pthread_mutex_lock(&client->lock);
    watch->next = client->watches;
    client->watches = watch;
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
    return watch;
}

static void watch_end(luna_client *client, luna_watch *watch)
{
    pthread_mutex_lock(&client->lock);
    watch->ended = true;
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
}

//  Sleeps until there is news, and at least LEAST_MS unless the job has ended.
static void wait_news(luna_client *client, luna_watch *watch, int64_t asked_ms,
                      int64_t deadline_ms)
{
    const int64_t until_ms = earlier(deadline_ms, asked_ms + POLL_MS);
    const int64_t least_ms = earlier(deadline_ms, asked_ms + LEAST_MS);
    pthread_mutex_lock(&client->lock);
    while (!watch->news && luna_client_wait(client, until_ms)) continue;
    while (!watch->final && luna_client_wait(client, least_ms)) continue;
    watch->news = watch->final = false;
    pthread_mutex_unlock(&client->lock);
}

static luna_err wait_end(luna_client *client, const luna_id *id, int64_t deadline_ms,
                         progress *so_far)
{
    luna_err result;
    luna_watch *watch = watch_begin(client, id);
    if (!watch) return luna_error(LUNA_NO_MEMORY, "out of memory");
    for (;;) {
        const int64_t asked_ms = luna_now_ms();
        if (look(client, id, deadline_ms, so_far, &result)) break;
        if (luna_now_ms() >= deadline_ms) {
            result = luna_error(LUNA_TIMEOUT, "the job has not ended in time");
            break;
        }
        wait_news(client, watch, asked_ms, deadline_ms);
    }
    watch_end(client, watch);
    return result;
}

static bool is_unsettled(luna_client *client, const luna_id *id)
{
    pthread_mutex_lock(&client->lock);
    const luna_entry *entry = luna_jobs_find(&client->jobs, id);
    const bool unsettled = entry && entry->state != LUNA_ENTRY_SETTLED;
    pthread_mutex_unlock(&client->lock);
    return unsettled;
}

int luna_wait_job(luna_client *client, const char *job_id, int32_t timeout_ms,
                  luna_job_callback *callback, void *context)
{
    luna_id id;
    progress so_far = {.callback = callback, .context = context};
    LUNA_TRY(luna_client_check(client));
    LUNA_TRY(luna_job_id(job_id, &id));
    const int64_t deadline_ms = luna_deadline_ms(timeout_ms);
    if (is_unsettled(client, &id))
        LUNA_TRY(luna_receipt_wait(client, &id, deadline_ms, NULL));
    return wait_end(client, &id, deadline_ms, &so_far);
}
