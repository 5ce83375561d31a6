//  The page of top: the broker, its decoders, its jobs
//
//  On a terminal everything must fit: the tables are cut to the rows there are and say
//  how much they leave out, and narrow ones show short ids and less columns.

#include "producer/lunactl/top.h"

#include "common/clock.h"

#include <string.h>

#define WIDE           100  //  columns from which there is room for everything
#define DECODERS_LEAST 3    //  rows that decoders get on any screen
#define BAR_NARROW     10
#define BAR_WIDE       20
#define SENTENCE_BYTES 1024
#define SENTENCE_LINES 2

//  Where the page is to fit; rows 0: anywhere.
typedef struct frame {
    luna_page *page;
    size_t rows;
} frame;

//  Rows below what is written already.
static size_t rows_left(const frame *at)
{
    return at->rows > at->page->lines ? at->rows - at->page->lines : 0;
}

static bool is_wide(const luna_page *page)
{
    return page->width == 0 || page->width >= WIDE;
}

//  ---- the broker --------------------------------------------------------------------

static void print_title(const luna_top_data *data, luna_page *page, const char *endpoint)
{
    const luna_status *status = data->status->status;
    char uptime[LUNA_AMOUNT_BYTES], now[LUNA_AMOUNT_BYTES];
    luna_duration_text(status->uptime_ms, uptime);
    luna_time_text((uint64_t)luna_wall_ms(), now);
    luna_page_print(page, LUNA_STYLE_HEAD, "Luna %s", status->version);
    luna_page_print(page, LUNA_STYLE_PLAIN, "  up %s  %s  ", uptime, now);
    luna_page_print(page, LUNA_STYLE_DIM, "%s", endpoint);
    luna_page_end(page);
}

static void print_health(const luna_top_data *data, luna_page *page)
{
    const luna_status *status = data->status->status;
    char text[SENTENCE_BYTES];
    if (data->problem[0]) {
        snprintf(text, sizeof text, "OLD, no answer: %s", data->problem);
        luna_page_wrap(page, LUNA_STYLE_BAD, text, SENTENCE_LINES);
    }
    if (status->alarm[0]) {
        snprintf(text, sizeof text, "ALARM: %s", status->alarm);
        luna_page_wrap(page, LUNA_STYLE_BAD, text, SENTENCE_LINES);
    }
    if (status->paused)
        luna_page_wrap(page, LUNA_STYLE_WARN, "PAUSED: no attempt is started", 1);
    if (strcmp(status->accepting, "yes") == 0) {
        luna_page_wrap(page, LUNA_STYLE_GOOD, "accepting jobs", 1);
    } else {
        snprintf(text, sizeof text, "accepting no jobs: %s", status->accepting);
        luna_page_wrap(page, LUNA_STYLE_BAD, text, SENTENCE_LINES);
    }
}

static void print_count(luna_page *page, uint64_t count, const char *what,
                        luna_style style)
{
    luna_page_print(page, count ? style : LUNA_STYLE_DIM, "  %llu %s",
                    (unsigned long long)count, what);
}

static void print_counts(const luna_status *status, luna_page *page)
{
    luna_page_put(page, LUNA_STYLE_HEAD, "jobs ");
    print_count(page, status->pending, "pending", LUNA_STYLE_PLAIN);
    print_count(page, status->in_progress, "in_progress", LUNA_STYLE_PLAIN);
    print_count(page, status->completed, "completed", LUNA_STYLE_PLAIN);
    print_count(page, status->failed, "failed", LUNA_STYLE_BAD);
    print_count(page, status->cancelled, "cancelled", LUNA_STYLE_PLAIN);
    luna_page_end(page);
}

static void print_queue(const luna_status *status, luna_page *page)
{
    char bytes[LUNA_AMOUNT_BYTES], age[LUNA_AMOUNT_BYTES], disk[LUNA_AMOUNT_BYTES];
    luna_bytes_text(status->queued_bytes, bytes);
    luna_duration_text(status->oldest_ms, age);
    luna_bytes_text(status->free_bytes, disk);
    luna_page_put(page, LUNA_STYLE_HEAD, "queue");
    luna_page_print(page, LUNA_STYLE_PLAIN, "  %s  oldest %s  free disk %s", bytes,
                    status->pending ? age : "-", disk);
    luna_page_end(page);
}

