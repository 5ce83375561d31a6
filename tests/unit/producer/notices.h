//  notices.h - a luna_notice_callback that remembers what it was told

#ifndef LUNA_TESTS_NOTICES_H
#define LUNA_TESTS_NOTICES_H

#include "producer/stand_in.h"

#include <pthread.h>

#define TOLD_MAX 32

typedef struct told {
    char kind[24];
    char reason[1024];
    char job_id[LUNA_JOB_ID_BYTES];
    uint64_t retry_ms, jobs, kept;
} told;

typedef struct notices {
    pthread_mutex_t lock;
    told told[TOLD_MAX];
    size_t count;
    size_t seen;  //  by expect_notice
} notices;

static inline void note(void *context, const luna_notice *notice)
{
    notices *all = context;
    pthread_mutex_lock(&all->lock);
    assert_true(all->count < TOLD_MAX);
    told *one = &all->told[all->count++];
    snprintf(one->kind, sizeof one->kind, "%s", notice->kind);
    snprintf(one->reason, sizeof one->reason, "%s", notice->reason);
    snprintf(one->job_id, sizeof one->job_id, "%s", notice->job_id);
    one->retry_ms = notice->retry_ms;
    one->jobs = notice->jobs;
    one->kept = notice->kept;
    pthread_mutex_unlock(&all->lock);
}

static inline void notices_init(notices *all)
{
    memset(all, 0, sizeof *all);
    pthread_mutex_init(&all->lock, NULL);
}

static inline size_t notices_count(notices *all)
{
    pthread_mutex_lock(&all->lock);
    const size_t count = all->count;
    pthread_mutex_unlock(&all->lock);
    return count;
}

//  The next notice there is, which must be of this kind.
static inline told expect_notice(notices *all, const char *kind)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (notices_count(all) <= all->seen && luna_now_ms() < limit_ms) usleep(1000);
    if (notices_count(all) <= all->seen) fail_msg("nobody told of '%s'", kind);
    const told one = all->told[all->seen++];
    if (strcmp(one.kind, kind) != 0)
        fail_msg("told of '%s' (%s), not of '%s'", one.kind, one.reason, kind);
    assert_true(one.reason[0] != '\0');
    return one;
}

static inline void assert_no_more_notices(notices *all)
{
    usleep(30000);
    if (notices_count(all) > all->seen)
        fail_msg("told of '%s' too", all->told[all->seen].kind);
}

#endif
