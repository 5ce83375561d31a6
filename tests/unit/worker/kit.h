//  kit.h - work messages and folders for the decoder's tests

#ifndef TEST_WORKER_KIT_H
#define TEST_WORKER_KIT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fts.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/work.h"
#include "proto/codec.h"
#include "proto/job.h"
#include "proto/payload.h"

#define DEADLINE_MS 60000

#define TEXT(word) luna_text_of(word)

static inline const char *data_path(const char *name, char out[4096])
{
    snprintf(out, 4096, "%s/%s", getenv("LUNA_TEST_DATA"), name);
    return out;
}

static inline void remove_tree(const char *path)
{
    char *const paths[] = {(char *)(uintptr_t)path, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *at;
    while (tree && (at = fts_read(tree)))
        if (at->fts_info != FTS_D) (void)remove(at->fts_accpath);
    if (tree) fts_close(tree);
}

static inline luna_id id_of(uint8_t last)
{
    return (luna_id){{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, last}};
}

//  The payload file of a job, malloc'd.
static inline void *payload_of(const luna_msg_job *job, size_t *len)
{
    void *body = NULL;
    size_t body_len = 0;
    assert_int_equal(luna_msg_pack(LUNA_MSG_JOB, job, &body, &body_len), LUNA_OK);
    uint8_t *file = malloc(LUNA_PAYLOAD_HEADER_BYTES + body_len);
    assert_non_null(file);
    const luna_blob blob = {body, body_len};
    luna_payload_header(
        &(luna_payload){.id = job->id, .body = blob, .hash = luna_payload_hash(blob)},
        file);
    memcpy(file + LUNA_PAYLOAD_HEADER_BYTES, body, body_len);
    free(body);
    *len = LUNA_PAYLOAD_HEADER_BYTES + body_len;
    return file;
}

//  A work message of these fields as it comes from a slot.
static inline luna_work *open_work(const luna_msg_work *fields)
{
    void *data = NULL;
    size_t len = 0;
    luna_work *work = NULL;
    assert_int_equal(luna_msg_pack(LUNA_MSG_WORK, fields, &data, &len), LUNA_OK);
    const luna_received message = {
        .handle = data, .data = data, .len = len, .free = free};
    assert_int_equal(luna_work_open(message, &work), LUNA_OK);
    return work;
}

static inline luna_msg_work work_fields(luna_id id, uint64_t attempt)
{
    return (luna_msg_work){.id = id,
                           .attempt = attempt,
                           .epoch = id_of(200),
                           .lease_ms = 60000,
                           .payload_bytes = 1,
                           .payload_path = TEXT("/nowhere")};
}

//  The work of a job, the payload in the message.
static inline luna_work *work_of(const luna_msg_job *job, uint64_t attempt)
{
    size_t len = 0;
    void *payload = payload_of(job, &len);
    luna_msg_work fields = work_fields(job->id, attempt);
    fields.payload_path = (luna_text){0};
    fields.payload = (luna_blob){payload, len};
    fields.payload_bytes = len;
    luna_work *work = open_work(&fields);
    free(payload);
    return work;
}

//  A report, opened; close_report gives it back.
typedef struct report {
    void *data;
    luna_packet *packet;
    luna_msg_type type;
    luna_msg_progress progress;
    luna_msg_done done;
    luna_msg_failed failed;
} report;

static inline void close_report(report *told)
{
    luna_packet_close(&told->packet);
    free(told->data);
    *told = (report){0};
}

//  False when there is nothing to report.
static inline bool next_report(luna_attempts *attempts, report *out)
{
    const luna_id epoch = id_of(200);
    size_t len = 0;
    *out = (report){0};
    const luna_err err = luna_attempts_report(attempts, &epoch, &out->data, &len);
    if (err == LUNA_NOT_FOUND) return false;
    assert_int_equal(err, LUNA_OK);
    assert_int_equal(luna_packet_open(out->data, len, &out->packet), LUNA_OK);
    out->type = luna_packet_type(out->packet);
    void *into = out->type == LUNA_MSG_PROGRESS ? (void *)&out->progress
                 : out->type == LUNA_MSG_DONE   ? (void *)&out->done
                                                : (void *)&out->failed;
    assert_int_equal(luna_packet_read(out->packet, into), LUNA_OK);
    return true;
}

//  Waits on the descriptor, as the link does, for the done or failed of an attempt.
//  *progressed counts the images that progress told before.
static inline report wait_for_end(luna_attempts *attempts, size_t *progressed)
{
    const int64_t end_ms = luna_now_ms() + DEADLINE_MS;
    report told;
    for (;;) {
        while (next_report(attempts, &told)) {
            if (told.type != LUNA_MSG_PROGRESS) return told;
            if (progressed) *progressed += told.progress.images.count;
            close_report(&told);
        }
        struct pollfd item = {.fd = luna_attempts_fd(attempts), .events = POLLIN};
        assert_true(luna_now_ms() < end_ms);
        (void)poll(&item, 1, 100);
        uint64_t count;
        if (read(item.fd, &count, sizeof count) < 0) continue;
    }
}

#endif
