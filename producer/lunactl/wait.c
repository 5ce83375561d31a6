//  Following a job: a path for each saved file on stdout, a bar on stderr when somebody
//  looks at it.

#include "producer/lunactl/lunactl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_WIDTH  30
#define CLEAR_LINE "\r\033[K"

typedef struct follower {
    bool paths;  //  print them
    bool bar;    //  stderr is a terminal
} follower;

static void draw_bar(const luna_job *job)
{
    char bar[BAR_WIDTH + 1];
    const uint64_t filled = job->images ? job->images_done * BAR_WIDTH / job->images : 0;
    for (uint64_t i = 0; i < BAR_WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, CLEAR_LINE "[%s] %llu/%llu ", bar,
            (unsigned long long)job->images_done, (unsigned long long)job->images);
    if (strcmp(job->state, "pending") == 0)
        fprintf(stderr, "waiting, %llu ahead", (unsigned long long)job->position);
    fflush(stderr);
}

static void note_progress(void *context, const luna_job *job, const luna_image *image)
{
    const follower *self = context;
    if (image && self->paths) {
        if (self->bar) fprintf(stderr, CLEAR_LINE);
        luna_ctl_put(image->path);
        putchar('\n');
        fflush(stdout);
    }
    if (self->bar) draw_bar(job);
}

static luna_err print_end(luna_ctl *ctl, const char *job_id)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_rc(luna_query_job(ctl->client, job_id, LUNA_CTL_WAIT_MS, &answer)));
    const luna_err err = luna_ctl_print_json(luna_ctl_json_job(&answer->jobs[0]));
    luna_answer_free(&answer);
    return err;
}

luna_err luna_ctl_follow(luna_ctl *ctl, const char *job_id)
{
    follower self = {.paths = !ctl->json, .bar = isatty(STDERR_FILENO)};
    const int rc = luna_wait_job(ctl->client, job_id, -1, note_progress, &self);
    char sentence[1024];
    snprintf(sentence, sizeof sentence, "%s", luna_last_error());
    if (self.bar) fprintf(stderr, CLEAR_LINE);
    if (ctl->json && rc != LUNA_RC_NOT_FOUND) LUNA_TRY(print_end(ctl, job_id));
    return rc == LUNA_RC_OK ? LUNA_OK : luna_error((luna_err)rc, "%s", sentence);
}

luna_err luna_ctl_wait(luna_ctl *ctl)
{
    LUNA_TRY(luna_ctl_connect(ctl));
    return luna_ctl_follow(ctl, ctl->words[1]);
}
