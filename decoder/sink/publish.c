#define _GNU_SOURCE  //  fallocate, renameat2

#include "decoder/sink/publish.h"

#include "common/file.h"
#include "decoder/sink/scan.h"
#include "decoder/sink/sha256.h"
#include "decoder/sink/sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCANS  8   //  for an anchor whose other name is nowhere
#define ROUNDS 64  //  for names that other attempts change

//  One attempt at one image. Steps return LUNA_OK with `again` set when another
//  attempt finished the image under their hands.
typedef struct attempt {
    const luna_files *files;
    const luna_image *image;
    luna_image_record *record;
    luna_place place;
    luna_hold hold;
    int dir, side;  //  target folder, folder of the records
    ino_t inode;    //  of the anchor
    bool winner;    //  the anchor is this attempt's part
    bool others;    //  more than this attempt's files may lie about
    bool again;
    bool by_link;  //  the file system cannot rename without replacing
    char folder[LUNA_SINK_PATH_BYTES];  //  the target folder, for errors
    char prefix[LUNA_NAME_PART_BYTES];
    char anchor[LUNA_NAME_PART_BYTES];
    char part[LUNA_NAME_PART_BYTES];  //  this attempt's, later the token; "" for none
    char mark[LUNA_RECORD_NAME_BYTES];
    char final[LUNA_NAME_PART_BYTES];
} attempt;

static bool step(const attempt *a, const char *name)
{
    return luna_step(&a->files->fault, name);
}

void luna_publish_prefix(const luna_image_key *key, char out[LUNA_NAME_PART_BYTES])
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&key->job, id);
    snprintf(out, LUNA_NAME_PART_BYTES, ".luna-%s-%" PRIu64 "-%" PRIu64 ".", id,
             key->input, key->index);
}

static luna_err name_part(attempt *a)
{
    char suffix[LUNA_SUFFIX_BYTES];
    LUNA_TRY(luna_random_suffix("part", suffix));
    //  The prefix ends with the dot that the suffix begins with.
    snprintf(a->part, sizeof a->part, "%.*s%s", LUNA_NAME_PART_BYTES - LUNA_SUFFIX_BYTES,
             a->prefix, suffix + 1);
    return LUNA_OK;
}

//  ---- step 1 ---------------------------------------------------------------------

//  Removes every temporary of an image that has a record, then every mark of it, which
//  stand for the temporaries. A live attempt may have made its part behind the first
//  scan; it then looks for its mark, and finds none or is before the second scan.
static void remove_all(int dir, int side, const luna_image_key *key)
{
    char prefix[LUNA_NAME_PART_BYTES], marks[LUNA_RECORD_NAME_BYTES];
    luna_publish_prefix(key, prefix);
    luna_record_name(key, ".", marks);
    if (luna_scan_remove(dir, prefix, INT64_MAX) != LUNA_OK) return;
    if (luna_scan_remove(side, marks, INT64_MAX) != LUNA_OK) return;
    if (luna_scan_remove(dir, prefix, INT64_MAX) != LUNA_OK) return;
}

//  The same after an attempt that died, or that another one overtook.
static void tidy(const luna_files *files, const char *root,
                 const luna_image_record *record)
{
    char marks[LUNA_RECORD_NAME_BYTES];
    luna_place place, side_place;
    int dir, side;
    bool left;
    luna_record_place(root, &record->key.job, &side_place);
    if (luna_place_open(&side_place, NULL, &side) != LUNA_OK) return;
    luna_record_name(&record->key, ".", marks);
    if (luna_scan_has(side, marks, "", &left) == LUNA_OK && left &&
        luna_step(&files->fault, "tidy")) {
        luna_record_folder(root, record, &place);
        if (luna_place_open(&place, NULL, &dir) == LUNA_OK) {
            remove_all(dir, side, &record->key);
            close(dir);
        }
    }
    close(side);
}

