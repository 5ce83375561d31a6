#include "decoder/sink/sweep.h"

#include "common/clock.h"
#include "decoder/sink/publish.h"
#include "decoder/sink/scan.h"

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
} sweep;

static bool read_folder(int dir, const char *mark, char folder[LUNA_SINK_PATH_BYTES])
{
    const int fd = openat(dir, mark, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t len = read(fd, folder, LUNA_SINK_PATH_BYTES - 1);
    close(fd);
    if (len < 0) return false;
    folder[len] = '\0';
    return len == 0 || luna_place_is_plain(folder);
}

//  "<input>-<index>." at the beginning of a mark's name.
static bool read_key(const char *name, luna_image_key *key)
{
    char *end;
    if (name[0] < '0' || name[0] > '9') return false;
    key->input = strtoull(name, &end, 10);
    if (*end != '-' || end[1] < '0' || end[1] > '9') return false;
    key->index = strtoull(end + 1, &end, 10);
    return *end == '.';
}

//  True when the mark's temporaries are gone, so that the mark may go too.
static bool sweep_marked(const sweep *s, int side, const char *mark)
{
    luna_image_key key = {.job = s->job};
    luna_place place = {.root = s->root};
    char prefix[LUNA_NAME_PART_BYTES];
    int dir;
    if (!read_key(mark, &key) || !read_folder(side, mark, place.folder)) return true;
    const luna_err err = luna_place_open(&place, NULL, &dir);
    if (err != LUNA_OK) return err == LUNA_NOT_FOUND;
    luna_publish_prefix(&key, prefix);
    const bool done = luna_scan_remove(dir, prefix, s->before_ms) == LUNA_OK;
    close(dir);
    return done;
}

//  An image that is published needs no temporaries, however young they are: its job has
//  ended or will find the record.
static void tidy_published(const sweep *s, const char *mark)
{
    luna_image_key key = {.job = s->job};
    luna_image_record record;
    bool found;
    if (!read_key(mark, &key)) return;
    if (luna_publish_find(s->files, &key, &record, &found) != LUNA_OK) return;
}

static void sweep_file(void *arg, int side, const char *name)
{
    const sweep *s = arg;
    const size_t len = strlen(name), end = strlen(LUNA_MARK_END);
    const bool mark = len > end && strcmp(name + len - end, LUNA_MARK_END) == 0;
    if (luna_scan_written_ms(side, name) >= s->before_ms) {
        if (mark) tidy_published(s, name);
        return;
    }
    if (!mark || sweep_marked(s, side, name)) unlinkat(side, name, 0);
}

static void sweep_job(void *arg, int hidden, const char *name)
{
    sweep *s = arg;
    if (luna_id_parse(name, &s->job) != LUNA_OK) return;
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

static luna_err sweep_root(sweep *s)
{
    const luna_place place = {.root = s->root, .folder = LUNA_PLACE_HIDDEN};
    int hidden;
    luna_err err = luna_place_open(&place, NULL, &hidden);
    if (err == LUNA_NOT_FOUND) return LUNA_OK;
    if (err != LUNA_OK) return err;
    err = luna_scan_each(hidden, sweep_job, s);
    close(hidden);
    return err;
}

luna_err luna_sweep(const luna_files *files, int64_t older_than_ms)
{
    const int64_t now = luna_wall_ms();
    const int64_t age = older_than_ms < 0 ? 0 : older_than_ms;
    for (size_t i = 0; i < files->roots.count; i++) {
        sweep s = {.files = files, .root = files->roots.path[i], .before_ms = now - age};
        LUNA_TRY(sweep_root(&s));
    }
    return LUNA_OK;
}
