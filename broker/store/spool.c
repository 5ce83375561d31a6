#include "broker/store/spool.h"

#include "broker/store/lock.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)1 << 20)

//  DIR/folder/name
static luna_err path_of(const luna_spool *spool, const char *folder, const char *name,
                        char out[LUNA_SPOOL_PATH_BYTES])
{
    const int n =
        snprintf(out, LUNA_SPOOL_PATH_BYTES, "%s/%s/%s", spool->dir, folder, name);
    if (n >= 0 && n < LUNA_SPOOL_PATH_BYTES) return LUNA_OK;
    return luna_error(LUNA_TOO_LARGE, "the spool's path %.60s... is too long",
                      spool->dir);
}

static luna_err path_of_id(const luna_spool *spool, const char *folder, const luna_id *id,
                           char out[LUNA_SPOOL_PATH_BYTES])
{
    char name[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, name);
    return path_of(spool, folder, name, out);
}

//  ---- open and close ------------------------------------------------------------

static luna_err make_folder(const luna_spool *spool, const char *folder)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, spool->dir, folder));
    return luna_make_dirs(path, 0750);
}

static luna_err empty_tmp(const luna_spool *spool)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, spool->dir, "tmp"));
    DIR *dir = opendir(path);
    if (!dir) return luna_error_errno(LUNA_IO, "cannot read the folder %s", path);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (path_of(spool, "tmp", entry->d_name, path) == LUNA_OK &&
            spool->files->unlink(path) != 0)
            luna_log(LUNA_LOG_WARNING, "spool.leftover",
                     "path=%s next=\"it stays; remove it by hand\"", path);
    }
    closedir(dir);
    return LUNA_OK;
}

static luna_err open_ready(luna_spool *spool)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(luna_path_join(path, sizeof path, spool->dir, "ready"));
    spool->ready = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (spool->ready >= 0) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot open the folder %s", path);
}

static luna_err prepare(luna_spool *spool)
{
    LUNA_TRY(luna_make_dirs(spool->dir, 0750));
    LUNA_TRY(luna_lock_take(spool->dir, "LOCK", &spool->lock));
    LUNA_TRY(make_folder(spool, "tmp"));
    LUNA_TRY(make_folder(spool, "ready"));
    LUNA_TRY(make_folder(spool, "quarantine"));
    LUNA_TRY(open_ready(spool));
    LUNA_TRY(empty_tmp(spool));
    return luna_sync_dir(spool->dir);
}

luna_err luna_spool_open(luna_spool *spool, const char *dir, uint64_t reserve_bytes,
                         const luna_files *files)
{
    *spool = (luna_spool){.files = files ? files : &luna_files_system,
                          .reserve_bytes = reserve_bytes,
                          .lock = -1,
                          .ready = -1};
    LUNA_TRY(luna_path_absolute(dir, spool->dir, sizeof spool->dir));
    const luna_err err = prepare(spool);
    if (err != LUNA_OK) luna_spool_close(spool);
    return err;
}

void luna_spool_close(luna_spool *spool)
{
    if (spool->ready >= 0) close(spool->ready);
    if (spool->lock >= 0) close(spool->lock);
    spool->ready = spool->lock = -1;
}

//  ---- write ----------------------------------------------------------------------

luna_err luna_spool_room(const luna_spool *spool, uint64_t need)
{
    uint64_t room;
    if (spool->files->free_bytes(spool->dir, &room) != 0)
        return luna_error_errno(LUNA_IO, "cannot tell the free space of %s", spool->dir);
    if (need <= room && room - need >= spool->reserve_bytes) return LUNA_OK;
    return luna_error(LUNA_NO_SPACE,
                      "%s: the payload needs %llu bytes; %llu are free and %llu of them "
                      "are kept in reserve",
                      spool->dir, (unsigned long long)need, (unsigned long long)room,
                      (unsigned long long)spool->reserve_bytes);
}

static luna_err allocate(const luna_spool *spool, int fd, uint64_t need)
{
    if (spool->files->allocate(fd, (off_t)need) == 0) return LUNA_OK;
    const int code = errno;
    uint64_t room = 0;
    (void)spool->files->free_bytes(spool->dir, &room);
    errno = code;
    return luna_error_errno(LUNA_IO, "%s: cannot allocate %llu bytes, %llu are free",
                            spool->dir, (unsigned long long)need,
                            (unsigned long long)room);
}

static luna_err write_all(const luna_spool *spool, int fd, const uint8_t *data,
                          size_t len)
{
    while (len > 0) {
        const ssize_t n = spool->files->write(fd, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return luna_error_errno(LUNA_IO, "cannot write to %s/tmp", spool->dir);
        data += n;
        len -= (size_t)n;
    }
    return LUNA_OK;
}

//  Pieces end at whole MiB of the file, so that a page whose write-back has been
//  started is not written to again.
static luna_err write_body(const luna_spool *spool, int fd, luna_blob body)
{
    const uint8_t *data = body.data;
    size_t at = LUNA_PAYLOAD_HEADER_BYTES, left = body.len;
    while (left > 0) {
        const size_t to_edge = PIECE_BYTES - at % PIECE_BYTES;
        const size_t n = left < to_edge ? left : to_edge;
        LUNA_TRY(write_all(spool, fd, data, n));
        luna_files_write_early(fd, (off_t)at, (off_t)n);
        data += n;
        at += n;
        left -= n;
    }
    return LUNA_OK;
}

static luna_err fill(const luna_spool *spool, int fd, luna_payload *payload)
{
    uint8_t header[LUNA_PAYLOAD_HEADER_BYTES];
    LUNA_TRY(allocate(spool, fd, sizeof header + (uint64_t)payload->body.len));
    payload->hash = luna_payload_hash(payload->body);
    luna_payload_header(payload, header);
    LUNA_TRY(write_all(spool, fd, header, sizeof header));
    return write_body(spool, fd, payload->body);
}

//  The sentence of the failure that led here must survive.
static void drop(const luna_spool *spool, int fd, const char *path)
{
    if (fd >= 0) close(fd);
    (void)spool->files->unlink(path);
}

luna_err luna_spool_write(const luna_spool *spool, luna_payload *payload, int *out)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "tmp", &payload->id, path));
    LUNA_TRY(
        luna_spool_room(spool, LUNA_PAYLOAD_HEADER_BYTES + (uint64_t)payload->body.len));
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    const luna_err err = fill(spool, fd, payload);
    if (err == LUNA_OK)
        *out = fd;
    else
        drop(spool, fd, path);
    return err;
}