luna_err luna_publish_find(const luna_files *files, const luna_image_key *key,
                           luna_image_record *record, bool *found)
{
    *found = false;
    for (size_t i = 0; i < files->roots.count && !*found; i++) {
        LUNA_TRY(luna_record_read(files->roots.path[i], key, record, found));
        if (*found) tidy(files, files->roots.path[i], record);
    }
    return LUNA_OK;
}

//  ---- steps 2 and 3 ----------------------------------------------------------------

static luna_err open_folders(attempt *a)
{
    luna_place side;
    LUNA_TRY(luna_place_find(&a->files->roots, a->image->output_dir,
                             a->image->name->folder, &a->place));
    LUNA_TRY(luna_path_join(a->folder, sizeof a->folder, a->place.root, a->place.folder));
    luna_record_place(a->place.root, &a->image->key.job, &side);
    if (!step(a, "open folders")) return luna_place_error("cannot make", a->folder);
    LUNA_TRY(luna_place_open(&a->place, &a->files->access, &a->dir));
    return luna_place_open(&side, &luna_access_plain, &a->side);
}

//  Every attempt has a mark of its own name: were it shared, another attempt could take
//  it away while this one still relies on it. It says what a sweep must know to find what
//  a dead attempt left.
static luna_err set_mark(attempt *a)
{
    char suffix[LUNA_SUFFIX_BYTES], text[LUNA_SINK_PATH_BYTES + LUNA_HOST_BYTES];
    LUNA_TRY(luna_random_suffix(&LUNA_MARK_END[1], suffix));
    luna_mark_text(a->place.folder, a->hold.fd >= 0, text);
    luna_record_name(&a->image->key, suffix, a->mark);
    const bool may = step(a, "create mark");
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    const int fd = may ? openat(a->side, a->mark, flags, 0666) : -1;
    if (fd < 0)
        return luna_place_error("cannot create a file in the records of", a->folder);
    const luna_err err = luna_write_all(fd, text, strlen(text), a->folder);
    close(fd);
    if (err != LUNA_OK) unlinkat(a->side, a->mark, 0);
    return err;
}

