//  outbox.c - a client's outbox folder after anything may have happened to it
//
//  Jobs are kept in it; then bytes change, files go, swap, come under other names and are
//  no files. Every file that is listed is read or said to be damaged; a job nobody
//  touched is listed under its name and reads as it was; what is set aside is aside.

#include "fuzz/fuzz.h"
#include "producer/luna/outbox.h"
#include "proto/codec.h"
#include "proto/job.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOBS = 4, CHANGES = 5, PATH_BYTES = 512, HEADER_BYTES = 64, MAX_BYTES = 1 << 20 };

static char root[PATH_BYTES / 2];

typedef struct kept {
    luna_outbox_name name;
    char file[PATH_BYTES / 4];  //  its name in jobs/
    void *message;
    size_t len;
    uint8_t *data;  //  the whole file
    size_t size;
} kept;

static kept jobs[JOBS];

typedef struct copy {
    uint8_t *data;  //  NULL: there is none
    size_t size;
    bool touched;
} copy;

//  ---- folders -----------------------------------------------------------------------

static const char *in(const char *folder, const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s/%s", root, folder, name);
    return path;
}

static const char *const folders[] = {"tmp", "jobs", "refused", "damaged"};

static void empty(const char *folder)
{
    char path[PATH_BYTES], file[2 * PATH_BYTES];
    DIR *dir = opendir(in(folder, "", path));
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(file, sizeof file, "%s%s", path, entry->d_name);
        if (unlink(file) != 0) (void)rmdir(file);
    }
    if (dir) closedir(dir);
}

static void clear(void)
{
    for (size_t i = 0; i < 4; i++) empty(folders[i]);
}

static void remove_root(void)
{
    char path[PATH_BYTES];
    clear();
    for (size_t i = 0; i < 4; i++) (void)rmdir(in(folders[i], "", path));
    (void)unlink(in(".", "LOCK", path));
    (void)rmdir(root);
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
    char path[PATH_BYTES];
    const int fd = open(in("jobs", name, path),
                        O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) return;  //  something else is there
    CHECK(write(fd, data, size) == (ssize_t)size);
    close(fd);
}

//  ---- the first folder ----------------------------------------------------------------

static void make_message(kept *k, uint8_t number)
{
    static const uint8_t latent[64];
    luna_msg_input input = luna_msg_input_default();
    luna_msg_job job = luna_msg_job_default();
    k->name = (luna_outbox_name){.order = (uint64_t)number * number,
                                 .job = {{1, [15] = number}},
                                 .client = {{2, [15] = number % 2}}};
    input.dtype = luna_text_of("float16");
    input.shape = (luna_dims){.at = {1, 4, 2, 4}, .count = 4};
    input.latent = (luna_blob){latent, sizeof latent};
    job.id = k->name.job;
    job.client = k->name.client;
    job.created_ms = 1;
    job.priority = number;
    job.inputs.items = &input;
    job.inputs.count = 1;
    CHECK(luna_msg_pack(LUNA_MSG_JOB, &job, &k->message, &k->len) == LUNA_OK);
}

static void keep(luna_outbox *outbox, kept *k)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    const luna_blob message = {k->message, k->len};
    CHECK(luna_outbox_put(outbox, &k->name, message) == LUNA_OK);
    luna_outbox_path(outbox, "jobs", &k->name, "", path);
    snprintf(k->file, sizeof k->file, "%s", strrchr(path, '/') + 1);
    FILE *file = fopen(path, "rb");
    k->size = HEADER_BYTES + k->len;
    k->data = malloc(k->size);
    CHECK(file && k->data && fread(k->data, 1, k->size, file) == k->size);
    fclose(file);
}

int LLVMFuzzerInitialize(int *count, char ***words)
{
    (void)count;
    (void)words;
    const char *dir = getenv("LUNA_FUZZ_DIR");
    luna_outbox *outbox = NULL;
    snprintf(root, sizeof root, "%.200s/outbox-XXXXXX", dir ? dir : "/dev/shm");
    CHECK(mkdtemp(root));
    CHECK(luna_outbox_open(root, MAX_BYTES, &outbox) == LUNA_OK);
    for (uint8_t i = 0; i < JOBS; i++) {
        make_message(&jobs[i], i);
        keep(outbox, &jobs[i]);
    }
    luna_outbox_close(&outbox);
    atexit(remove_root);
    return 0;
}

//  ---- changes ------------------------------------------------------------------------

static void change_bytes(fuzz_bytes *from, copy *c)
{
    const size_t at = (size_t)fuzz_uint(from, 2);
    const luna_blob with = fuzz_blob(from, 12);
    for (size_t i = 0; c->size && i < with.len; i++)
        c->data[(at + i) % c->size] = ((const uint8_t *)with.data)[i];
}

static void change_one(fuzz_bytes *from, copy copies[JOBS])
{
    const uint64_t way = fuzz_below(from, 4);
    copy *c = &copies[fuzz_below(from, JOBS)], *other = &copies[fuzz_below(from, JOBS)];
    c->touched = true;
    if (way == 0) change_bytes(from, c);
    if (way == 1 && c->size) c->size = (size_t)fuzz_uint(from, 2) % c->size;
    if (way == 2) {
        free(c->data);
        *c = (copy){.touched = true};
    }
    if (way != 3) return;
    const copy held = *c;
    *c = *other;
    *other = held;
    c->touched = other->touched = true;
}

