//  metrics.c - what has happened, for /metrics
//
//  Names follow Prometheus' conventions: base units, counters end in _total.

#include "broker/loop.h"
#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

//  ---- what is timed ---------------------------------------------------------------

void luna_metrics_dispatched(luna_broker *b, const luna_job *job)
{
    b->tally.attempts++;
    if (job->attempts > 1) return;
    luna_histogram_add_ms(&b->tally.wait, (double)(luna_wall_ms() - job->accepted_ms));
}

void luna_metrics_ended(luna_broker *b, const luna_job *job, luna_job_state state,
                        uint64_t finished_ms)
{
    b->tally.ended[state]++;
    if (state != LUNA_JOB_COMPLETED) return;
    const double end_ms = (double)finished_ms;
    luna_histogram_add_ms(&b->tally.run, end_ms - (double)job->started_ms);
    luna_histogram_add_ms(&b->tally.total, end_ms - (double)job->accepted_ms);
}

void luna_metrics_images(luna_broker *b, const luna_msg_image *images, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        b->tally.images++;
        b->tally.image_bytes += images[i].bytes;
        luna_histogram_add_ms(&b->tally.decode, images[i].decode_ms);
        luna_histogram_add_ms(&b->tally.encode, images[i].encode_ms);
        luna_histogram_add_ms(&b->tally.write, images[i].write_ms);
    }
}

void luna_metrics_store(luna_broker *b, const luna_task *task)
{
    const double ms = (double)(luna_now_ns() - task->submitted_ns) / 1e6;
    luna_histogram_add_ms(&b->tally.store[task->op.kind], ms);
    if (task->op.err == LUNA_IO || task->op.err == LUNA_NO_SPACE)
        b->tally.store_failures++;
}

//  ---- the page --------------------------------------------------------------------

static void counter(luna_page *page, const char *name, const char *help, uint64_t value)
{
    luna_page_family(page, name, "counter", help);
    luna_page_value(page, "", (double)value);
}

static void gauge(luna_page *page, const char *name, const char *help, double value)
{
    luna_page_family(page, name, "gauge", help);
    luna_page_value(page, "", value);
}

static void histogram(luna_page *page, const char *name, const char *help,
                      const luna_histogram *values)
{
    luna_page_family(page, name, "histogram", help);
    luna_page_histogram(page, "", values);
}

static void write_queue(luna_broker *b, luna_page *page)
{
    char labels[64];
    const luna_depth depth = luna_scheduler_depth(b->scheduler);
    luna_page_family(page, "luna_jobs_pending", "gauge", "Waiting jobs by priority.");
    for (uint64_t p = 0; p <= LUNA_PRIORITY_MAX; p++) {
        const uint64_t above =
            p < LUNA_PRIORITY_MAX ? luna_scheduler_backlog(b->scheduler, p + 1) : 0;
        snprintf(labels, sizeof labels, "priority=\"%llu\"", (unsigned long long)p);
        luna_page_value(page, labels,
                        (double)(luna_scheduler_backlog(b->scheduler, p) - above));
    }
    gauge(page, "luna_jobs_in_progress", "Jobs in decoders' hands.",
          (double)depth.in_progress);
    gauge(page, "luna_jobs_storing", "Jobs on their way to the disk.",
          (double)depth.storing);
    gauge(page, "luna_queued_bytes", "Payloads of all active jobs.", (double)depth.bytes);
    const int64_t oldest_ms = luna_scheduler_oldest(b->scheduler);
    gauge(page, "luna_oldest_pending_seconds", "Age of the oldest waiting job.",
          oldest_ms ? (double)(luna_wall_ms() - oldest_ms) / 1000 : 0);
    gauge(page, "luna_held_bytes", "Memory of jobs on their way to the disk.",
          (double)b->held_bytes);
}

static void write_condition(luna_broker *b, luna_page *page)
{
    const bool accepting = strcmp(luna_credit_accepting(b), "yes") == 0;
    gauge(page, "luna_accepting", "1 while jobs are accepted.", accepting);
    gauge(page, "luna_paused", "1 while no attempt is started.",
          luna_scheduler_paused(b->scheduler));
    gauge(page, "luna_alarm", "1 while something needs a person.", b->alarm[0] != '\0');
    gauge(page, "luna_spool_free_bytes", "Free bytes of the spool's disk.",
          (double)b->free_bytes);
    gauge(page, "luna_blocked_clients", "Clients that were told busy and wait.",
          (double)b->blocked_count);
    gauge(page, "luna_uptime_seconds", "Since the broker's start.",
          (double)(luna_now_ms() - b->started_ms) / 1000);
}

static void write_ended(const luna_tally *t, luna_page *page)
{
    char labels[64];
    luna_page_family(page, "luna_jobs_ended_total", "counter", "Ended jobs by state.");
    for (int i = 0; i < LUNA_JOB_STATES; i++) {
        if (luna_job_state_is_active((luna_job_state)i)) continue;
        snprintf(labels, sizeof labels, "state=\"%s\"",
                 luna_job_state_name((luna_job_state)i));
        luna_page_value(page, labels, (double)t->ended[i]);
    }
}