luna_err luna_spool_publish(const luna_spool *spool, const luna_id *id)
{
    char from[LUNA_SPOOL_PATH_BYTES], to[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "tmp", id, from));
    LUNA_TRY(path_of_id(spool, "ready", id, to));
    if (spool->files->rename(from, to) == 0) return LUNA_OK;
    const luna_err err = luna_error_errno(LUNA_IO, "cannot rename %s to %s", from, to);
    drop(spool, -1, from);
    return err;
}

luna_err luna_spool_sync_file(const luna_spool *spool, const luna_id *id)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "ready", id, path));
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return luna_error_errno(LUNA_IO, "cannot read %s", path);
    luna_err err = LUNA_OK;
    if (spool->files->sync_data(fd) != 0)
        err = luna_error_errno(LUNA_IO, "cannot sync %s", path);
    close(fd);
    return err;
}

luna_err luna_spool_sync(const luna_spool *spool)
{
    if (spool->files->sync_dir(spool->ready) == 0) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot sync the folder %s/ready", spool->dir);
}

//  ---- find, check and remove --------------------------------------------------------

luna_err luna_spool_path(const luna_spool *spool, const luna_id *id, char *out,
                         size_t room)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "ready", id, path));
    if (strlen(path) >= room)
        return luna_error(LUNA_TOO_LARGE, "the path %s needs more than %zu bytes", path,
                          room);
    memcpy(out, path, strlen(path) + 1);
    return LUNA_OK;
}

luna_err luna_spool_remove(const luna_spool *spool, const luna_id *id)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "ready", id, path));
    if (spool->files->unlink(path) == 0 || errno == ENOENT) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot remove %s", path);
}

//  Of the file only the header need be in memory.
static luna_err check(const void *file, size_t len, const luna_id *id, luna_payload *out)
{
    LUNA_TRY(luna_payload_open(file, len, out));
    if (luna_id_compare(&out->id, id) == 0) return LUNA_OK;
    return luna_error(LUNA_IO, "damaged payload: it is that of another job");
}

static luna_err missing(luna_err err)
{
    if (err != LUNA_NOT_FOUND) return err;
    return luna_error(err, "the payload is missing from the spool");
}

//  What the disk does not give now it may give another time: that is no damage.
static luna_err unreadable(const char *path)
{
    return luna_error_errno(LUNA_UNAVAILABLE, "cannot read %s", path);
}

static luna_err check_open_file(int fd, const char *path, const luna_id *id)
{
    struct stat info;
    luna_payload payload;
    uint8_t header[LUNA_PAYLOAD_HEADER_BYTES] = {0};
    if (fstat(fd, &info) != 0) return unreadable(path);
    if (!S_ISREG(info.st_mode))
        return luna_error(LUNA_IO, "damaged payload: %s is not a file", path);
    if (pread(fd, header, sizeof header, 0) < 0) return unreadable(path);
    return check(header, (size_t)info.st_size, id, &payload);
}

luna_err luna_spool_check(const luna_spool *spool, const luna_id *id)
{
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "ready", id, path));
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return missing(LUNA_NOT_FOUND);
    if (fd < 0) return unreadable(path);
    const luna_err err = check_open_file(fd, path, id);
    close(fd);
    return err;
}

static luna_err check_whole(const char *file, size_t len, const luna_id *id,
                            luna_payload *out)
{
    LUNA_TRY(check(file, len, id, out));
    return luna_payload_verify(out);
}

static uint64_t written_ms(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) return 0;
    return (uint64_t)info.st_mtim.tv_sec * 1000 +
           (uint64_t)info.st_mtim.tv_nsec / 1000000;
}

luna_err luna_spool_read(const luna_spool *spool, const luna_id *id, char **file,
                         luna_payload *out)
{
    size_t len;
    char path[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of_id(spool, "ready", id, path));
    LUNA_TRY(luna_spool_check(spool, id));
    luna_err err = luna_file_read(path, SIZE_MAX - 1, file, &len);
    if (err == LUNA_IO) return luna_error(LUNA_UNAVAILABLE, "%s", luna_error_text());
    LUNA_TRY(missing(err));
    err = check_whole(*file, len, id, out);
    if (err != LUNA_OK) free(*file);
    if (err == LUNA_OK && out->accepted_ms == 0) out->accepted_ms = written_ms(path);
    return err;
}

luna_err luna_spool_quarantine(const luna_spool *spool, const char *name)
{
    char from[LUNA_SPOOL_PATH_BYTES], to[LUNA_SPOOL_PATH_BYTES];
    LUNA_TRY(path_of(spool, "ready", name, from));
    LUNA_TRY(path_of(spool, "quarantine", name, to));
    if (spool->files->rename(from, to) == 0 || errno == ENOENT) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot move %s to %s", from, to);
}
