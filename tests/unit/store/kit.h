//  kit.h - what the store's tests share: a store in the working folder, jobs, one
//  operation at a time

#ifndef LUNA_TESTS_STORE_KIT_H
#define LUNA_TESTS_STORE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
//  cmocka needs the four above
#include <cmocka.h>
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/store/files.h"
#include "broker/store/store.h"
#include "common/file.h"
#include "proto/codec.h"
#include "proto/job.h"
#include "proto/payload.h"

//  A job and its message; free(body).
typedef struct kit_job {
    luna_id id;
    uint64_t priority;
    uint64_t accepted_ms;
    const char *vae;
    void *body;
    size_t len;
} kit_job;

#define KIT_BATCH 2

#ifndef KIT_LOG_BYTES
#define KIT_LOG_BYTES (1 << 20)
#endif

//  Different for every `number`; [2, 4, side, side] float16.
static inline luna_id kit_id(unsigned number)
{
    luna_id id = {{0x01, 0x93, 0xf1, 0xc2, 0, 0, 0x70, 0, 0x80}};
    id.byte[14] = (uint8_t)(number >> 8);
    id.byte[15] = (uint8_t)number;
    return id;
}

static inline luna_msg_job kit_message(const kit_job *job, luna_msg_input *input,
                                       uint8_t *latent, size_t side)
{
    const size_t bytes = (size_t)KIT_BATCH * 4 * side * side * 2;
    for (size_t i = 0; i < bytes; i++) latent[i] = (uint8_t)(i * 31 + job->id.byte[15]);
    *input = luna_msg_input_default();
    input->affix = luna_text_of("");
    input->dtype = luna_text_of("float16");
    input->shape = (luna_dims){.at = {KIT_BATCH, 4, side, side}, .count = 4};
    input->latent = (luna_blob){.data = latent, .len = bytes};
    luna_msg_job message = luna_msg_job_default();
    message.id = job->id;
    message.client = kit_id(999);
    message.priority = job->priority;
    message.created_ms = job->accepted_ms - 1;
    message.vae = luna_text_of(job->vae);
    message.prompt_id = luna_text_of("prompt-7");
    message.output_dir = luna_text_of("/tmp/luna-out");
    message.inputs.items = input;
    message.inputs.count = 1;
    return message;
}

static inline kit_job kit_job_sized(unsigned number, size_t side)
{
    kit_job job = {.id = kit_id(number),
                   .priority = number % 10,
                   .accepted_ms = 1000 + number,
                   .vae = "flux"};
    luna_msg_input input;
    uint8_t *latent = malloc((size_t)KIT_BATCH * 4 * side * side * 2);
    const luna_msg_job message = kit_message(&job, &input, latent, side);
    if (luna_msg_pack(LUNA_MSG_JOB, &message, &job.body, &job.len) != LUNA_OK) {
        fprintf(stderr, "kit: %s\n", luna_error_text());
        abort();
    }
    free(latent);
    return job;
}

static inline kit_job kit_job_new(unsigned number)
{
    return kit_job_sized(number, 8);
}

static inline uint64_t kit_content(const kit_job *job)
{
    luna_packet *packet = NULL;
    luna_msg_job message;
    uint64_t content = 0;
    if (luna_packet_open(job->body, job->len, &packet) == LUNA_OK &&
        luna_packet_read(packet, &message) == LUNA_OK)
        content = luna_job_content(&message);
    luna_packet_close(&packet);
    return content;
}

//  As luna_store_job_new makes it of the message.
static inline luna_store_job kit_row(const kit_job *job)
{
    return (luna_store_job){.client = kit_id(999),
                            .prompt_id = luna_text_of("prompt-7"),
                            .batches = {KIT_BATCH},
                            .content = kit_content(job),
                            .info = {.id = job->id,
                                     .priority = job->priority,
                                     .images = KIT_BATCH,
                                     .bytes = job->len,
                                     .created_ms = job->accepted_ms - 1,
                                     .accepted_ms = job->accepted_ms,
                                     .vae = luna_text_of(job->vae)}};
}

//  ---- operations -----------------------------------------------------------------

static inline luna_store_op kit_put(const kit_job *job)
{
    luna_store_op op = {.kind = LUNA_STORE_PUT, .id = job->id};
    op.in.put.job = kit_row(job);
    op.in.put.body = (luna_blob){.data = job->body, .len = job->len};
    return op;
}

static inline luna_store_op kit_attempt(luna_id id, uint64_t attempt)
{
    luna_store_op op = {.kind = LUNA_STORE_ATTEMPT, .id = id};
    op.in.attempt = (luna_store_attempt){
        .attempt = attempt, .decoder = luna_text_of("gpu1"), .started_ms = 5000};
    return op;
}

static inline luna_store_op kit_images(luna_id id, const luna_msg_image *items,
                                       size_t count)
{
    luna_store_op op = {.kind = LUNA_STORE_IMAGES, .id = id};
    op.in.images = (luna_store_images){.items = items, .count = count};
    return op;
}

static inline luna_store_op kit_finish(luna_id id, luna_job_state state)
{
    luna_store_op op = {.kind = LUNA_STORE_FINISH, .id = id};
    op.in.finish = (luna_store_finish){.state = state, .finished_ms = 9000};
    if (state == LUNA_JOB_FAILED) {
        op.in.finish.error = luna_text_of("bad_latent");
        op.in.finish.detail = luna_text_of("NaN in latent 1");
    }
    return op;
}

