//  faulty_ops.h - the outbox's file operations, with the N-th one failing or fatal
//
//  Every operation goes through `faults`: it is written to a log, and may fail with an
//  errno or kill the process. A process may die here, but the power stays on: a sync that
//  succeeds is counted and otherwise left out.

#ifndef LUNA_TESTS_FAULTY_OPS_H
#define LUNA_TESTS_FAULTY_OPS_H

#include "producer/luna/outbox.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

//  The letters of the log.
#define OP_ALLOCATE  'a'
#define OP_WRITE     'w'
#define OP_READ      'g'
#define OP_SYNC_DATA 's'
#define OP_SYNC_DIR  'd'
#define OP_RENAME    'r'
#define OP_UNLINK    'u'

typedef struct faults_plan {
    int at;            //  1 for the first counted operation; 0: never
    int code;          //  errno; 0 kills the process
    bool from;         //  every operation from there on, not just this one
    const char *only;  //  letters that count; NULL: all
} faults_plan;

static struct {
    faults_plan plan;  //  set while no disk thread is at work, or with `armed` false
    atomic_bool armed;
    atomic_int counted;
    atomic_int logged;
    char log[65536];
} faults;

static inline void faults_set(faults_plan plan)
{
    atomic_store(&faults.armed, false);
    faults.plan = plan;
    atomic_store(&faults.counted, 0);
    atomic_store(&faults.logged, 0);
    memset(faults.log, 0, sizeof faults.log);
    atomic_store(&faults.armed, plan.at > 0);
}

static inline bool faults_hit(char op)
{
    const int slot = atomic_fetch_add(&faults.logged, 1);
    if (slot < (int)sizeof faults.log - 1) faults.log[slot] = op;
    if (!atomic_load(&faults.armed)) return false;
    if (faults.plan.only && !strchr(faults.plan.only, op)) return false;
    const int n = atomic_fetch_add(&faults.counted, 1) + 1;
    if (n != faults.plan.at && !(faults.plan.from && n > faults.plan.at)) return false;
    if (faults.plan.code == 0) kill(getpid(), SIGKILL);
    errno = faults.plan.code;
    return true;
}

static inline int faulty_allocate(int fd, off_t bytes)
{
    return faults_hit(OP_ALLOCATE) ? -1 : luna_file_ops_system.allocate(fd, bytes);
}

static inline ssize_t faulty_write(int fd, const void *data, size_t len)
{
    return faults_hit(OP_WRITE) ? -1 : luna_file_ops_system.write(fd, data, len);
}

static inline ssize_t faulty_read(int fd, void *data, size_t len, off_t at)
{
    return faults_hit(OP_READ) ? -1 : luna_file_ops_system.read(fd, data, len, at);
}

static inline int faulty_sync_data(int fd)
{
    (void)fd;
    return faults_hit(OP_SYNC_DATA) ? -1 : 0;
}

static inline int faulty_sync_dir(int fd)
{
    (void)fd;
    return faults_hit(OP_SYNC_DIR) ? -1 : 0;
}

static inline int faulty_rename(const char *from, const char *to)
{
    return faults_hit(OP_RENAME) ? -1 : luna_file_ops_system.rename(from, to);
}

static inline int faulty_unlink(const char *path)
{
    return faults_hit(OP_UNLINK) ? -1 : luna_file_ops_system.unlink(path);
}

static const luna_file_ops faulty_ops = {
    .allocate = faulty_allocate,
    .write = faulty_write,
    .read = faulty_read,
    .sync_data = faulty_sync_data,
    .sync_dir = faulty_sync_dir,
    .rename = faulty_rename,
    .unlink = faulty_unlink,
};

#endif