static void print_rate(luna_page *page, double rate, const char *what)
{
    if (rate < 0)
        luna_page_print(page, LUNA_STYLE_PLAIN, "  - %s", what);
    else
        luna_page_print(page, LUNA_STYLE_PLAIN, "  %.*f %s", rate < 10 ? 2 : 0, rate,
                        what);
}

static void print_rates(const luna_top_data *data, luna_page *page)
{
    luna_page_put(page, LUNA_STYLE_HEAD, "rate ");
    print_rate(page, data->jobs_per_second, "jobs/s");
    print_rate(page, data->images_per_second, "images/s");
    luna_page_print(page, LUNA_STYLE_PLAIN, "  %llu images since the start",
                    (unsigned long long)data->status->status->images);
    luna_page_end(page);
}

//  ---- decoders ----------------------------------------------------------------------

static const luna_column decoder_wide[] = {
    {.title = "DECODER", .most = 32},   {.title = "STATE"},
    {.title = "DEVICE", .most = 10},    {.title = "VAE", .most = 24},
    {.title = "RUNNING JOB"},           {.title = "JOBS", .right = true},
    {.title = "IMAGES", .right = true}, {.title = "SEEN", .right = true},
};
static const luna_column decoder_narrow[] = {
    {.title = "DECODER", .most = 14}, {.title = "STATE"},
    {.title = "DEVICE", .most = 6},   {.title = "VAE", .most = 15},
    {.title = "RUNNING JOB"},         {.title = "IMAGES", .right = true},
    {.title = "SEEN", .right = true},
};

//  Of the jobs a decoder holds, the one that is furthest; the others wait there.
static const char *running_job(const luna_top_data *data, const char *decoder)
{
    const luna_job *found = NULL;
    for (size_t i = 0; i < data->job_count; i++) {
        const luna_job *job = data->jobs[i];
        if (strcmp(job->state, "in_progress") != 0 || strcmp(job->decoder, decoder) != 0)
            continue;
        if (!found || job->images_done > found->images_done) found = job;
    }
    return found ? found->id : "";
}

static void add_decoder(const luna_top_data *data, luna_table *table,
                        const luna_decoder *decoder, size_t width)
{
    char seen[LUNA_AMOUNT_BYTES];
    luna_duration_short(decoder->seen_ms, seen);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", decoder->name);
    luna_table_cell(table, luna_ctl_state_style(decoder->state), "%s", decoder->state);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", decoder->device);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", luna_ctl_vae_name(decoder->vae));
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s",
                    luna_ctl_shown_id(running_job(data, decoder->name), width));
    if (width == 0 || width >= WIDE)
        luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu/%llu",
                        (unsigned long long)decoder->running,
                        (unsigned long long)decoder->credit_jobs);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)decoder->images_done);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", seen);
}

//  A third of the rows that are left, or less if there are fewer decoders.
static size_t decoders_shown(const frame *at, size_t count)
{
    const size_t third = rows_left(at) / 3;
    const size_t most = third > DECODERS_LEAST ? third : DECODERS_LEAST;
    return at->rows && count > most ? most : count;
}

static luna_err print_decoders(const luna_top_data *data, const frame *at)
{
    luna_page *page = at->page;
    const size_t count = data->decoders->decoder_count;
    const size_t shown = decoders_shown(at, count);
    char text[LUNA_AMOUNT_BYTES];
    luna_page_end(page);
    if (count == 0) {
        luna_page_put(page, LUNA_STYLE_WARN, "no decoder is connected");
        luna_page_end(page);
        return LUNA_OK;
    }
    luna_table *table =
        is_wide(page)
            ? luna_table_new(decoder_wide, sizeof decoder_wide / sizeof *decoder_wide)
            : luna_table_new(decoder_narrow,
                             sizeof decoder_narrow / sizeof *decoder_narrow);
    for (size_t i = 0; i < shown; i++)
        add_decoder(data, table, &data->decoders->decoders[i], page->width);
    const luna_err err = luna_table_print(table, page);
    luna_table_free(&table);
    if (shown < count) {
        luna_ctl_count(count - shown, "decoder", text);
        luna_page_print(page, LUNA_STYLE_DIM, "and %s more", text);
        luna_page_end(page);
    }
    return err;
}