static inline luna_store_op kit_requeue(luna_id id, uint64_t lost, uint64_t refused)
{
    luna_store_op op = {.kind = LUNA_STORE_REQUEUE, .id = id};
    op.in.requeue = (luna_store_requeue){.lost = lost, .refused = refused};
    return op;
}

static inline luna_store_op kit_list(luna_job_state state, uint64_t limit)
{
    luna_store_op op = {.kind = LUNA_STORE_LIST};
    op.in.list = (luna_store_list){.state = state, .limit = limit};
    return op;
}

static inline luna_store_op kit_forget(uint64_t before_ms, uint64_t limit)
{
    luna_store_op op = {.kind = LUNA_STORE_FORGET};
    op.in.forget = (luna_store_forget){.before_ms = before_ms, .limit = limit};
    return op;
}

static inline luna_store_op kit_of(luna_store_kind kind, luna_id id)
{
    return (luna_store_op){.kind = kind, .id = id};
}

//  ---- a store ----------------------------------------------------------------------

//  The next operation that is back; waits as long as it takes (the runner has a limit).
static inline luna_store_op *kit_collect(luna_store *store)
{
    for (;;) {
        luna_store_op *op = luna_store_collect(store);
        if (op) return op;
        struct pollfd wait = {.fd = luna_store_fd(store), .events = POLLIN};
        (void)poll(&wait, 1, -1);
    }
}

//  Submits, waits, returns the error; the results stay in `op`.
static inline luna_err kit_run(luna_store *store, luna_store_op *op)
{
    luna_store_submit(store, op);
    if (kit_collect(store) != op) abort();
    return op->err;
}

//  The same when nothing but the error is wanted.
static inline luna_err kit_do(luna_store *store, luna_store_op op)
{
    const luna_err err = kit_run(store, &op);
    luna_store_op_clear(&op);
    return err;
}

static inline luna_store_options kit_options(const luna_files *files)
{
    return (luna_store_options){.state_dir = "state",
                                .log_bytes = KIT_LOG_BYTES,
                                .ballast_bytes = 65536,
                                .spool_dir = "spool",
                                .files = files,
                                .sync_in_order = files != NULL};
}

static inline luna_store *kit_open_with(const luna_files *files, luna_store_jobs *active)
{
    luna_store *store = NULL;
    luna_store_jobs ignored;
    const luna_store_options options = kit_options(files);
    const luna_err err = luna_store_open(&options, &store, active ? active : &ignored);
    if (err != LUNA_OK) {
        fprintf(stderr, "open: %s\n", luna_error_text());
        return NULL;
    }
    if (!active) luna_store_jobs_free(&ignored);
    return store;
}

static inline luna_store *kit_open(void)
{
    luna_store *store = kit_open_with(NULL, NULL);
    assert_non_null(store);
    return store;
}

//  ---- the folders ---------------------------------------------------------------------

static inline void kit_path(char out[256], const char *folder, luna_id id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(&id, text);
    snprintf(out, 256, "spool/%s/%s", folder, text);
}

static inline bool kit_has(const char *folder, luna_id id)
{
    char path[256];
    kit_path(path, folder, id);
    return access(path, F_OK) == 0;
}

static inline size_t kit_files_in(const char *path)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    if (!dir) return 0;
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

//  The payload is there, sound, and the job's own bytes.
static inline bool kit_payload_is(const kit_job *job)
{
    char path[256];
    luna_map map;
    luna_payload payload;
    kit_path(path, "ready", job->id);
    if (luna_map_open(path, &map) != LUNA_OK) return false;
    const bool same = luna_payload_open(map.data, map.len, &payload) == LUNA_OK &&
                      luna_payload_verify(&payload) == LUNA_OK &&
                      payload.body.len == job->len &&
                      memcmp(payload.body.data, job->body, job->len) == 0;
    luna_map_close(&map);
    return same;
}

//  Overwrites one byte of a file.
static inline void kit_damage(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    const int old = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fputc(old ^ 0x40, file), old ^ 0x40);
    assert_int_equal(fclose(file), 0);
}

static inline void kit_empty(const char *path)
{
    char name[512];
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    closedir(dir);
    rmdir(path);
}

//  Moves to a new folder in memory, where there is one, for tests that leave out syncs
//  and make thousands of files; to be left with kit_leave.
static inline void kit_enter_memory(char folder[64])
{
    snprintf(folder, 64, "%s", "/dev/shm/luna-test-XXXXXX");
    if (!mkdtemp(folder) || chdir(folder) != 0) folder[0] = '\0';
}

static inline void kit_leave(const char *folder)
{
    if (!*folder) return;
    if (chdir("/") != 0 || rmdir(folder) != 0) fprintf(stderr, "%s stays\n", folder);
}

//  Leaves the working folder as it was; a teardown of every test.
static inline int kit_clean(void **state)
{
    (void)state;
    static const char *const folders[] = {"spool/tmp", "spool/ready", "spool/quarantine",
                                          "spool", "state"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) kit_empty(folders[i]);
    return 0;
}

//  A job whose image records tests add.
static inline luna_msg_image kit_image(uint64_t index, const char *path)
{
    return (luna_msg_image){.input = 0,
                            .index = index,
                            .path = luna_text_of(path),
                            .bytes = 1234 + index,
                            .sha256 = luna_text_of("ab12"),
                            .width = 1024,
                            .height = 768,
                            .decode_ms = 1.5,
                            .encode_ms = 2.25,
                            .write_ms = 0.125};
}

#endif
