//  The files of the outbox: written, read back, removed and moved.

#include "producer/luna/outbox.h"

#include "proto/codec.h"
#include "proto/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t cost_of(uint64_t bytes)
{
    return luna_outbox_blocks(LUNA_PAYLOAD_HEADER_BYTES + bytes);
}

//  ---- put -------------------------------------------------------------------------

//  Somebody may have tidied up what was set aside: look before saying no.
static luna_err find_room(luna_outbox *outbox, uint64_t need)
{
    if (need > outbox->max_bytes)
        return luna_error(LUNA_TOO_LARGE,
                          "the job needs %" PRIu64
                          " bytes, more than the whole outbox "
                          "may hold (%" PRIu64 "): raise outbox_bytes",
                          need, outbox->max_bytes);
    if (outbox->jobs_bytes + outbox->aside_bytes + need <= outbox->max_bytes)
        return LUNA_OK;
    outbox->aside_bytes =
        luna_outbox_measure(outbox, "refused") + luna_outbox_measure(outbox, "damaged");
    if (outbox->jobs_bytes + outbox->aside_bytes + need <= outbox->max_bytes)
        return LUNA_OK;
    return luna_error(LUNA_NO_SPACE,
                      "the outbox %s is full: %" PRIu64 " bytes of jobs and %" PRIu64
                      " in refused/ and damaged/, at most %" PRIu64 " are allowed",
                      outbox->dir, outbox->jobs_bytes, outbox->aside_bytes,
                      outbox->max_bytes);
}

static luna_err fill(const luna_outbox *outbox, int fd, const luna_id *job,
                     luna_blob message)
{
    uint8_t header[LUNA_PAYLOAD_HEADER_BYTES];
    const luna_file_ops *ops = outbox->ops;
    if (ops->allocate(fd, (off_t)(sizeof header + message.len)) != 0)
        return luna_error_errno(LUNA_IO, "the outbox %s cannot allocate %zu bytes",
                                outbox->dir, sizeof header + message.len);
    const luna_payload payload = {
        .id = *job, .body = message, .hash = luna_payload_hash(message)};
    luna_payload_header(&payload, header);
    if (luna_file_ops_write(ops, fd, header, sizeof header) != 0 ||
        luna_file_ops_write_early(ops, fd, message.data, message.len, sizeof header) != 0)
        return luna_error_errno(LUNA_IO, "cannot write to the outbox %s", outbox->dir);
    if (ops->sync_data(fd) != 0)
        return luna_error_errno(LUNA_IO, "cannot sync a job of the outbox %s",
                                outbox->dir);
    return LUNA_OK;
}

static luna_err write_tmp(const luna_outbox *outbox, const char *path, const luna_id *job,
                          luna_blob message)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return luna_error_errno(LUNA_CANT_CREATE, "cannot make %s", path);
    const luna_err err = fill(outbox, fd, job, message);
    close(fd);
    if (err != LUNA_OK) (void)outbox->ops->unlink(path);
    return err;
}

static luna_err publish(luna_outbox *outbox, const char *from, const char *to)
{
    if (outbox->ops->rename(from, to) != 0) {
        const luna_err err =
            luna_error_errno(LUNA_IO, "cannot rename %s to %s", from, to);
        (void)outbox->ops->unlink(from);
        return err;
    }
    if (outbox->ops->sync_dir(outbox->jobs) == 0) return LUNA_OK;
    const luna_err err =
        luna_error_errno(LUNA_IO, "cannot sync the folder %s/jobs", outbox->dir);
    (void)outbox->ops->unlink(to);
    return err;
}

luna_err luna_outbox_put(luna_outbox *outbox, const luna_outbox_name *name,
                         luna_blob message)
{
    char tmp[LUNA_OUTBOX_PATH_BYTES], path[LUNA_OUTBOX_PATH_BYTES];
    LUNA_TRY(find_room(outbox, cost_of(message.len)));
    luna_outbox_path(outbox, "tmp", name, "", tmp);
    luna_outbox_path(outbox, "jobs", name, "", path);
    LUNA_TRY(write_tmp(outbox, tmp, &name->job, message));
    LUNA_TRY(publish(outbox, tmp, path));
    outbox->jobs_bytes += cost_of(message.len);
    return LUNA_OK;
}

//  ---- get -------------------------------------------------------------------------

static luna_err damaged(const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "%s", what);
}

static luna_err read_job(luna_packet *packet, const luna_outbox_name *name,
                         uint64_t *priority)
{
    luna_msg_job job;
    if (luna_packet_type(packet) != LUNA_MSG_JOB) return damaged("it holds no job");
    LUNA_TRY(luna_packet_read(packet, &job));
    if (luna_id_compare(&job.id, &name->job) != 0 ||
        luna_id_compare(&job.client, &name->client) != 0)
        return damaged("it holds another job than its name says");
    *priority = job.priority;
    return LUNA_OK;
}

