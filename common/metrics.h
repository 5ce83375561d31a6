//  metrics.h - histograms of durations, and a page of metrics in Prometheus' text format
//
//  Plain data for one thread. A page is built in one go:
//
//      luna_page page = {0};
//      luna_page_family(&page, "luna_jobs", "gauge", "Active jobs by state.");
//      luna_page_value(&page, "state=\"pending\"", 3);
//      if (!page.failed) send(page.data, page.len);
//      luna_page_free(&page);
//
//  Format: https://prometheus.io/docs/instrumenting/exposition_formats/

#ifndef LUNA_COMMON_METRICS_H
#define LUNA_COMMON_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  ---- histograms ------------------------------------------------------------------

#define LUNA_HISTOGRAM_BUCKETS 22  //  0.1 ms to 1000 s in steps of 1, 2, 5

typedef struct luna_histogram {
    uint64_t count;
    double sum_s;
    uint64_t bucket[LUNA_HISTOGRAM_BUCKETS];  //  each alone, not cumulative
} luna_histogram;

//  Counts one duration; a negative one (a clock that stepped) counts as 0.
void luna_histogram_add_ms(luna_histogram *histogram, double ms);

//  ---- pages -----------------------------------------------------------------------

typedef struct luna_page {
    char *data;   //  NUL-terminated; NULL while nothing was written
    size_t len;   //  without the NUL
    size_t room;  //  bytes allocated
    const char *family;
    bool failed;  //  memory was short: the page is not complete
} luna_page;

//  Begins a metric: `type` is "counter", "gauge" or "histogram". Borrows `name` until
//  the next family. Counters end in _total by convention.
void luna_page_family(luna_page *page, const char *name, const char *type,
                      const char *help);

//  One sample of the family. `labels` as they stand between the braces ("" for none),
//  each value made with luna_page_label when it is not a constant.
void luna_page_value(luna_page *page, const char *labels, double value);

//  All samples of a histogram.
void luna_page_histogram(luna_page *page, const char *labels,
                         const luna_histogram *histogram);

//  KEY="VALUE" with what must be escaped escaped; a value that does not fit is cut.
void luna_page_label(char *out, size_t room, const char *key, const char *value);

void luna_page_free(luna_page *page);

#endif
