//  folder.h - folders of a store, kept as bytes and laid out again for every input
//
//  The first ones are made by the store itself: jobs in every state, once as a crash
//  leaves the database (with its write-ahead log) and once as an orderly end does.

#ifndef LUNA_TESTS_FUZZ_FOLDER_H
#define LUNA_TESTS_FUZZ_FOLDER_H

#include "broker/store/store.h"
#include "common/file.h"
#include "fuzz/fuzz.h"
#include "proto/codec.h"
#include "proto/job.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_JOBS = 8, FOLDER_PATH = 512 };

typedef struct folder_file {
    uint8_t *data;  //  NULL: there is none
    size_t len;
} folder_file;

typedef struct folder {
    folder_file db;
    folder_file wal;
    folder_file payloads[FOLDER_JOBS];
} folder;

//  ---- paths -------------------------------------------------------------------------

static char folder_root[FOLDER_PATH / 2];

static inline const char *folder_path(const char *name, char out[FOLDER_PATH])
{
    snprintf(out, FOLDER_PATH, "%s/%s", folder_root, name);
    return out;
}

static inline luna_id folder_id(uint64_t number)
{
    return (luna_id){
        {0x01, 0x93, 0xf1, 0xc2, [6] = 0x70, [8] = 0x80, [15] = (uint8_t)number}};
}

static inline const char *folder_payload(const char *dir, uint64_t number,
                                         char out[FOLDER_PATH])
{
    char text[LUNA_ID_TEXT_BYTES];
    const luna_id id = folder_id(number);
    luna_id_text(&id, text);
    snprintf(out, FOLDER_PATH, "%s/spool/%s/%s", folder_root, dir, text);
    return out;
}

static inline void folder_empty(const char *name)
{
    char path[FOLDER_PATH], file[2 * FOLDER_PATH];
    DIR *dir = opendir(folder_path(name, path));
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (unlink(file) != 0) (void)rmdir(file);
    }
    closedir(dir);
}

static const char *const folder_names[] = {"state", "spool/tmp", "spool/ready",
                                           "spool/quarantine"};

static inline void folder_clear(void)
{
    for (size_t i = 0; i < 4; i++) folder_empty(folder_names[i]);
}

//  ---- files -------------------------------------------------------------------------

static inline folder_file folder_read(const char *path)
{
    char *data = NULL;
    size_t len = 0;
    if (luna_file_read(path, SIZE_MAX - 1, &data, &len) != LUNA_OK)
        return (folder_file){0};
    return (folder_file){.data = (uint8_t *)data, .len = len};
}

static inline void folder_write(const char *path, const folder_file *file)
{
    if (!file->data) return;
    const int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) return;  //  something else is there
    CHECK(write(fd, file->data, file->len) == (ssize_t)file->len);
    close(fd);
}

static inline bool folder_has(const char *path, const folder_file *file)
{
    folder_file there = folder_read(path);
    const bool same = there.data && there.len == file->len &&
                      memcmp(there.data, file->data, file->len) == 0;
    free(there.data);
    return same;
}

static inline folder folder_copy(const folder *from)
{
    folder copy = *from;
    folder_file *files = (folder_file *)&copy;
    for (size_t i = 0; i < sizeof copy / sizeof *files; i++)
        if (files[i].data) files[i].data = fuzz_copy(files[i].data, files[i].len);
    return copy;
}

static inline void folder_free(folder *f)
{
    folder_file *files = (folder_file *)f;
    for (size_t i = 0; i < sizeof *f / sizeof *files; i++) free(files[i].data);
}

static inline folder folder_take(void)
{
    char path[FOLDER_PATH];
    folder all = {.db = folder_read(folder_path("state/luna.db", path)),
                  .wal = folder_read(folder_path("state/luna.db-wal", path))};
    for (uint64_t i = 0; i < FOLDER_JOBS; i++)
        all.payloads[i] = folder_read(folder_payload("ready", i, path));
    return all;
}

