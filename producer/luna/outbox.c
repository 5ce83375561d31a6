//  The outbox's folder: its owner, its subfolders and its names; outbox_files.c has the
//  files.

#include "producer/luna/outbox.h"

#include "common/file.h"
#include "proto/payload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES  4096U
#define ORDER_DIGITS 20
#define FOLDER_MODE  0700  //  latents and prompts are their owner's alone

const luna_file_ops *luna_outbox_ops = &luna_file_ops_system;

//  ---- names -----------------------------------------------------------------------

void luna_outbox_path(const luna_outbox *outbox, const char *folder,
                      const luna_outbox_name *name, const char *suffix,
                      char path[LUNA_OUTBOX_PATH_BYTES])
{
    char job[LUNA_ID_TEXT_BYTES], client[LUNA_ID_TEXT_BYTES];
    luna_id_text(&name->job, job);
    luna_id_text(&name->client, client);
    (void)snprintf(path, LUNA_OUTBOX_PATH_BYTES, "%s/%s/%020" PRIu64 "-%s-%s%s",
                   outbox->dir, folder, name->order, job, client, suffix);
}

static bool read_order(const char *text, uint64_t *out)
{
    uint64_t order = 0;
    for (int i = 0; i < ORDER_DIGITS; i++) {
        const unsigned digit = (unsigned)(text[i] - '0');
        if (text[i] < '0' || text[i] > '9' || order > (UINT64_MAX - digit) / 10)
            return false;
        order = order * 10 + digit;
    }
    *out = order;
    return true;
}

static bool read_name(const char *text, luna_outbox_name *out)
{
    char job[LUNA_ID_TEXT_BYTES] = "";
    const char *after = text + ORDER_DIGITS;
    if (strlen(text) != LUNA_OUTBOX_NAME_BYTES - 2 || !read_order(text, &out->order))
        return false;
    const char *client = after + LUNA_ID_TEXT_BYTES;
    if (after[0] != '-' || client[0] != '-') return false;
    memcpy(job, after + 1, LUNA_ID_TEXT_BYTES - 1);
    return luna_id_parse(job, &out->job) == LUNA_OK &&
           luna_id_parse(client + 1, &out->client) == LUNA_OK;
}

//  ---- sizes -----------------------------------------------------------------------

uint64_t luna_outbox_blocks(uint64_t bytes)
{
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static DIR *open_folder(const luna_outbox *outbox, const char *folder)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", outbox->dir, folder);
    return opendir(path);
}

uint64_t luna_outbox_measure(const luna_outbox *outbox, const char *folder)
{
    uint64_t sum = 0;
    struct stat info;
    DIR *dir = open_folder(outbox, folder);
    if (!dir) return 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (fstatat(dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(info.st_mode))
            sum += luna_outbox_blocks((uint64_t)info.st_size);
    closedir(dir);
    return sum;
}

//  ---- the list --------------------------------------------------------------------

typedef struct listing {
    luna_outbox_file *files;
    size_t count, room;
} listing;

static luna_err list_add(listing *list, const luna_outbox_file *file)
{
    if (list->count == list->room) {
        const size_t room = list->room ? 2 * list->room : 64;
        luna_outbox_file *files = realloc(list->files, room * sizeof *files);
        if (!files) return luna_error(LUNA_NO_MEMORY, "out of memory");
        list->files = files;
        list->room = room;
    }
    list->files[list->count++] = *file;
    return LUNA_OK;
}

static luna_err list_folder(luna_outbox *outbox, DIR *dir, listing *list)
{
    struct stat info;
    luna_outbox_file file;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!read_name(entry->d_name, &file.name)) continue;
        if (fstatat(dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        const uint64_t size = (uint64_t)info.st_size;
        file.bytes =
            size > LUNA_PAYLOAD_HEADER_BYTES ? size - LUNA_PAYLOAD_HEADER_BYTES : 0;
        outbox->jobs_bytes += luna_outbox_blocks(size);
        LUNA_TRY(list_add(list, &file));
    }
    return LUNA_OK;
}

static int by_order(const void *a, const void *b)
{
    const luna_outbox_file *x = a, *y = b;
    if (x->name.order != y->name.order) return x->name.order < y->name.order ? -1 : 1;
    return luna_id_compare(&x->name.job, &y->name.job);
}

luna_err luna_outbox_list(luna_outbox *outbox, luna_outbox_file **out, size_t *count)
{
    listing list = {0};
    DIR *dir = open_folder(outbox, "jobs");
    if (!dir)
        return luna_error_errno(LUNA_IO, "cannot read the folder %s/jobs", outbox->dir);
    outbox->jobs_bytes = 0;
    const luna_err err = list_folder(outbox, dir, &list);
    closedir(dir);
    if (err != LUNA_OK) {
        free(list.files);
        return err;
    }
    if (list.count) qsort(list.files, list.count, sizeof *list.files, by_order);
    *out = list.files;
    *count = list.count;
    return LUNA_OK;
}

//  ---- the owner -------------------------------------------------------------------

static luna_err in_use(const luna_outbox *outbox)
{
    char text[32] = "";
    const ssize_t n = pread(outbox->lock, text, sizeof text - 1, 0);
    const long pid = n > 0 ? strtol(text, NULL, 10) : 0;
    return luna_error(LUNA_BUSY,
                      "the outbox %s is in use by the process %ld: give each program a "
                      "folder of its own",
                      outbox->dir, pid);
}

static luna_err take_lock(luna_outbox *outbox)
{
    char path[LUNA_OUTBOX_PATH_BYTES], text[32];
    LUNA_TRY(luna_path_join(path, sizeof path, outbox->dir, "LOCK"));
    outbox->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (outbox->lock < 0)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    if (flock(outbox->lock, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? in_use(outbox)
                                    : luna_error_errno(LUNA_IO, "cannot lock %s", path);
    //  For people only: without it the lock is as good.
    const int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(outbox->lock, 0) != 0 || pwrite(outbox->lock, text, (size_t)len, 0) < 0)
        return LUNA_OK;
    return LUNA_OK;
}

//  ---- open and close --------------------------------------------------------------

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

//  The folder above; "/" is above itself.
static void cut_last(char *path)
{
    char *slash = strrchr(path, '/');
    slash[slash == path] = '\0';
}

//  Makes DIR and its parents, each durable in the folder above it.
static luna_err make_durably(const char *dir)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s", dir);
    while (!is_folder(path) && path[1]) cut_last(path);
    const size_t there = strlen(path);
    LUNA_TRY(luna_make_dirs(dir, FOLDER_MODE));
    (void)snprintf(path, sizeof path, "%s", dir);
    while (strlen(path) > there) {
        cut_last(path);
        LUNA_TRY(luna_sync_dir(path));
    }
    return LUNA_OK;
}

static luna_err make_folder(const luna_outbox *outbox, const char *folder, int *fd)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, outbox->dir, folder));
    LUNA_TRY(luna_make_dirs(path, FOLDER_MODE));
    if (!fd) return LUNA_OK;
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd >= 0) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot open the folder %s", path);
}

