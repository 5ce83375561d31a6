//  box.h - clients with an outbox in the test's own folder, and a look into it

#ifndef LUNA_TESTS_BOX_H
#define LUNA_TESTS_BOX_H

#include "producer/notices.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#define BOX       "box"
#define BOX_BYTES 65536  //  of the latent of a job

static uint8_t box_latent[BOX_BYTES];

static inline luna_options box_options(void)
{
    luna_options options;
    luna_options_init(&options);
    options.outbox_dir = BOX;
    options.outbox_after_ms = 0;
    return options;
}

//  Its latent is full of `mark`, so that the job is known again.
static inline void box_submit(luna_client *client, uint8_t mark, char *id)
{
    memset(box_latent, mark, sizeof box_latent);
    const luna_submission job = submission_of(box_latent, sizeof box_latent);
    assert_ok(luna_submit(client, &job, id));
}

static inline void box_keep(luna_client *client, uint8_t mark, char *id)
{
    box_submit(client, mark, id);
    assert_ok(luna_wait_kept(client, id, TAKE_MS));
}

//  Takes the next job and checks its mark; its id.
static inline luna_id box_take(stand_in *broker, uint8_t mark)
{
    taken message;
    const luna_msg_job job = take_job(broker, &message);
    const uint8_t *data = job.inputs.items[0].latent.data;
    assert_memory_equal(&job.client, &broker->client, sizeof job.client);
    for (size_t i = 0; i < BOX_BYTES; i++)
        if (data[i] != mark) fail_msg("job %d came for job %d", data[i], mark);
    const luna_id id = job.id;
    release(&message);
    return id;
}

static inline void box_accept(stand_in *broker, uint8_t mark, const char *id)
{
    const luna_id got = box_take(broker, mark);
    if (id) assert_same_id(id, &got);
    send_receipt(broker, &got, "accepted", NULL);
}

//  Files in a folder of the outbox; the name of the first in order goes to `name`.
static inline int box_files(const char *folder, char name[256])
{
    struct dirent **entries;
    char path[64];
    int files = 0;
    snprintf(path, sizeof path, BOX "/%s", folder);
    const int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            if (files++ == 0 && name) snprintf(name, 256, "%s", entries[i]->d_name);
        }
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return files;
}

static inline void box_wait_files(const char *folder, int count)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (box_files(folder, NULL) != count && luna_now_ms() < limit_ms) usleep(1000);
    assert_int_equal(box_files(folder, NULL), count);
}

//  Changes one byte of jobs/NAME.
static inline void box_damage(const char *name, off_t at)
{
    char path[320];
    uint8_t byte;
    snprintf(path, sizeof path, BOX "/jobs/%s", name);
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static inline void box_remove_folder(const char *folder)
{
    char path[64], file[512];
    snprintf(path, sizeof path, BOX "/%s", folder);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.') unlink(file);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

//  For cmocka's teardown: nothing of the outbox is left.
static inline int box_clean(void **state)
{
    (void)state;
    box_remove_folder("tmp");
    box_remove_folder("jobs");
    box_remove_folder("refused");
    box_remove_folder("damaged");
    unlink(BOX "/LOCK");
    rmdir(BOX);
    return 0;
}

#endif