static inline void folder_lay_out(const folder *all)
{
    char path[FOLDER_PATH];
    folder_write(folder_path("state/luna.db", path), &all->db);
    folder_write(folder_path("state/luna.db-wal", path), &all->wal);
    for (uint64_t i = 0; i < FOLDER_JOBS; i++)
        folder_write(folder_payload("ready", i, path), &all->payloads[i]);
}

//  ---- a store -----------------------------------------------------------------------

static inline luna_store_options folder_options(void)
{
    static char state[FOLDER_PATH], spool[FOLDER_PATH];
    return (luna_store_options){.state_dir = folder_path("state", state),
                                .spool_dir = folder_path("spool", spool),
                                .ballast_bytes = 4096,
                                .log_bytes = 1 << 16,
                                .sync_in_order = true};
}

//  The error; the results stay in `op`.
static inline luna_err folder_run(luna_store *store, luna_store_op *op)
{
    luna_store_submit(store, op);
    luna_store_drain(store);
    CHECK(luna_store_collect(store) == op);
    CHECK((op->err == LUNA_OK) == (op->detail[0] == '\0'));
    return op->err;
}

static inline luna_err folder_do(luna_store *store, luna_store_op op)
{
    const luna_err err = folder_run(store, &op);
    luna_store_op_clear(&op);
    return err;
}

//  A job of one input with two pictures; free *body.
static inline luna_store_op folder_put(uint64_t number, void **body)
{
    static const uint8_t latent[2 * 4 * 4];
    luna_msg_input input = luna_msg_input_default();
    luna_msg_job job = luna_msg_job_default();
    input.dtype = luna_text_of("float16");
    input.shape = (luna_dims){.at = {2, 4, 1, 2}, .count = 4};
    input.latent = (luna_blob){latent, sizeof latent};
    job.id = folder_id(number);
    job.client = folder_id(200 + number % 3);
    job.created_ms = 1790000000000;
    job.priority = number % 10;
    job.prompt_id = luna_text_of("prompt-7");
    job.vae = luna_text_of(number % 2 ? "flux" : "sdxl");
    job.inputs.items = &input;
    job.inputs.count = 1;
    size_t len;
    CHECK(luna_msg_pack(LUNA_MSG_JOB, &job, body, &len) == LUNA_OK);
    luna_store_op op = {.kind = LUNA_STORE_PUT, .id = job.id};
    op.in.put.job = luna_store_job_new(&job, len, 1790000000000 + number * 1000);
    op.in.put.body = (luna_blob){*body, len};
    return op;
}

static inline luna_msg_image folder_image(uint64_t index)
{
    return (luna_msg_image){.index = index,
                            .path = luna_text_of("/out/a.png"),
                            .bytes = 1234,
                            .sha256 = luna_text_of("ab12"),
                            .width = 1024,
                            .height = 768,
                            .decode_ms = 1.5};
}

static inline luna_store_op folder_attempt(uint64_t number, uint64_t attempt)
{
    luna_store_op op = {.kind = LUNA_STORE_ATTEMPT, .id = folder_id(number)};
    op.in.attempt = (luna_store_attempt){attempt, luna_text_of("gpu1"), 1790000005000};
    return op;
}

static inline luna_store_op folder_images(uint64_t number, const luna_msg_image *image)
{
    luna_store_op op = {.kind = LUNA_STORE_IMAGES, .id = folder_id(number)};
    op.in.images = (luna_store_images){.items = image, .count = 1};
    return op;
}

static inline luna_store_op folder_finish(uint64_t number, luna_job_state state)
{
    luna_store_op op = {.kind = LUNA_STORE_FINISH, .id = folder_id(number)};
    op.in.finish = (luna_store_finish){.state = state, .finished_ms = 1790000009000};
    if (state == LUNA_JOB_COMPLETED) return op;
    op.in.finish.error = luna_text_of("io");
    op.in.finish.detail = luna_text_of("a sentence");
    return op;
}

#endif