//  A leftover that cannot be removed is in nobody's way: its name is not used again.
static luna_err empty_tmp(const luna_outbox *outbox)
{
    char path[LUNA_OUTBOX_PATH_BYTES + 256];
    DIR *dir = open_folder(outbox, "tmp");
    if (!dir)
        return luna_error_errno(LUNA_IO, "cannot read the folder %s/tmp", outbox->dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/tmp/%s", outbox->dir, entry->d_name);
        (void)outbox->ops->unlink(path);
    }
    closedir(dir);
    return LUNA_OK;
}

static luna_err set_dir(luna_outbox *outbox, const char *dir)
{
    LUNA_TRY(luna_path_absolute(dir, outbox->dir, sizeof outbox->dir));
    for (size_t len = strlen(outbox->dir); len > 1 && outbox->dir[len - 1] == '/';)
        outbox->dir[--len] = '\0';
    return LUNA_OK;
}

static luna_err prepare(luna_outbox *outbox, const char *dir)
{
    LUNA_TRY(set_dir(outbox, dir));
    LUNA_TRY(make_durably(outbox->dir));
    LUNA_TRY(take_lock(outbox));
    LUNA_TRY(make_folder(outbox, "tmp", NULL));
    LUNA_TRY(make_folder(outbox, "jobs", &outbox->jobs));
    LUNA_TRY(make_folder(outbox, "refused", &outbox->refused));
    LUNA_TRY(make_folder(outbox, "damaged", &outbox->damaged));
    LUNA_TRY(empty_tmp(outbox));
    outbox->aside_bytes =
        luna_outbox_measure(outbox, "refused") + luna_outbox_measure(outbox, "damaged");
    return luna_sync_dir(outbox->dir);
}

luna_err luna_outbox_open(const char *dir, uint64_t max_bytes, luna_outbox **out)
{
    luna_outbox *outbox = calloc(1, sizeof *outbox);
    if (!outbox) return luna_error(LUNA_NO_MEMORY, "out of memory");
    outbox->ops = luna_outbox_ops;
    outbox->max_bytes = max_bytes;
    outbox->lock = outbox->jobs = outbox->refused = outbox->damaged = -1;
    const luna_err err = prepare(outbox, dir);
    if (err == LUNA_OK)
        *out = outbox;
    else
        luna_outbox_close(&outbox);
    return err;
}

static void close_fd(int fd)
{
    if (fd >= 0) close(fd);
}

//  The lock last: the next owner must not meet us.
void luna_outbox_close(luna_outbox **self)
{
    luna_outbox *outbox = *self;
    if (!outbox) return;
    *self = NULL;
    close_fd(outbox->jobs);
    close_fd(outbox->refused);
    close_fd(outbox->damaged);
    close_fd(outbox->lock);
    free(outbox);
}
