//  faults.h - counts every step to the disk, and makes the N-th fail or end the process
//
//  The spool's steps come through its function table. SQLite's come through its
//  system-call table (writes) and through fsync and fdatasync, which this program
//  defines in place of the C library's. A process may die here, but the power stays on:
//  a sync that succeeds is counted and otherwise left out.

#ifndef LUNA_TESTS_STORE_FAULTS_H
#define LUNA_TESTS_STORE_FAULTS_H

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "kit.h"

//  The letter stands for the step in the log.
#define STEP_TABLE(X) \
    X(ALLOCATE, 'a')  \
    X(WRITE, 'w')     \
    X(SETTLE, 'e')    \
    X(SYNC_DATA, 's') \
    X(RENAME, 'r')    \
    X(SYNC_DIR, 'd')  \
    X(UNLINK, 'u')    \
    X(DB_WRITE, 'W')  \
    X(DB_SYNC, 'S')

typedef enum step {
#define X(symbol, letter) STEP_##symbol,
    STEP_TABLE(X)
#undef X
        STEPS
} step;

static const char step_letters[] = {
#define X(symbol, letter) letter,
    STEP_TABLE(X)
#undef X
};

typedef struct faults_plan {
    int kind;   //  the step that counts, STEPS for any
    int at;     //  1 for the first such step; 0: never
    int code;   //  errno; 0 kills the process
    bool from;  //  every step from there on, not just this one
} faults_plan;

static struct {
    faults_plan plan;  //  set while no store thread is at work
    atomic_int counted;
    atomic_int each[STEPS];
    atomic_int logged;
    char log[4096];
    atomic_bool gate;  //  the next ALLOCATE waits for `open`
    sem_t there;       //  it does wait
    sem_t open;
} faults;

static inline void faults_set(int kind, int at, int code, bool from)
{
    faults.plan = (faults_plan){.kind = kind, .at = at, .code = code, .from = from};
    atomic_store(&faults.counted, 0);
    for (int i = 0; i < STEPS; i++) atomic_store(&faults.each[i], 0);
    atomic_store(&faults.logged, 0);
    memset(faults.log, 0, sizeof faults.log);
}

//  True, with errno, when the step is to fail.
static inline bool faults_hit(step kind)
{
    const int slot = atomic_fetch_add(&faults.logged, 1);
    if (slot < (int)sizeof faults.log - 1) faults.log[slot] = step_letters[kind];
    atomic_fetch_add(&faults.each[kind], 1);
    if (faults.plan.at == 0) return false;
    if (faults.plan.kind != STEPS && faults.plan.kind != (int)kind) return false;
    const int n = atomic_fetch_add(&faults.counted, 1) + 1;
    if (n != faults.plan.at && !(faults.plan.from && n > faults.plan.at)) return false;
    if (faults.plan.code == 0) kill(getpid(), SIGKILL);
    errno = faults.plan.code;
    return true;
}

//  ---- the spool's table ------------------------------------------------------------

static int faulty_allocate(int fd, off_t bytes)
{
    if (atomic_exchange(&faults.gate, false)) {
        sem_post(&faults.there);
        sem_wait(&faults.open);
    }
    return faults_hit(STEP_ALLOCATE) ? -1 : luna_files_system.allocate(fd, bytes);
}

static ssize_t faulty_write(int fd, const void *data, size_t len)
{
    return faults_hit(STEP_WRITE) ? -1 : luna_files_system.write(fd, data, len);
}

static int faulty_settle(int fd)
{
    (void)fd;
    return faults_hit(STEP_SETTLE) ? -1 : 0;
}

static int faulty_sync_data(int fd)
{
    (void)fd;
    return faults_hit(STEP_SYNC_DATA) ? -1 : 0;
}

static int faulty_sync_dir(int fd)
{
    (void)fd;
    return faults_hit(STEP_SYNC_DIR) ? -1 : 0;
}

static int faulty_rename(const char *from, const char *to)
{
    return faults_hit(STEP_RENAME) ? -1 : luna_files_system.rename(from, to);
}

static int faulty_unlink(const char *path)
{
    return faults_hit(STEP_UNLINK) ? -1 : luna_files_system.unlink(path);
}

static int faulty_free_bytes(const char *path, uint64_t *out)
{
    return luna_files_system.free_bytes(path, out);
}

static const luna_files faulty_files = {
    .allocate = faulty_allocate,
    .write = faulty_write,
    .settle = faulty_settle,
    .sync_data = faulty_sync_data,
    .sync_dir = faulty_sync_dir,
    .rename = faulty_rename,
    .unlink = faulty_unlink,
    .free_bytes = faulty_free_bytes,
};

//  ---- SQLite's calls ------------------------------------------------------------------

#define IN_PLACE_OF_LIBC __attribute__((visibility("default")))

IN_PLACE_OF_LIBC int fsync(int fd);
IN_PLACE_OF_LIBC int fdatasync(int fd);

int fsync(int fd)
{
    (void)fd;
    return faults_hit(STEP_DB_SYNC) ? -1 : 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return faults_hit(STEP_DB_SYNC) ? -1 : 0;
}

static ssize_t faulty_pwrite(int fd, const void *data, size_t len, off_t at)
{
    return faults_hit(STEP_DB_WRITE) ? -1 : pwrite(fd, data, len, at);
}

//  Once at the start of main.
static inline void faults_start(void)
{
    sem_init(&faults.there, 0, 0);
    sem_init(&faults.open, 0, 0);
    sqlite3_initialize();
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    const sqlite3_syscall_ptr call = (sqlite3_syscall_ptr)faulty_pwrite;
    (void)vfs->xSetSystemCall(vfs, "pwrite", call);
    (void)vfs->xSetSystemCall(vfs, "pwrite64", call);
}

//  ---- batches -------------------------------------------------------------------------

//  Submits all so that the first is a batch of its own and the rest have queued up
//  behind it: `ops[0]` must be a PUT of a new job.
static inline void faults_submit_behind(luna_store *store, luna_store_op *ops,
                                        size_t count)
{
    atomic_store(&faults.gate, true);
    luna_store_submit(store, &ops[0]);
    sem_wait(&faults.there);
    for (size_t i = 1; i < count; i++) luna_store_submit(store, &ops[i]);
    sem_post(&faults.open);
}

#endif