//  ---- jobs --------------------------------------------------------------------------

static const luna_column job_columns[] = {
    {.title = "JOB"},
    {.title = "STATE"},
    {.title = "PRI", .right = true},
    {.title = "PROGRESS"},
    {.title = "IMAGES", .right = true},
    {.title = "AGE", .right = true},
    {.title = "DECODER", .most = 32},
    {.title = "VAE", .most = 24},
};

static void add_job(luna_table *table, const luna_job *job, const luna_page *page)
{
    char bar[BAR_WIDE + 3] = "", age[LUNA_AMOUNT_BYTES], turn[LUNA_AMOUNT_BYTES];
    luna_ctl_job_age(job, age);
    if (job->images_done || strcmp(job->state, "pending") != 0)
        luna_bar_text(job->images_done, job->images,
                      is_wide(page) ? BAR_WIDE : BAR_NARROW, bar);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s",
                    luna_ctl_shown_id(job->id, page->width));
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", job->state);
    luna_ctl_job_turn(job, turn);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", turn);
    luna_table_cell(table, LUNA_STYLE_GOOD, "%s", bar);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu/%llu",
                    (unsigned long long)job->images_done,
                    (unsigned long long)job->images);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", age);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", job->decoder);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", luna_ctl_vae_name(job->vae));
}

//  The status counts all jobs; the answers may hold fewer.
static uint64_t job_total(const luna_top_data *data, size_t known)
{
    const luna_status *status = data->status->status;
    const uint64_t total = status->pending + status->in_progress;
    return total > known ? total : known;
}

//  The broker lists the newest, which may not be the next.
static void print_left_out_jobs(const luna_top_data *data, luna_page *page,
                                uint64_t count)
{
    char text[LUNA_AMOUNT_BYTES];
    luna_ctl_count(count, "job", text);
    luna_page_print(page, LUNA_STYLE_DIM, "and %s more", text);
    if (data->waiting->job_count >= LUNA_TOP_JOBS)
        luna_page_print(page, LUNA_STYLE_DIM, "; of the waiting the newest %d are listed",
                        LUNA_TOP_JOBS);
    luna_page_end(page);
}

static luna_err print_jobs(const luna_top_data *data, const frame *at)
{
    luna_page *page = at->page;
    const size_t known = data->job_count;
    const uint64_t total = job_total(data, known);
    const size_t left = rows_left(at);
    const size_t rows = left > 3 ? left - 3 : 0;  //  a gap, the titles, what is left out
    const size_t shown = at->rows && known > rows ? rows : known;
    luna_page_end(page);
    if (total == 0) {
        luna_page_put(page, LUNA_STYLE_DIM, "no job is waiting or running");
        luna_page_end(page);
        return LUNA_OK;
    }
    luna_table *table =
        luna_table_new(job_columns, sizeof job_columns / sizeof job_columns[0]);
    for (size_t i = 0; i < shown; i++) add_job(table, data->jobs[i], page);
    const luna_err err = luna_table_print(table, page);
    luna_table_free(&table);
    if (shown < total) print_left_out_jobs(data, page, total - shown);
    return err;
}

luna_err luna_top_print(const luna_top_data *data, luna_page *page, size_t rows,
                        const char *endpoint)
{
    const frame at = {.page = page, .rows = rows};
    const luna_status *status = data->status->status;
    print_title(data, page, endpoint);
    print_health(data, page);
    print_counts(status, page);
    print_queue(status, page);
    print_rates(data, page);
    LUNA_TRY(print_decoders(data, &at));
    return print_jobs(data, &at);
}