static luna_err fill_part(const attempt *a, int fd)
{
    const luna_image *image = a->image;
    LUNA_TRY(luna_access_set(&a->files->access, fd, false, a->folder));
    const bool reserved =
        step(a, "reserve") && fallocate(fd, 0, 0, (off_t)image->len) == 0;
    if (!reserved && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return luna_place_error("cannot write an image in", a->folder);
    if (!step(a, "write") ||
        luna_write_all(fd, image->data, image->len, a->folder) != LUNA_OK)
        return luna_place_error("cannot write an image in", a->folder);
    if (!step(a, "sync part") || fdatasync(fd) != 0)
        return luna_place_error("cannot sync an image in", a->folder);
    return LUNA_OK;
}

static luna_err fill_and_look(attempt *a, int fd)
{
    struct stat info;
    a->again = faccessat(a->side, a->mark, F_OK, 0) != 0 && errno == ENOENT;
    if (a->again) return LUNA_OK;
    LUNA_TRY(fill_part(a, fd));
    if (fstat(fd, &info) != 0)
        return luna_error_errno(LUNA_IO, "cannot look at an image in %s", a->folder);
    a->inode = info.st_ino;
    return LUNA_OK;
}

static luna_err write_part(attempt *a)
{
    LUNA_TRY(name_part(a));
    const bool may = step(a, "create part");
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    const int fd = may ? openat(a->dir, a->part, flags, 0666) : -1;
    if (fd < 0) {
        a->part[0] = '\0';
        return luna_place_error("cannot create a file in", a->folder);
    }
    const luna_err err = fill_and_look(a, fd);
    close(fd);
    return err;
}

//  ---- step 4 -----------------------------------------------------------------------

static void drop_part(attempt *a)
{
    if (a->part[0] && step(a, "drop part")) unlinkat(a->dir, a->part, 0);
    a->part[0] = '\0';
}

//  Another attempt's anchor stands: looks at its file instead of this attempt's.
static luna_err join_anchor(attempt *a)
{
    luna_image_record *record = a->record;
    struct stat info;
    drop_part(a);
    const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    const int fd = openat(a->dir, a->anchor, flags);
    a->again = fd < 0 && errno == ENOENT;
    if (a->again) return LUNA_OK;
    if (fd < 0) return luna_place_error("cannot open an image in", a->folder);
    luna_err err = LUNA_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        err = luna_error(LUNA_CANT_CREATE, "%s/%.100s is in the way; remove it",
                         a->folder, a->anchor);
    if (err == LUNA_OK)
        err = luna_sha256_file(fd, a->folder, record->sha256, &record->bytes);
    close(fd);
    if (err == LUNA_OK) a->inode = info.st_ino;
    return err;
}

static luna_err take_anchor(attempt *a)
{
    luna_image_record *record = a->record;
    snprintf(a->anchor, sizeof a->anchor, "%.*stmp",
             LUNA_NAME_PART_BYTES - LUNA_SUFFIX_BYTES, a->prefix);
    const bool may = step(a, "link anchor");
    a->winner = may && linkat(a->dir, a->part, a->dir, a->anchor, 0) == 0;
    if (a->winner) {
        record->bytes = a->image->len;
        return luna_sha256(a->image->data, a->image->len, record->sha256);
    }
    if (errno == EEXIST) return join_anchor(a);
    a->again = errno == ENOENT;  //  tidied away by an attempt that finished
    if (a->again) return LUNA_OK;
    if (errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK)
        return luna_error_errno(LUNA_CANT_CREATE,
                                "the file system of %s makes no hard links, which saving "
                                "without overwriting needs; choose another",
                                a->folder);
    return luna_place_error("cannot link an image in", a->folder);
}

//  ---- step 6 -----------------------------------------------------------------------

static bool is_ours(const attempt *a, const char *name)
{
    struct stat info;
    return fstatat(a->dir, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
           info.st_ino == a->inode;
}

//  A second name for an anchor that has lost its own. Two attempts may do so at the same
//  moment: each then sees the other's name in the count of links and takes its own back.
static luna_err renew_token(attempt *a, nlink_t allowed)
{
    struct stat info;
    LUNA_TRY(name_part(a));
    if (!step(a, "renew token") || linkat(a->dir, a->anchor, a->dir, a->part, 0) != 0) {
        a->again = errno == ENOENT;
        a->part[0] = '\0';
        return a->again ? LUNA_OK
                        : luna_place_error("cannot link an image in", a->folder);
    }
    if (fstatat(a->dir, a->part, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        info.st_ino != a->inode)
        a->again = true;
    if (a->again || info.st_nlink > allowed) drop_part(a);
    return LUNA_OK;
}

//  Finds the token or the final name of the anchor's file. A scan can miss a name that
//  changes meanwhile, so only the link count tells that there is none.
static luna_err locate(attempt *a)
{
    luna_found found;
    struct stat info;
    for (int scan = 0; scan < SCANS; scan++) {
        LUNA_TRY(luna_scan_inode(a->dir, a->inode, a->anchor, &found));
        memcpy(a->final, found.final, sizeof a->final);
        memcpy(a->part, found.token, sizeof a->part);
        if (a->final[0] || a->part[0]) return LUNA_OK;
        if (fstatat(a->dir, a->anchor, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            info.st_ino != a->inode) {
            a->again = true;
            return LUNA_OK;
        }
        if (info.st_nlink > 1) continue;
        LUNA_TRY(renew_token(a, 2));
        if (a->again || a->part[0]) return LUNA_OK;
    }
    //  Its other name is in another folder: somebody moved the picture.
    return renew_token(a, (nlink_t)-1);
}

static bool is_there(const attempt *a, const char *name)
{
    return faccessat(a->dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool has_sidecar(const attempt *a, const char *name)
{
    char beside[LUNA_NAME_PART_BYTES];
    if (!a->image->sidecar) return false;
    luna_sidecar_name(name, beside);
    return is_there(a, beside);
}

static bool is_taken(const attempt *a, unsigned k)
{
    char name[LUNA_NAME_PART_BYTES];
    luna_name_candidate(a->image->name, k, name);
    return is_there(a, name) || has_sidecar(a, name);
}

//  A free candidate behind a taken one, in steps that double, then by halves: a folder
//  with ten thousand of a name must not cost ten thousand looks. Where names are missing
//  in between it need not be the first free one. 0 when all seem to be taken: then the
//  gaps are looked for.
static unsigned free_candidate(const attempt *a)
{
    unsigned taken = 0, free = 1;
    if (!is_taken(a, 0)) return 0;
    while (free < LUNA_NAME_TRIES && is_taken(a, free)) {
        taken = free;
        free = free > LUNA_NAME_TRIES / 2 ? LUNA_NAME_TRIES : 2 * free;
    }
    while (free - taken > 1) {
        const unsigned middle = taken + (free - taken) / 2;
        if (is_taken(a, middle))
            taken = middle;
        else
            free = middle;
    }
    return free < LUNA_NAME_TRIES ? free : 0;
}

//  Moves the token to `name` unless that exists. File systems that cannot do both in
//  one step get a link, which does not replace either, and then lose the token.
static int move_token(attempt *a, const char *name)
{
    if (!step(a, "move token")) return -1;
    if (!a->by_link) return renameat2(a->dir, a->part, a->dir, name, RENAME_NOREPLACE);
    if (linkat(a->dir, a->part, a->dir, name, 0) != 0) return -1;
    if (unlinkat(a->dir, a->part, 0) != 0) a->others = true;
    return 0;
}

//  Links are tried from the first candidate on, so that two attempts at one image meet
//  at the same name: a link, unlike a move, would give the file a second one.
static luna_err try_names(attempt *a)
{
    char name[LUNA_NAME_PART_BYTES];
    for (unsigned k = a->by_link ? 0 : free_candidate(a); k < LUNA_NAME_TRIES; k++) {
        luna_name_candidate(a->image->name, k, name);
        if (!is_ours(a, name) && has_sidecar(a, name)) continue;
        const bool moved = move_token(a, name) == 0;
        const int code = errno;
        if (moved || (code == EEXIST && is_ours(a, name))) {
            memcpy(a->final, name, sizeof name);
            return LUNA_OK;
        }
        if (code == EEXIST) continue;
        if (!a->by_link && (code == EINVAL || code == ENOSYS || code == EOPNOTSUPP)) {
            a->by_link = true;
            return LUNA_OK;
        }
        errno = code;
        a->part[0] = '\0';
        return code == ENOENT ? LUNA_OK
                              : luna_place_error("cannot name an image in", a->folder);
    }
    luna_name_candidate(a->image->name, 0, name);
    return luna_error(LUNA_EXISTS,
                      "%s has %d files named like %.100s; give the job another file name",
                      a->folder, LUNA_NAME_TRIES, name);
}

static luna_err publish_name(attempt *a)
{
    for (int round = 0; round < ROUNDS; round++) {
        if (!a->part[0]) LUNA_TRY(locate(a));
        if (a->again || a->final[0]) return LUNA_OK;
        if (a->part[0]) LUNA_TRY(try_names(a));
        if (a->final[0]) return LUNA_OK;
    }
    return luna_error(LUNA_IO, "the names of an image in %s keep changing; try again",
                      a->folder);
}

static luna_err put_sidecar(const attempt *a)
{
    const luna_sidecar sidecar = {.dir = a->dir,
                                  .folder = a->folder,
                                  .picture = a->final,
                                  .prefix = a->prefix,
                                  .text = a->image->sidecar,
                                  .len = a->image->sidecar_len,
                                  .access = &a->files->access,
                                  .fault = &a->files->fault};
    return a->image->sidecar ? luna_sidecar_put(&sidecar) : LUNA_OK;
}

//  ---- steps 7 and 8 ------------------------------------------------------------------

//  Cut between characters, without line ends: a record has a line for it.
static void copy_note(const char *note, char out[LUNA_SINK_NOTE_BYTES])
{
    luna_text_copy(luna_text_of(note), out, LUNA_SINK_NOTE_BYTES);
    for (char *at = out; *at; at++)
        if ((uint8_t)*at < 0x20) *at = ' ';
}

static luna_err write_record(attempt *a)
{
    luna_image_record *record = a->record;
    record->key = a->image->key;
    record->width = a->image->width;
    record->height = a->image->height;
    copy_note(a->image->note, record->note);
    LUNA_TRY(luna_path_join(record->path, sizeof record->path, a->folder, a->final));
    if (!step(a, "sync folder") || fsync(a->dir) != 0)
        return luna_error_errno(LUNA_IO, "cannot sync the folder %s", a->folder);
    const luna_err err =
        luna_record_write(a->side, a->place.root, record, &a->files->fault);
    a->again = err == LUNA_NOT_FOUND;
    return a->again ? LUNA_OK : err;
}

//  Whether other attempts at this image are under way, or were and died.
static bool others_came(const attempt *a)
{
    char marks[LUNA_RECORD_NAME_BYTES];
    bool has = true;
    luna_record_name(&a->image->key, ".", marks);
    return luna_scan_has(a->side, marks, a->mark, &has) != LUNA_OK || has;
}

//  The image is safe: nothing that fails here is worth an error. The marks go last, and
//  only after everything they stand for.
static void clean_up(attempt *a)
{
    if (!step(a, "remove anchor")) return;
    if (unlinkat(a->dir, a->anchor, 0) != 0 && errno != ENOENT) return;
    if (a->others || others_came(a)) {
        if (!step(a, "remove others")) return;
        remove_all(a->dir, a->side, &a->image->key);
    } else if (step(a, "remove mark")) {
        unlinkat(a->side, a->mark, 0);
    }
}

//  ---- the whole -------------------------------------------------------------------

//  Before there is an anchor a failure leaves nothing.
static luna_err prepare(attempt *a)
{
    LUNA_TRY(set_mark(a));
    luna_err err = write_part(a);
    if (err == LUNA_OK && !a->again) err = take_anchor(a);
    if ((err == LUNA_OK && !a->again) || a->winner) return err;
    if (a->part[0]) unlinkat(a->dir, a->part, 0);
    unlinkat(a->side, a->mark, 0);
    return err;
}

static luna_err finish(attempt *a)
{
    luna_image_record earlier;
    bool found;
    if (!step(a, "look again")) return luna_place_error("cannot look into", a->folder);
    LUNA_TRY(luna_publish_find(a->files, &a->image->key, &earlier, &found));
    if (found) {
        *a->record = earlier;
        a->others = true;
    } else {
        LUNA_TRY(publish_name(a));
        if (!a->again) LUNA_TRY(put_sidecar(a));
        if (!a->again) LUNA_TRY(write_record(a));
        if (a->again) return LUNA_OK;
    }
    clean_up(a);
    return LUNA_OK;
}

//  A failure behind the anchor leaves that and the mark.
static luna_err run(attempt *a)
{
    LUNA_TRY(open_folders(a));
    LUNA_TRY(luna_hold_shared(a->place.root, &a->image->key, &a->hold));
    LUNA_TRY(prepare(a));
    if (a->again) return LUNA_OK;
    const luna_err err = finish(a);
    if (a->again) unlinkat(a->side, a->mark, 0);
    return err;
}

luna_err luna_publish(const luna_files *files, const luna_image *image,
                      luna_image_record *record, bool *again)
{
    attempt a = {.files = files,
                 .image = image,
                 .record = record,
                 .hold = {-1},
                 .dir = -1,
                 .side = -1};
    luna_publish_prefix(&image->key, a.prefix);
    const luna_err err = run(&a);
    luna_hold_end(&a.hold);
    if (a.dir >= 0) close(a.dir);
    if (a.side >= 0) close(a.side);
    *again = a.again;
    return err;
}