static luna_err check_message(const void *message, uint64_t bytes,
                              const luna_outbox_name *name, uint64_t *priority)
{
    luna_packet *packet = NULL;
    luna_err err = luna_packet_open(message, bytes, &packet);
    if (err == LUNA_OK) err = read_job(packet, name, priority);
    luna_packet_close(&packet);
    if (err == LUNA_OK || err == LUNA_NO_MEMORY) return err;
    return damaged(luna_error_text());
}

static luna_err read_payload(const luna_outbox *outbox, int fd, void *to, uint64_t bytes,
                             luna_payload *payload)
{
    struct stat info;
    uint8_t header[LUNA_PAYLOAD_HEADER_BYTES];
    if (fstat(fd, &info) != 0 ||
        luna_file_ops_read(outbox->ops, fd, header, sizeof header, 0) != 0 ||
        luna_file_ops_read(outbox->ops, fd, to, bytes, sizeof header) != 0)
        return luna_error_errno(LUNA_IO, "it cannot be read");
    LUNA_TRY(luna_payload_open(header, (size_t)info.st_size, payload));
    if (payload->body.len != bytes) return luna_error(LUNA_IO, "its length has changed");
    payload->body.data = to;
    return luna_payload_verify(payload);
}

luna_err luna_outbox_get(luna_outbox *outbox, const luna_outbox_name *name, void *to,
                         uint64_t bytes, uint64_t *priority)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    luna_payload payload;
    luna_outbox_path(outbox, "jobs", name, "", path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return luna_error_errno(errno == ENOENT ? LUNA_NOT_FOUND : LUNA_IO,
                                "cannot open %s", path);
    const luna_err err = read_payload(outbox, fd, to, bytes, &payload);
    close(fd);
    if (err != LUNA_OK) return damaged(luna_error_text());
    if (luna_id_compare(&payload.id, &name->job) != 0)
        return damaged("it holds another job than its name says");
    return check_message(to, bytes, name, priority);
}

//  ---- remove and move -------------------------------------------------------------

static void left_jobs(luna_outbox *outbox, uint64_t bytes)
{
    const uint64_t cost = cost_of(bytes);
    outbox->jobs_bytes -= cost < outbox->jobs_bytes ? cost : outbox->jobs_bytes;
    outbox->unsynced = true;
}

luna_err luna_outbox_remove(luna_outbox *outbox, const luna_outbox_name *name,
                            uint64_t bytes)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    luna_outbox_path(outbox, "jobs", name, "", path);
    if (outbox->ops->unlink(path) == 0) {
        left_jobs(outbox, bytes);
        return LUNA_OK;
    }
    return errno == ENOENT ? LUNA_OK
                           : luna_error_errno(LUNA_IO, "cannot remove %s", path);
}

static luna_err move(luna_outbox *outbox, const char *folder,
                     const luna_outbox_name *name, uint64_t bytes,
                     char path[LUNA_OUTBOX_PATH_BYTES])
{
    char from[LUNA_OUTBOX_PATH_BYTES];
    luna_outbox_path(outbox, "jobs", name, "", from);
    luna_outbox_path(outbox, folder, name, "", path);
    if (outbox->ops->rename(from, path) != 0)
        return luna_error_errno(errno == ENOENT ? LUNA_NOT_FOUND : LUNA_IO,
                                "cannot move %s to %s", from, path);
    left_jobs(outbox, bytes);
    outbox->aside_bytes += cost_of(bytes);
    return LUNA_OK;
}

//  Beside the job before the job is there: who finds one finds the other. Without room
//  for it the reason is told in the notice only.
static void write_reason(luna_outbox *outbox, const luna_outbox_name *name,
                         const char *reason)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    const luna_file_ops *ops = outbox->ops;
    luna_outbox_path(outbox, "refused", name, ".reason", path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return;
    const bool good = luna_file_ops_write(ops, fd, reason, strlen(reason)) == 0 &&
                      luna_file_ops_write(ops, fd, "\n", 1) == 0 &&
                      ops->sync_data(fd) == 0;
    close(fd);
    if (good)
        outbox->aside_bytes += luna_outbox_blocks(strlen(reason) + 1);
    else
        (void)ops->unlink(path);
}

luna_err luna_outbox_refuse(luna_outbox *outbox, const luna_outbox_name *name,
                            uint64_t bytes, const char *reason,
                            char path[LUNA_OUTBOX_PATH_BYTES])
{
    write_reason(outbox, name, reason);
    return move(outbox, "refused", name, bytes, path);
}

luna_err luna_outbox_set_aside(luna_outbox *outbox, const luna_outbox_name *name,
                               uint64_t bytes, char path[LUNA_OUTBOX_PATH_BYTES])
{
    return move(outbox, "damaged", name, bytes, path);
}

//  The new names first: at no time may a file have neither.
luna_err luna_outbox_sync(luna_outbox *outbox)
{
    const luna_file_ops *ops = outbox->ops;
    if (!outbox->unsynced) return LUNA_OK;
    if (ops->sync_dir(outbox->refused) != 0 || ops->sync_dir(outbox->damaged) != 0 ||
        ops->sync_dir(outbox->jobs) != 0)
        return luna_error_errno(LUNA_IO, "cannot sync the folders of the outbox %s",
                                outbox->dir);
    outbox->unsynced = false;
    return LUNA_OK;
}
