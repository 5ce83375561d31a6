//  Following a job: a path for each saved file on stdout, a bar on stderr when somebody
//  looks at it; or with --json the job, a line whenever it changes.

#include "producer/lunactl/lunactl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_WIDTH  30
#define CLEAR_LINE "\r\033[K"

typedef struct follower {
    bool json;
    bool bar;      //  stderr is a terminal
    luna_err err;  //  of writing
} follower;

static void draw_bar(const luna_job *job)
{
    char bar[BAR_WIDTH + 3];
    luna_bar_text(job->images_done, job->images, BAR_WIDTH, bar);
    fprintf(stderr, CLEAR_LINE "%s %llu/%llu ", bar, (unsigned long long)job->images_done,
            (unsigned long long)job->images);
    if (strcmp(job->state, "pending") == 0)
        fprintf(stderr, "waiting, %llu ahead", (unsigned long long)job->position);
    fflush(stderr);
}

static bool has_ended(const luna_job *job)
{
    return strcmp(job->state, "pending") != 0 && strcmp(job->state, "in_progress") != 0;
}

static json_t *image_line(const luna_job *job, const luna_image *image)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:o}",                  //
                     "kind", "image",                              //
                     "id", job->id,                                //
                     "images", (json_int_t)job->images,            //
                     "images_done", (json_int_t)job->images_done,  //
                     "file", luna_ctl_json_image(image));
}

//  Its files have had their lines; at its end it holds them all.
static json_t *job_line(const luna_job *job)
{
    luna_job line = *job;
    if (!has_ended(job)) line.file_count = 0;
    json_t *out = json_pack("{s:s}", "kind", "job");
    json_object_update_new(out, luna_ctl_json_job(&line));
    return out;
}

static void print_path(const luna_image *image)
{
    luna_page page = luna_page_on(stdout);
    luna_page_put(&page, LUNA_STYLE_PLAIN, image->path);
    luna_page_end(&page);
    fflush(stdout);
}

static void note_progress(void *context, const luna_job *job, const luna_image *image)
{
    follower *self = context;
    if (self->bar) fprintf(stderr, CLEAR_LINE);
    if (self->json && self->err == LUNA_OK)
        self->err =
            luna_ctl_print_json_line(image ? image_line(job, image) : job_line(job));
    else if (image && !self->json)
        print_path(image);
    if (self->bar) draw_bar(job);
}

luna_err luna_ctl_follow(luna_ctl *ctl, const char *job_id)
{
    follower self = {.json = ctl->json != 0, .bar = isatty(STDERR_FILENO)};
    const int rc = luna_wait_job(ctl->client, job_id, -1, note_progress, &self);
    char sentence[1024];
    snprintf(sentence, sizeof sentence, "%s", luna_last_error());
    if (self.bar) fprintf(stderr, CLEAR_LINE);
    LUNA_TRY(self.err);
    return rc == LUNA_RC_OK ? LUNA_OK : luna_error((luna_err)rc, "%s", sentence);
}

luna_err luna_ctl_wait(luna_ctl *ctl)
{
    char id[LUNA_JOB_ID_BYTES];
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_job_id(ctl, ctl->words[1], id));
    return luna_ctl_follow(ctl, id);
}
