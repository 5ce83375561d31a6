#include "producer/lunactl/top.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

#define ASK_MS    2000
#define SAMPLE_MS 1000

//  ---- the order of jobs -------------------------------------------------------------

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_turn(const void *left, const void *right)
{
    const luna_job *a = *(const luna_job *const *)left;
    const luna_job *b = *(const luna_job *const *)right;
    if (a->next != b->next) return b->next - a->next;
    if (a->priority != b->priority) return compare_u64(b->priority, a->priority);
    if (a->accepted_ms != b->accepted_ms)
        return compare_u64(a->accepted_ms, b->accepted_ms);
    return strcmp(a->id, b->id);
}

static int by_start(const void *left, const void *right)
{
    const luna_job *a = *(const luna_job *const *)left;
    const luna_job *b = *(const luna_job *const *)right;
    if (a->started_ms != b->started_ms) return compare_u64(a->started_ms, b->started_ms);
    return strcmp(a->id, b->id);
}

static luna_err put_in_order(luna_top_data *data)
{
    const size_t running = data->running->job_count, waiting = data->waiting->job_count;
    const luna_job **jobs = calloc(running + waiting + 1, sizeof *jobs);
    if (!jobs) return luna_error(LUNA_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < running; i++) jobs[i] = &data->running->jobs[i];
    for (size_t i = 0; i < waiting; i++) jobs[running + i] = &data->waiting->jobs[i];
    qsort(jobs, running, sizeof *jobs, by_start);
    qsort(jobs + running, waiting, sizeof *jobs, by_turn);
    data->jobs = jobs;
    data->job_count = running + waiting;
    return LUNA_OK;
}

static void forget_order(luna_top_data *data)
{
    free(data->jobs);
    data->jobs = NULL;
    data->job_count = 0;
}

//  ---- rates -------------------------------------------------------------------------

static void forget_oldest(luna_top_data *data)
{
    memmove(data->samples, data->samples + 1,
            (data->sample_count - 1) * sizeof data->samples[0]);
    data->sample_count--;
}

//  Counters only grow, unless the broker was started anew.
static bool goes_on(const luna_top_sample *before, const luna_top_sample *now)
{
    return now->completed >= before->completed && now->images >= before->images;
}

static double per_second(uint64_t from, uint64_t to, int64_t ms)
{
    return (double)(to - from) * 1000 / (double)ms;
}

void luna_top_rate(luna_top_data *data, int64_t now_ms)
{
    const luna_status *status = data->status->status;
    const luna_top_sample now = {
        .time_ms = now_ms, .completed = status->completed, .images = status->images};
    const luna_top_sample *first = &data->samples[0];
    const size_t count = data->sample_count;
    if (count == 0 || !goes_on(&data->samples[count - 1], &now)) {
        data->samples[0] = now;
        data->sample_count = 1;
        data->jobs_per_second = data->images_per_second = -1;
        return;
    }
    if (now_ms - data->samples[count - 1].time_ms < SAMPLE_MS) return;
    if (count == LUNA_TOP_SAMPLES) forget_oldest(data);
    data->samples[data->sample_count++] = now;
    const int64_t ms = now_ms - first->time_ms;
    data->jobs_per_second = per_second(first->completed, now.completed, ms);
    data->images_per_second = per_second(first->images, now.images, ms);
}

//  ---- questions ---------------------------------------------------------------------

static void replace(luna_answer **kept, luna_answer *answer)
{
    luna_answer_free(kept);
    *kept = answer;
}

static luna_err ask_jobs(luna_ctl *ctl, luna_top_data *data)
{
    luna_answer *running = NULL, *waiting = NULL;
    LUNA_TRY(luna_ctl_rc(
        luna_query_jobs(ctl->client, "in_progress", LUNA_TOP_JOBS, ASK_MS, &running)));
    const luna_err err = luna_ctl_rc(
        luna_query_jobs(ctl->client, "pending", LUNA_TOP_JOBS, ASK_MS, &waiting));
    if (err != LUNA_OK) {
        luna_answer_free(&running);
        return err;
    }
    forget_order(data);  //  it points into what is replaced
    replace(&data->running, running);
    replace(&data->waiting, waiting);
    return put_in_order(data);
}

static luna_err ask(luna_ctl *ctl, luna_top_data *data)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_rc(luna_wait_available(ctl->client, 0)));
    LUNA_TRY(luna_ctl_rc(luna_query_status(ctl->client, ASK_MS, &answer)));
    replace(&data->status, answer);
    luna_top_rate(data, luna_now_ms());
    LUNA_TRY(luna_ctl_rc(luna_query_decoders(ctl->client, ASK_MS, &answer)));
    replace(&data->decoders, answer);
    return ask_jobs(ctl, data);
}

luna_err luna_top_ask(luna_ctl *ctl, luna_top_data *data)
{
    const luna_err err = ask(ctl, data);
    snprintf(data->problem, sizeof data->problem, "%s",
             err == LUNA_OK ? "" : luna_error_text());
    return err;
}

void luna_top_free(luna_top_data *data)
{
    replace(&data->status, NULL);
    replace(&data->decoders, NULL);
    replace(&data->running, NULL);
    replace(&data->waiting, NULL);
    forget_order(data);
    *data = (luna_top_data){0};
}

//  ---- as JSON -----------------------------------------------------------------------

static json_t *rate(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

json_t *luna_top_json(const luna_top_data *data)
{
    json_t *jobs = json_array();
    for (size_t i = 0; i < data->job_count; i++)
        json_array_append_new(jobs, luna_ctl_json_job(data->jobs[i]));
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}",                      //
                     "time_ms", (json_int_t)luna_wall_ms(),                 //
                     "status", luna_ctl_json_status(data->status->status),  //
                     "jobs_per_second", rate(data->jobs_per_second),        //
                     "images_per_second", rate(data->images_per_second),    //
                     "decoders", luna_ctl_json_decoders(data->decoders),    //
                     "jobs", jobs);
}
