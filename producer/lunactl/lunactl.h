//  lunactl.h - the command-line client; shared by the files of this folder only
//
//  One process runs one command: the command line is read into a luna_ctl by the tables
//  of flags (flags.h), then the command's function does its work through luna.h only.
//  Results go to stdout, errors as one line to stderr; the exit code is the error's
//  sysexits code.

#ifndef LUNA_LUNACTL_H
#define LUNA_LUNACTL_H

#include "common/err.h"
#include "producer/luna/luna.h"

#include <jansson.h>
#include <stdint.h>

#define LUNA_CTL_WORDS   8
#define LUNA_CTL_WAIT_MS 3000   //  for the broker to answer
#define LUNA_CTL_TAKE_MS 60000  //  for the broker to accept a job

typedef struct luna_ctl {
    //  Every command.
    const char *broker;  //  NULL: the usual place
    int32_t json;
    int32_t help;
    int32_t version;
    const char *words[LUNA_CTL_WORDS];  //  what is no flag, the command first
    size_t word_count;

    //  jobs, retry
    const char *state;
    uint64_t limit;
    int32_t failed;

    //  submit
    luna_submission job;
    const char *latents[LUNA_INPUTS_MAX];  //  FILE[:TENSOR] of each input
    const char *prompt_file;
    const char *workflow_file;
    const char *metadata_file;
    int32_t wait;

    luna_client *client;  //  once connected
} luna_ctl;

//  The whole program; returns its exit code.
int luna_ctl_main(int argc, char **argv);

//  Connects and waits for the broker's welcome. LUNA_UNAVAILABLE.
LUNA_MUST_USE luna_err luna_ctl_connect(luna_ctl *ctl);

//  The commands. Each returns the error its exit code stands for.
luna_err luna_ctl_submit(luna_ctl *ctl);
luna_err luna_ctl_wait(luna_ctl *ctl);
luna_err luna_ctl_status(luna_ctl *ctl);
luna_err luna_ctl_jobs(luna_ctl *ctl);
luna_err luna_ctl_show(luna_ctl *ctl);
luna_err luna_ctl_decoders(luna_ctl *ctl);
luna_err luna_ctl_cancel(luna_ctl *ctl);
luna_err luna_ctl_retry(luna_ctl *ctl);

//  Waits for a job's end; prints the path of each saved file, or with --json the job.
LUNA_MUST_USE luna_err luna_ctl_follow(luna_ctl *ctl, const char *job_id);

//  Notes an error of the library as one of ours.
luna_err luna_ctl_rc(int rc);

//  ---- print.c ---------------------------------------------------------------------

//  Prints `text`, NULL as nothing, control characters as '?': names and sentences come
//  from other machines and must not move the cursor.
void luna_ctl_put(const char *text);

//  Prints a value and a newline, and frees it. LUNA_NO_MEMORY for NULL.
LUNA_MUST_USE luna_err luna_ctl_print_json(json_t *value);

json_t *luna_ctl_json_status(const luna_status *status);
json_t *luna_ctl_json_job(const luna_job *job);
json_t *luna_ctl_json_decoder(const luna_decoder *decoder);

#endif
