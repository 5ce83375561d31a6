//  status, jobs, show, decoders: for people in columns, with --json as objects.

#include "producer/lunactl/lunactl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static void field(const char *name, const char *value)
{
    printf("%-14s", name);
    luna_ctl_put(value);
    putchar('\n');
}

static void field_number(const char *name, uint64_t value)
{
    printf("%-14s%llu\n", name, (unsigned long long)value);
}

//  "1.5 MiB"
static void field_bytes(const char *name, uint64_t bytes)
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i < 4; i++) value /= 1024;
    printf("%-14s%.*f %s\n", name, i ? 1 : 0, value, unit[i]);
}

//  Local time; nothing for 0, "not yet".
static void field_time(const char *name, uint64_t ms)
{
    char text[40];
    struct tm local;
    const time_t seconds = (time_t)(ms / 1000);
    if (ms == 0 || !localtime_r(&seconds, &local)) return;
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    field(name, text);
}

luna_err luna_ctl_status(luna_ctl *ctl)
{
    luna_answer *answer;
    luna_err err = LUNA_OK;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_query_status(ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    const luna_status *status = answer->status;
    if (ctl->json) {
        err = luna_ctl_print_json(luna_ctl_json_status(status));
    } else {
        field("broker", luna_endpoint(ctl->client));
        field("version", status->version);
        field("accepting", status->accepting);
        field_number("decoders", status->decoders);
        field_number("pending", status->pending);
        field_number("in_progress", status->in_progress);
        field_number("completed", status->completed);
        field_number("failed", status->failed);
        field_number("cancelled", status->cancelled);
        field_bytes("queued", status->queued_bytes);
        if (status->pending)
            printf("%-14s%.1f s\n", "oldest", (double)status->oldest_ms / 1000);
    }
    luna_answer_free(&answer);
    return err;
}

static void job_row(const luna_job *job)
{
    char images[48];
    snprintf(images, sizeof images, "%llu/%llu", (unsigned long long)job->images_done,
             (unsigned long long)job->images);
    printf("%-36s  %-11s  %9s  %8llu  ", job->id, job->state, images,
           (unsigned long long)job->attempts);
    luna_ctl_put(job->error[0] ? job->error : job->decoder);
    putchar('\n');
}

luna_err luna_ctl_jobs(luna_ctl *ctl)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(
        luna_query_jobs(ctl->client, ctl->state, ctl->limit, LUNA_CTL_WAIT_MS, &answer)));
    json_t *list = json_array();
    if (!ctl->json)
        printf("%-36s  %-11s  %9s  %8s  %s\n", "JOB", "STATE", "IMAGES", "ATTEMPTS",
               "DECODER OR ERROR");
    for (size_t i = 0; i < answer->job_count; i++) {
        if (ctl->json)
            json_array_append_new(list, luna_ctl_json_job(&answer->jobs[i]));
        else
            job_row(&answer->jobs[i]);
    }
    luna_answer_free(&answer);
    if (ctl->json) return luna_ctl_print_json(list);
    json_decref(list);
    return LUNA_OK;
}

static void print_image(const luna_image *image)
{
    printf("  %llu.%-5llu %5llux%-5llu %9llu bytes  ", (unsigned long long)image->input,
           (unsigned long long)image->index, (unsigned long long)image->width,
           (unsigned long long)image->height, (unsigned long long)image->bytes);
    luna_ctl_put(image->path);
    putchar('\n');
}

static void print_job(const luna_job *job)
{
    field("job", job->id);
    field("state", job->state);
    if (job->error[0]) field("error", job->error);
    if (job->detail[0]) field("detail", job->detail);
    printf("%-14s%llu of %llu\n", "images", (unsigned long long)job->images_done,
           (unsigned long long)job->images);
    field_bytes("payload", job->bytes);
    field_number("priority", job->priority);
    if (strcmp(job->state, "pending") == 0) field_number("ahead", job->position);
    printf("%-14s%llu (%llu lost, %llu refused)\n", "attempts",
           (unsigned long long)job->attempts, (unsigned long long)job->lost,
           (unsigned long long)job->refused);
    if (job->vae[0]) field("vae", job->vae);
    if (job->decoder[0]) field("decoder", job->decoder);
    field_time("created", job->created_ms);
    field_time("accepted", job->accepted_ms);
    field_time("started", job->started_ms);
    field_time("finished", job->finished_ms);
    if (job->file_count) printf("files\n");
    for (size_t i = 0; i < job->file_count; i++) print_image(&job->files[i]);
}

luna_err luna_ctl_show(luna_ctl *ctl)
{
    luna_answer *answer;
    luna_err err = LUNA_OK;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(
        luna_query_job(ctl->client, ctl->words[1], LUNA_CTL_WAIT_MS, &answer)));
    if (ctl->json)
        err = luna_ctl_print_json(luna_ctl_json_job(&answer->jobs[0]));
    else
        print_job(&answer->jobs[0]);
    luna_answer_free(&answer);
    return err;
}

static void decoder_row(const luna_decoder *decoder)
{
    luna_ctl_put(decoder->name);
    printf("  %s  %s  %llu/%llu jobs in hand, %llu images done, VAEs:", decoder->state,
           decoder->device, (unsigned long long)decoder->running,
           (unsigned long long)decoder->credit_jobs,
           (unsigned long long)decoder->images_done);
    for (size_t i = 0; i < decoder->vae_count; i++) {
        putchar(' ');
        luna_ctl_put(decoder->vaes[i]);
    }
    putchar('\n');
}

luna_err luna_ctl_decoders(luna_ctl *ctl)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_query_decoders(ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    json_t *list = json_array();
    for (size_t i = 0; i < answer->decoder_count; i++) {
        if (ctl->json)
            json_array_append_new(list, luna_ctl_json_decoder(&answer->decoders[i]));
        else
            decoder_row(&answer->decoders[i]);
    }
    if (!ctl->json && answer->decoder_count == 0) printf("no decoder is connected\n");
    luna_answer_free(&answer);
    if (ctl->json) return luna_ctl_print_json(list);
    json_decref(list);
    return LUNA_OK;
}
