//  top.h - what top shows: the broker's answers, and how they become a page

#ifndef LUNA_LUNACTL_TOP_H
#define LUNA_LUNACTL_TOP_H

#include "producer/lunactl/lunactl.h"

#define LUNA_TOP_SAMPLES 16
#define LUNA_TOP_JOBS    200  //  running and waiting jobs each that are asked for

//  Counters at one time, for the rates.
typedef struct luna_top_sample {
    int64_t time_ms;  //  monotonic
    uint64_t completed, images;
} luna_top_sample;

typedef struct luna_top_data {
    luna_answer *status, *decoders, *running, *waiting;  //  NULL before the first answer
    const luna_job **jobs;  //  running ones by their start, waiting ones by their turn
    size_t job_count;
    char problem[256];  //  why the latest questions have no answer; "" when they do
    luna_top_sample samples[LUNA_TOP_SAMPLES];  //  oldest first
    size_t sample_count;
    double jobs_per_second, images_per_second;  //  negative: not known yet
} luna_top_data;

//  Asks everything anew. On an error the former answers stay and `problem` says why.
LUNA_MUST_USE luna_err luna_top_ask(luna_ctl *ctl, luna_top_data *data);
void luna_top_free(luna_top_data *data);

//  Takes the counters of the latest status into the rates, at `now_ms`.
void luna_top_rate(luna_top_data *data, int64_t now_ms);

//  Writes everything known as lines; `rows` is how many there is room for, 0: any number.
LUNA_MUST_USE luna_err luna_top_print(const luna_top_data *data, luna_page *page,
                                      size_t rows, const char *endpoint);
json_t *luna_top_json(const luna_top_data *data);

#endif
