//  lunactl.h - the command-line client; shared by the files of this folder only
//
//  One process runs one command: the command line is read into a luna_ctl by the tables
//  of flags (flags.h), then the command's function does its work through luna.h only.
//  Results go to stdout: for people as text (page.h), with --json as one document, or as
//  one object a line where a command reports for a while. Errors go to stderr, a line
//  each; the exit code is the error's sysexits code.

#ifndef LUNA_LUNACTL_H
#define LUNA_LUNACTL_H

#include "common/err.h"
#include "producer/luna/luna.h"
#include "producer/lunactl/page.h"

#include <jansson.h>
#include <stdint.h>

#define LUNA_CTL_WORDS   4096   //  a command and its ids
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

    //  jobs, retry, top
    const char *state;
    uint64_t limit;
    int32_t failed;
    int32_t once;

    //  submit, drain
    luna_submission job;
    const char *latents[LUNA_INPUTS_MAX];  //  FILE[:TENSOR] of each input
    const char *prompt_file;
    const char *workflow_file;
    const char *metadata_file;
    int32_t wait;

    luna_client *client;  //  once connected
    luna_answer *known;   //  the jobs that shortened ids were looked for in
    bool told;            //  the error has been printed
} luna_ctl;

//  The whole program; returns its exit code.
int luna_ctl_main(int argc, char **argv);

//  Connects and waits for the broker's welcome. LUNA_UNAVAILABLE.
LUNA_MUST_USE luna_err luna_ctl_connect(luna_ctl *ctl);

//  The commands. Each returns the error its exit code stands for.
luna_err luna_ctl_submit(luna_ctl *ctl);
luna_err luna_ctl_status(luna_ctl *ctl);
luna_err luna_ctl_jobs(luna_ctl *ctl);
luna_err luna_ctl_show(luna_ctl *ctl);
luna_err luna_ctl_wait(luna_ctl *ctl);
luna_err luna_ctl_cancel(luna_ctl *ctl);
luna_err luna_ctl_retry(luna_ctl *ctl);
luna_err luna_ctl_priority(luna_ctl *ctl);
luna_err luna_ctl_next(luna_ctl *ctl);
luna_err luna_ctl_decoders(luna_ctl *ctl);
luna_err luna_ctl_pause(luna_ctl *ctl);
luna_err luna_ctl_resume(luna_ctl *ctl);
luna_err luna_ctl_drain(luna_ctl *ctl);
luna_err luna_ctl_key(luna_ctl *ctl);
luna_err luna_ctl_metrics(luna_ctl *ctl);
luna_err luna_ctl_top(luna_ctl *ctl);

//  Waits for a job's end; prints the path of each saved file, or with --json the job as
//  it changes.
LUNA_MUST_USE luna_err luna_ctl_follow(luna_ctl *ctl, const char *job_id);

//  Notes an error of the library as one of ours.
luna_err luna_ctl_rc(int rc);

//  Prints the latest error now, as one line to stderr; `id` may be NULL. For commands
//  that go on after an error: they return the first one.
void luna_ctl_complain(luna_ctl *ctl, luna_err err, const char *id);

//  ---- ids.c -----------------------------------------------------------------------

//  The job a word means: a whole id, or at least 8 characters of its beginning or its
//  end, if they fit only one of the broker's jobs. To be called when connected.
//  LUNA_USAGE for what is no part of an id or fits several, which it lists;
//  LUNA_NOT_FOUND.
LUNA_MUST_USE luna_err luna_ctl_job_id(luna_ctl *ctl, const char *word,
                                       char id[LUNA_JOB_ID_BYTES]);

//  An id as it is shown on lines of that width (0: unlimited): whole if there is room.
const char *luna_ctl_shown_id(const char *id, size_t width);

//  ---- json.c ----------------------------------------------------------------------

//  Prints a value as a document, or as one line that is written at once, and frees it.
//  LUNA_NO_MEMORY for NULL, LUNA_IO.
LUNA_MUST_USE luna_err luna_ctl_print_json(json_t *value);
LUNA_MUST_USE luna_err luna_ctl_print_json_line(json_t *value);

//  The wire's words are the keys. NULL without memory.
json_t *luna_ctl_json_status(const luna_status *status);
json_t *luna_ctl_json_job(const luna_job *job);
json_t *luna_ctl_json_image(const luna_image *image);
json_t *luna_ctl_json_jobs(const luna_answer *answer);
json_t *luna_ctl_json_decoders(const luna_answer *answer);
json_t *luna_ctl_json_error(luna_err err, const char *id);

//  ---- words.c: how jobs, decoders and the broker are shown to people ----------------

//  Of the state of a job or a decoder.
luna_style luna_ctl_state_style(const char *state);

//  How long a job has been in its state, "3m05s"; "" when that is not known.
void luna_ctl_job_age(const luna_job *job, char out[LUNA_AMOUNT_BYTES]);

//  Its priority, or "next" while it waits before all others.
void luna_ctl_job_turn(const luna_job *job, char out[LUNA_AMOUNT_BYTES]);

//  The last part of a path; a name as it is.
const char *luna_ctl_vae_name(const char *vae);

//  "3 jobs", "1 decoder".
void luna_ctl_count(uint64_t count, const char *what, char out[LUNA_AMOUNT_BYTES]);

//  Whether the broker takes jobs, or why it does not; whether it is paused; its alarm.
void luna_ctl_print_health(luna_page *page, const luna_status *status);

#endif