static void add_name(fuzz_bytes *from)
{
    static const char *const names[] = {
        "00000000000000000007-01000000-0000-0000-0000-000000000007-02000000-0000-0000-"
        "0000-000000000001",
        "99999999999999999999-01000000-0000-0000-0000-000000000008-02000000-0000-0000-"
        "0000-000000000001",
        "00000000000000000007-0100000000000000000000000000-0007",
        "x",
        ".hidden",
        "00000000000000000001-01000000-0000-0000-0000-00000000000G-02000000-0000-0000-"
        "0000-000000000001",
        "00000000000000000008-01000000-0000-0000-0000-000000000009-02000000-0000-0000-"
        "0000-000000000001",
        "\xff"};
    char path[PATH_BYTES];
    const char *name = names[fuzz_below(from, 8)];
    const luna_blob bytes = fuzz_blob(from, 100);
    in("jobs", name, path);
    switch (fuzz_below(from, 5)) {
        case 0:
            (void)mkdir(path, 0700);
            break;
        case 1:
            (void)mkfifo(path, 0600);
            break;
        case 2:
            (void)!symlink("/dev/zero", path);
            break;
        case 3:
            write_file(name, bytes.data, bytes.len);
            break;
        default:
            write_file(name, jobs[0].data, jobs[0].size);
    }
}

static void lay_out(fuzz_bytes *from, copy copies[JOBS])
{
    for (size_t i = 0; i < JOBS; i++)
        copies[i] = (copy){fuzz_copy(jobs[i].data, jobs[i].size), jobs[i].size, false};
    for (uint64_t n = fuzz_below(from, CHANGES); n > 0; n--) change_one(from, copies);
    for (size_t i = 0; i < JOBS; i++)
        if (copies[i].data) write_file(jobs[i].file, copies[i].data, copies[i].size);
    for (uint64_t n = fuzz_below(from, 4); n > 0; n--) add_name(from);
}

//  ---- what must hold
//  -------------------------------------------------------------------

static int job_of(const luna_outbox_name *name)
{
    for (int i = 0; i < JOBS; i++)
        if (memcmp(&jobs[i].name.job, &name->job, sizeof name->job) == 0 &&
            jobs[i].name.order == name->order)
            return i;
    return -1;
}

static void check_aside(luna_err err, const char *path)
{
    struct stat info;
    if (err == LUNA_OK) CHECK(lstat(path, &info) == 0);
    if (err != LUNA_OK) fuzz_check_error(err);
}

//  A read job is what its name says; one that is not is set aside.
static void read_one(luna_outbox *outbox, const luna_outbox_file *file,
                     const copy *copies)
{
    uint64_t priority = 77;
    char path[LUNA_OUTBOX_PATH_BYTES];
    uint8_t *to = malloc((size_t)file->bytes + 1);
    CHECK(to);
    const int i = job_of(&file->name);
    const luna_err err = luna_outbox_get(outbox, &file->name, to, file->bytes, &priority);
    if (i >= 0 && !copies[i].touched) {
        CHECK(err == LUNA_OK && file->bytes == jobs[i].len && priority == (uint64_t)i);
        CHECK(memcmp(to, jobs[i].message, jobs[i].len) == 0);
    }
    if (err == LUNA_OK) {
        luna_id id;
        CHECK(luna_packet_peek_id(to, file->bytes, "id", &id));
        CHECK(luna_id_compare(&id, &file->name.job) == 0);
    } else {
        fuzz_check_error(err);
        check_aside(luna_outbox_set_aside(outbox, &file->name, file->bytes, path), path);
    }
    free(to);
}

static void settle(fuzz_bytes *from, luna_outbox *outbox, const luna_outbox_file *file)
{
    char path[LUNA_OUTBOX_PATH_BYTES];
    const uint64_t way = fuzz_below(from, 3);
    if (way == 0)
        check_aside(luna_outbox_refuse(outbox, &file->name, file->bytes, "no", path),
                    path);
    if (way == 1 && luna_outbox_remove(outbox, &file->name, file->bytes) != LUNA_OK)
        fuzz_check_error(LUNA_IO);
}

static void check_listed(const luna_outbox_file *files, size_t count, const copy *copies)
{
    size_t found = 0, wanted = 0;
    for (size_t i = 0; i < JOBS; i++) wanted += !copies[i].touched;
    for (size_t i = 0; i < count; i++) {
        const int job = job_of(&files[i].name);
        found += job >= 0 && !copies[job].touched;
        if (i > 0) CHECK(files[i - 1].name.order <= files[i].name.order);
    }
    CHECK(found == wanted);
}

static void open_once(fuzz_bytes *from, const copy *copies)
{
    luna_outbox *outbox = NULL;
    luna_outbox_file *files = NULL;
    size_t count = 0;
    CHECK(luna_outbox_open(root, MAX_BYTES, &outbox) == LUNA_OK);
    CHECK(luna_outbox_list(outbox, &files, &count) == LUNA_OK);
    check_listed(files, count, copies);
    for (size_t i = 0; i < count; i++) read_one(outbox, &files[i], copies);
    for (size_t i = 0; i < count; i++) settle(from, outbox, &files[i]);
    CHECK(luna_outbox_sync(outbox) == LUNA_OK);
    free(files);
    luna_outbox_close(&outbox);
    CHECK(!outbox);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    copy copies[JOBS];
    clear();
    lay_out(&from, copies);
    open_once(&from, copies);
    for (size_t i = 0; i < JOBS; i++) copies[i].touched = true;
    open_once(&from, copies);
    for (size_t i = 0; i < JOBS; i++) free(copies[i].data);
    return 0;
}
