#include "decoder/sink/sweep.h"

#include "common/clock.h"
#include "decoder/sink/publish.h"
#include "decoder/sink/scan.h"
#include "decoder/sink/withdraw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct sweep {
    const luna_files *files;
    const char *root;
    int64_t before_ms;
    luna_id job;  //  whose folder is being swept
    luna_swept *swept;
} sweep;

//  True when the mark's temporaries are gone, so that the mark may go too.
static bool sweep_marked(const sweep *s, int side, const char *mark)
{
    luna_image_key key = {.job = s->job};
    luna_place place = {.root = s->root};
    char prefix[LUNA_NAME_PART_BYTES];
    luna_mark said;
    int dir;
    if (!luna_mark_key(mark, &key) || !luna_mark_read(side, mark, &said)) return true;
    memcpy(place.folder, said.folder, sizeof place.folder);
    const luna_err err = luna_place_open(&place, NULL, &dir);
    if (err != LUNA_OK) return err == LUNA_NOT_FOUND;
    luna_publish_prefix(&key, prefix);
    const bool done = luna_scan_remove(dir, prefix, s->before_ms) == LUNA_OK;
    close(dir);
    return done;
}

//  An image that is published needs no temporaries, however young they are: its job has
//  ended or will find the record. One that is not needs none of attempts that died.
static void tidy_young(const sweep *s, int side, const char *mark)
{
    luna_image_key key = {.job = s->job};
    luna_image_record record;
    luna_hold hold;
    bool found;
    if (!luna_mark_key(mark, &key)) return;
    //  Without the hold an attempt might publish it meanwhile.
    if (!luna_hold_alone(s->root, &key, &hold)) hold.fd = -1;
    const luna_err err = luna_publish_find(s->files, &key, &record, &found);
    if (err == LUNA_OK && !found && hold.fd >= 0)
        luna_withdraw(s->root, side, &key, &s->swept->removed);
    luna_hold_end(&hold);
}

static void sweep_file(void *arg, int side, const char *name)
{
    const sweep *s = arg;
    luna_image_key key;
    const bool mark = luna_mark_key(name, &key);
    if (luna_scan_written_ms(side, name) >= s->before_ms) {
        if (mark) tidy_young(s, side, name);
        return;
    }
    if (!mark || sweep_marked(s, side, name)) unlinkat(side, name, 0);
}

static void sweep_job(sweep *s, int hidden, const luna_id *job)
{
    char name[LUNA_ID_TEXT_BYTES];
    luna_id_text(job, name);
    s->job = *job;
    //  Asked before its files go, which makes it young: a put that has just made the
    //  folder must find it again.
    const bool old = luna_scan_written_ms(hidden, name) < s->before_ms;
    const int side =
        openat(hidden, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (side < 0) return;
    const luna_err err = luna_scan_each(side, sweep_file, s);
    close(side);
    if (err == LUNA_OK && old) unlinkat(hidden, name, AT_REMOVEDIR);
}

//  ---- one job after the other --------------------------------------------------------

typedef struct jobs {
    luna_id *ids;
    size_t count, room;
    bool failed;  //  no memory for more
} jobs;

static void note_job(void *arg, int hidden, const char *name)
{
    jobs *j = arg;
    luna_id id;
    (void)hidden;
    if (j->failed || luna_id_parse(name, &id) != LUNA_OK) return;
    if (j->count == j->room) {
        const size_t room = j->room ? 2 * j->room : 256;
        luna_id *ids = realloc(j->ids, room * sizeof *ids);
        j->failed = ids == NULL;
        if (j->failed) return;
        j->ids = ids;
        j->room = room;
    }
    j->ids[j->count++] = id;
}

static int by_age(const void *a, const void *b)
{
    return memcmp(b, a, sizeof(luna_id));
}

//  Ids begin with their time. The youngest jobs come first, where attempts died lately,
//  for half of the time there is; then the oldest, which have the most to give up.
static void sweep_jobs(sweep *s, int hidden, const jobs *j, int64_t until_ns)
{
    const int64_t half_ns = luna_now_ns() + (until_ns - luna_now_ns()) / 2;
    size_t young = 0, old = j->count;
    while (young < old && luna_now_ns() < half_ns) sweep_job(s, hidden, &j->ids[young++]);
    while (young < old && luna_now_ns() < until_ns) sweep_job(s, hidden, &j->ids[--old]);
    s->swept->passed_over += old - young;
}

static luna_err sweep_root(sweep *s, int64_t until_ns)
{
    const luna_place place = {.root = s->root, .folder = LUNA_PLACE_HIDDEN};
    jobs j = {0};
    int hidden;
    luna_err err = luna_place_open(&place, NULL, &hidden);
    if (err == LUNA_NOT_FOUND) return LUNA_OK;
    if (err != LUNA_OK) return err;
    err = luna_scan_each(hidden, note_job, &j);
    if (err == LUNA_OK && j.failed)
        err = luna_error(LUNA_NO_MEMORY, "no memory for the jobs of %.300s", s->root);
    if (j.count) qsort(j.ids, j.count, sizeof *j.ids, by_age);
    if (err == LUNA_OK) sweep_jobs(s, hidden, &j, until_ns);
    close(hidden);
    free(j.ids);
    return err;
}

luna_err luna_sweep(const luna_files *files, int64_t older_than_ms, int64_t most_ms,
                    luna_swept *swept)
{
    const int64_t now = luna_wall_ms(), start_ns = luna_now_ns();
    const int64_t age = older_than_ms < 0 ? 0 : older_than_ms;
    *swept = (luna_swept){0};
    for (size_t i = 0; i < files->roots.count; i++) {
        sweep s = {.files = files,
                   .root = files->roots.path[i],
                   .before_ms = now - age,
                   .swept = swept};
        const int64_t share_ms = most_ms * (int64_t)(i + 1) / (int64_t)files->roots.count;
        LUNA_TRY(sweep_root(&s, start_ns + share_ms * 1000000));
    }
    return LUNA_OK;
}
