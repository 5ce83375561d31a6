//  faults.h - counts every step to the disk, and makes the N-th fail or end the process
//
//  The spool's steps come through its function table. SQLite's come through its
//  system-call table and through fsync and fdatasync, which this program defines in
//  place of the C library's. A sync that succeeds is counted, noted in the record of
//  what a power loss would take (power.h, when that was started), and left out.

#ifndef LUNA_TESTS_STORE_FAULTS_H
#define LUNA_TESTS_STORE_FAULTS_H

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "kit.h"
#include "power.h"

//  The letter stands for the step in the log.
#define STEP_TABLE(X) \
    X(ALLOCATE, 'a')  \
    X(CUT, 'c')       \
    X(WRITE, 'w')     \
    X(SETTLE, 'e')    \
    X(SYNC_DATA, 's') \
    X(RENAME, 'r')    \
    X(SYNC_DIR, 'd')  \
    X(UNLINK, 'u')    \
    X(DB_WRITE, 'W')  \
    X(DB_SIZE, 'T')   \
    X(DB_CREATE, 'C') \
    X(DB_UNLINK, 'U') \
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
    int kind;            //  the step that counts, STEPS for any
    int at;              //  1 for the first such step; 0: never
    int code;            //  errno; 0 kills the process
    bool from;           //  every step from there on, not just this one
    bool ballast_helps;  //  once it is cut, only ALLOCATE goes on failing
} faults_plan;

static struct {
    faults_plan plan;  //  set while no store thread is at work
    atomic_int counted;
    atomic_int each[STEPS];
    atomic_bool freed;
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
    atomic_store(&faults.freed, false);
    for (int i = 0; i < STEPS; i++) atomic_store(&faults.each[i], 0);
    atomic_store(&faults.logged, 0);
    memset(faults.log, 0, sizeof faults.log);
}

//  A removal needs no room.
static inline bool faults_may_fail(step kind)
{
    const bool removal =
        kind == STEP_UNLINK || kind == STEP_DB_UNLINK || kind == STEP_CUT;
    return !removal || faults.plan.code != ENOSPC;
}

//  Room for all but what is allocated.
static inline void faults_freed(void)
{
    if (faults.plan.ballast_helps) atomic_store(&faults.freed, true);
}

//  True, with errno, when the step is to fail.
static inline bool faults_hit(step kind)
{
    const int slot = atomic_fetch_add(&faults.logged, 1);
    if (slot < (int)sizeof faults.log - 1) faults.log[slot] = step_letters[kind];
    atomic_fetch_add(&faults.each[kind], 1);
    if (faults.plan.at == 0) return false;
    if (faults.plan.kind != STEPS && faults.plan.kind != (int)kind) return false;
    if (!faults_may_fail(kind)) return false;
    if (atomic_load(&faults.freed) && kind != STEP_ALLOCATE) return false;
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
    if (faults_hit(STEP_ALLOCATE)) return -1;
    power_will_size(fd, bytes);
    return luna_files_system.allocate(fd, bytes);
}

static int faulty_cut(int fd)
{
    if (faults_hit(STEP_CUT)) return -1;
    power_will_size(fd, 0);
    faults_freed();
    return luna_files_system.cut(fd);
}

static ssize_t faulty_write(int fd, const void *data, size_t len)
{
    if (faults_hit(STEP_WRITE)) return -1;
    power_will_write(fd, lseek(fd, 0, SEEK_CUR), len);
    return luna_files_system.write(fd, data, len);
}

static int faulty_settle(int fd)
{
    (void)fd;
    return faults_hit(STEP_SETTLE) ? -1 : 0;
}

static int faulty_sync(step kind, int fd)
{
    const bool fails = faults_hit(kind);
    power_synced(fd, !fails);
    return fails ? -1 : 0;
}

static int faulty_sync_data(int fd)
{
    return faulty_sync(STEP_SYNC_DATA, fd);
}

static int faulty_sync_dir(int fd)
{
    return faulty_sync(STEP_SYNC_DIR, fd);
}

static int faulty_rename(const char *from, const char *to)
{
    if (faults_hit(STEP_RENAME)) return -1;
    const int rc = luna_files_system.rename(from, to);
    if (rc == 0) power_renamed(from, to);
    return rc;
}

static int faulty_unlink(const char *path)
{
    if (faults_hit(STEP_UNLINK)) return -1;
    power_will_unlink(path);
    return luna_files_system.unlink(path);
}

static int faulty_free_bytes(const char *path, uint64_t *out)
{
    return luna_files_system.free_bytes(path, out);
}

static const luna_files faulty_files = {
    .allocate = faulty_allocate,
    .cut = faulty_cut,
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
    const int code = errno;
    const int rc = faulty_sync(STEP_DB_SYNC, fd);
    if (rc == 0) errno = code;
    return rc;
}

int fdatasync(int fd)
{
    return fsync(fd);
}

static ssize_t faulty_pwrite(int fd, const void *data, size_t len, off_t at)
{
    if (faults_hit(STEP_DB_WRITE)) return -1;
    power_will_write(fd, at, len);
    return pwrite(fd, data, len, at);
}

static int faulty_ftruncate(int fd, off_t size)
{
    if (faults_hit(STEP_DB_SIZE)) return -1;
    power_will_size(fd, size);
    return ftruncate(fd, size);
}

static bool is_shared_memory(const char *path)
{
    const size_t len = strlen(path);
    return len > 4 && strcmp(path + len - 4, "-shm") == 0;
}

static int faulty_open(const char *path, int flags, int mode)
{
    const bool makes =
        flags & O_CREAT && !is_shared_memory(path) && access(path, F_OK) != 0;
    if (makes && faults_hit(STEP_DB_CREATE)) return -1;
    const int fd = open(path, flags, mode);
    if (fd >= 0 && makes) power_created(path);
    return fd;
}

static int faulty_db_unlink(const char *path)
{
    if (is_shared_memory(path)) return unlink(path);
    if (faults_hit(STEP_DB_UNLINK)) return -1;
    power_will_unlink(path);
    return unlink(path);
}

static inline void faults_replace(const char *name, sqlite3_syscall_ptr call)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    (void)vfs->xSetSystemCall(vfs, name, call);
}

//  Once at the start of main.
static inline void faults_start(void)
{
    sem_init(&faults.there, 0, 0);
    sem_init(&faults.open, 0, 0);
    sqlite3_initialize();
    faults_replace("pwrite", (sqlite3_syscall_ptr)faulty_pwrite);
    faults_replace("pwrite64", (sqlite3_syscall_ptr)faulty_pwrite);
    faults_replace("ftruncate", (sqlite3_syscall_ptr)faulty_ftruncate);
    faults_replace("open", (sqlite3_syscall_ptr)faulty_open);
    faults_replace("unlink", (sqlite3_syscall_ptr)faulty_db_unlink);
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