static void write_counts(const luna_tally *t, luna_page *page)
{
    counter(page, "luna_jobs_accepted_total", "Jobs made durable.", t->accepted);
    counter(page, "luna_accepted_bytes_total", "Their payloads.", t->accepted_bytes);
    counter(page, "luna_duplicates_total", "Jobs sent again under a known id.",
            t->duplicates);
    counter(page, "luna_busy_total", "Jobs and offers answered busy.", t->busy);
    counter(page, "luna_refused_total", "Jobs and offers refused for good.", t->refused);
    counter(page, "luna_offers_total", "Jobs offered before they were sent.", t->offers);
    counter(page, "luna_attempts_total", "Attempts sent to decoders.", t->attempts);
    counter(page, "luna_attempts_requeued_total", "Attempts given back.", t->requeued);
    counter(page, "luna_attempts_lost_total", "Attempts whose decoder died or hung.",
            t->lost);
    counter(page, "luna_attempts_declined_total", "Attempts answered with failed.",
            t->declined);
    counter(page, "luna_jobs_retried_total", "Failed jobs put back by order.",
            t->retried);
    counter(page, "luna_images_total", "Saved images.", t->images);
    counter(page, "luna_image_bytes_total", "Their files.", t->image_bytes);
    counter(page, "luna_bad_messages_total", "Messages that broke the wire's rules.",
            t->bad_messages);
    counter(page, "luna_store_failures_total", "Store operations that failed.",
            t->store_failures);
    write_ended(t, page);
}

static void write_times(const luna_tally *t, luna_page *page)
{
    static const char *const kinds[LUNA_STORE_KINDS] = {
        [LUNA_STORE_PUT] = "put",         [LUNA_STORE_ATTEMPT] = "attempt",
        [LUNA_STORE_IMAGES] = "images",   [LUNA_STORE_FINISH] = "finish",
        [LUNA_STORE_REQUEUE] = "requeue", [LUNA_STORE_RETRY] = "retry",
        [LUNA_STORE_GET] = "get",         [LUNA_STORE_LIST] = "list",
        [LUNA_STORE_COUNTS] = "counts",   [LUNA_STORE_FORGET] = "forget",
        [LUNA_STORE_PAUSE] = "pause",     [LUNA_STORE_PRIORITISE] = "prioritise"};
    char labels[64];
    histogram(page, "luna_accept_seconds", "From a received job to its receipt.",
              &t->accept);
    histogram(page, "luna_wait_seconds", "From acceptance to the first attempt.",
              &t->wait);
    histogram(page, "luna_run_seconds", "From the last attempt to completion.", &t->run);
    histogram(page, "luna_job_seconds", "From acceptance to completion.", &t->total);
    histogram(page, "luna_image_decode_seconds", "Decoding of an image.", &t->decode);
    histogram(page, "luna_image_encode_seconds", "Encoding of an image.", &t->encode);
    histogram(page, "luna_image_write_seconds", "Writing of an image.", &t->write);
    luna_page_family(page, "luna_store_seconds", "histogram",
                     "Operations of the store, by kind.");
    for (size_t i = 0; i < LUNA_STORE_KINDS; i++) {
        snprintf(labels, sizeof labels, "kind=\"%s\"", kinds[i]);
        luna_page_histogram(page, labels, &t->store[i]);
    }
}

//  ---- decoders --------------------------------------------------------------------

typedef double decoder_value(const luna_msg_decoder_info *info);

static double running(const luna_msg_decoder_info *info)
{
    return (double)info->running;
}

static double credit(const luna_msg_decoder_info *info)
{
    return (double)info->credit_jobs;
}

static double images_done(const luna_msg_decoder_info *info)
{
    return (double)info->images_done;
}

static double jobs_done(const luna_msg_decoder_info *info)
{
    return (double)info->jobs_done;
}

static double jobs_failed(const luna_msg_decoder_info *info)
{
    return (double)info->jobs_failed;
}

static double seen(const luna_msg_decoder_info *info)
{
    return (double)info->seen_ms / 1000;
}

static void write_decoders(const luna_broker *b, luna_page *page)
{
    static const struct {
        const char *name, *type, *help;
        decoder_value *value;
    } rows[] = {
        {"luna_decoder_running", "gauge", "Jobs it holds.", running},
        {"luna_decoder_credit", "gauge", "Jobs it would hold.", credit},
        {"luna_decoder_images_total", "counter", "Images it saved.", images_done},
        {"luna_decoder_jobs_total", "counter", "Jobs it completed.", jobs_done},
        {"luna_decoder_failed_total", "counter", "Attempts it failed.", jobs_failed},
        {"luna_decoder_silent_seconds", "gauge", "Since its last message.", seen},
    };
    luna_msg_decoder_info *infos;
    const size_t count = luna_info_decoders(b, &infos);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        luna_page_family(page, rows[r].name, rows[r].type, rows[r].help);
        for (size_t i = 0; i < count; i++) {
            char name[LUNA_DECODER_BYTES], state[16], text[2 * LUNA_DECODER_BYTES];
            char labels[3 * LUNA_DECODER_BYTES];
            luna_text_copy(infos[i].name, name, sizeof name);
            luna_text_copy(infos[i].state, state, sizeof state);
            luna_page_label(text, sizeof text, "decoder", name);
            snprintf(labels, sizeof labels, "%s,state=\"%s\"", text, state);
            luna_page_value(page, labels, rows[r].value(&infos[i]));
        }
    }
    free(infos);
}

//  Resident pages, the second number of /proc/self/statm.
static double resident_bytes(void)
{
    unsigned long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    const int read = fscanf(file, "%lu %lu", &all, &resident);
    fclose(file);
    return read == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : 0;
}

void luna_metrics_page(luna_broker *b, luna_page *page)
{
    luna_page_family(page, "luna_build_info", "gauge", "The version that runs.");
    luna_page_value(page, "version=\"" LUNA_VERSION "\"", 1);
    write_queue(b, page);
    write_condition(b, page);
    write_counts(&b->tally, page);
    write_times(&b->tally, page);
    write_decoders(b, page);
    gauge(page, "process_resident_memory_bytes", "Resident memory of the broker.",
          resident_bytes());
}
