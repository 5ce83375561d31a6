//  jobs and show: many jobs in a table, one job field by field.

#include "producer/lunactl/lunactl.h"

#include "common/clock.h"

#include <string.h>

static const luna_column job_columns[] = {
    {.title = "JOB"},
    {.title = "STATE"},
    {.title = "IMAGES", .right = true},
    {.title = "AGE", .right = true},
    {.title = "PRI", .right = true},
    {.title = "TRIES", .right = true},
    {.title = "VAE", .most = 24},
    {.title = "DECODER OR ERROR"},
};

static void add_job(luna_table *table, const luna_job *job, size_t width)
{
    char age[LUNA_AMOUNT_BYTES], turn[LUNA_AMOUNT_BYTES];
    luna_ctl_job_age(job, age);
    luna_ctl_job_turn(job, turn);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", luna_ctl_shown_id(job->id, width));
    luna_table_cell(table, luna_ctl_state_style(job->state), "%s", job->state);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu/%llu",
                    (unsigned long long)job->images_done,
                    (unsigned long long)job->images);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", age);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", turn);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu", (unsigned long long)job->attempts);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", luna_ctl_vae_name(job->vae));
    luna_table_cell(table, job->error[0] ? LUNA_STYLE_BAD : LUNA_STYLE_PLAIN, "%s",
                    job->error[0] ? job->error : job->decoder);
}

static luna_err print_jobs(const luna_answer *answer)
{
    luna_page page = luna_page_on(stdout);
    luna_page_fit(&page);
    luna_table *table =
        luna_table_new(job_columns, sizeof job_columns / sizeof job_columns[0]);
    for (size_t i = 0; i < answer->job_count; i++)
        add_job(table, &answer->jobs[i], page.width);
    const luna_err err = luna_table_print(table, &page);
    luna_table_free(&table);
    return err;
}

luna_err luna_ctl_jobs(luna_ctl *ctl)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(
        luna_query_jobs(ctl->client, ctl->state, ctl->limit, LUNA_CTL_WAIT_MS, &answer)));
    const luna_err err =
        ctl->json ? luna_ctl_print_json(luna_ctl_json_jobs(answer)) : print_jobs(answer);
    luna_answer_free(&answer);
    return err;
}

//  ---- one job ---------------------------------------------------------------------

static const luna_column file_columns[] = {
    {.title = "INPUT", .right = true},  {.title = "IMAGE", .right = true},
    {.title = "PIXELS", .right = true}, {.title = "SIZE", .right = true},
    {.title = "DECODE", .right = true}, {.title = "ENCODE", .right = true},
    {.title = "WRITE", .right = true},  {.title = "FILE"},
};

static void add_time(luna_table *table, double ms)
{
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%.1f ms", ms);
}

static void add_file(luna_table *table, const luna_image *image)
{
    char bytes[LUNA_AMOUNT_BYTES];
    luna_bytes_text(image->bytes, bytes);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu", (unsigned long long)image->input);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu", (unsigned long long)image->index);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llux%llu",
                    (unsigned long long)image->width, (unsigned long long)image->height);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", bytes);
    add_time(table, image->decode_ms);
    add_time(table, image->encode_ms);
    add_time(table, image->write_ms);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s%s%s%s", image->path,
                    image->note[0] ? "  (" : "", image->note, image->note[0] ? ")" : "");
}

static luna_err print_files(luna_page *page, const luna_job *job)
{
    if (job->file_count == 0) return LUNA_OK;
    luna_table *table =
        luna_table_new(file_columns, sizeof file_columns / sizeof file_columns[0]);
    for (size_t i = 0; i < job->file_count; i++) add_file(table, &job->files[i]);
    luna_page_end(page);
    const luna_err err = luna_table_print(table, page);
    luna_table_free(&table);
    return err;
}

static void field(luna_page *page, const char *name, const char *value)
{
    if (value[0]) luna_page_field(page, name, LUNA_STYLE_PLAIN, "%s", value);
}

static void field_time(luna_page *page, const char *name, uint64_t ms)
{
    char text[LUNA_AMOUNT_BYTES];
    if (ms == 0) return;
    luna_time_text(ms, text);
    field(page, name, text);
}

static void print_deadline(luna_page *page, const luna_job *job)
{
    char when[LUNA_AMOUNT_BYTES], left[LUNA_AMOUNT_BYTES];
    if (job->deadline_ms == 0) return;
    const int64_t left_ms = (int64_t)job->deadline_ms - luna_wall_ms();
    luna_time_text(job->deadline_ms, when);
    luna_duration_text(left_ms > 0 ? (uint64_t)left_ms : 0, left);
    if (job->finished_ms || left_ms <= 0)
        field(page, "deadline", when);
    else
        luna_page_field(page, "deadline", LUNA_STYLE_PLAIN, "%s, in %s", when, left);
}

static void print_place(luna_page *page, const luna_job *job)
{
    const bool pending = strcmp(job->state, "pending") == 0;
    luna_page_field(page, "priority", LUNA_STYLE_PLAIN, "%llu%s",
                    (unsigned long long)job->priority,
                    pending && job->next ? ", goes before all others" : "");
    if (pending)
        luna_page_field(page, "ahead", LUNA_STYLE_PLAIN, "%llu",
                        (unsigned long long)job->position);
}

static void print_outcome(luna_page *page, const luna_job *job)
{
    field(page, "job", job->id);
    luna_page_field(page, "state", luna_ctl_state_style(job->state), "%s", job->state);
    field(page, "error", job->error);
    field(page, "detail", job->detail);
    luna_page_field(page, "images", LUNA_STYLE_PLAIN, "%llu of %llu",
                    (unsigned long long)job->images_done,
                    (unsigned long long)job->images);
    luna_page_field(page, "attempts", LUNA_STYLE_PLAIN, "%llu (%llu lost, %llu refused)",
                    (unsigned long long)job->attempts, (unsigned long long)job->lost,
                    (unsigned long long)job->refused);
}

//  What was asked for, and what it turned out to be.
static void print_vae(luna_page *page, const luna_job *job)
{
    field(page, "vae", job->vae);
    if (strcmp(job->vae, job->vae_name) != 0) field(page, "decoded with", job->vae_name);
    field(page, "vae file", job->vae_path);
    field(page, "vae sha256", job->vae_sha256);
}

static luna_err print_job(const luna_job *job)
{
    char bytes[LUNA_AMOUNT_BYTES];
    luna_page page = luna_page_on(stdout);
    luna_bytes_text(job->bytes, bytes);
    print_outcome(&page, job);
    field(&page, "payload", bytes);
    print_place(&page, job);
    print_vae(&page, job);
    field(&page, "decoder", job->decoder);
    field_time(&page, "created", job->created_ms);
    field_time(&page, "accepted", job->accepted_ms);
    field_time(&page, "started", job->started_ms);
    field_time(&page, "finished", job->finished_ms);
    print_deadline(&page, job);
    return print_files(&page, job);
}

luna_err luna_ctl_show(luna_ctl *ctl)
{
    char id[LUNA_JOB_ID_BYTES];
    luna_answer *answer;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_job_id(ctl, ctl->words[1], id));
    LUNA_TRY(luna_ctl_rc(luna_query_job(ctl->client, id, LUNA_CTL_WAIT_MS, &answer)));
    const luna_err err = ctl->json
                             ? luna_ctl_print_json(luna_ctl_json_job(&answer->jobs[0]))
                             : print_job(&answer->jobs[0]);
    luna_answer_free(&answer);
    return err;
}
