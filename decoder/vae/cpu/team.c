#define _GNU_SOURCE  //  sched_getaffinity
#include "decoder/vae/cpu/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct member {
    cpu_team *team;
    size_t number;
    pthread_t thread;
} member;

struct cpu_team {
    pthread_mutex_t lock;
    pthread_cond_t begin;
    pthread_cond_t end;
    size_t round;  //  of loops so far
    size_t busy;   //  members still in this one
    bool closing;
    cpu_work *work;
    void *context;
    size_t count;
    atomic_size_t next;
    size_t size;
    size_t started;
    member members[];  //  without the caller
};

static size_t processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int count = CPU_COUNT(&set);
    return count > 0 ? (size_t)count : 1;
}

static void take_items(cpu_team *team, size_t thread)
{
    size_t item;
    while ((item = atomic_fetch_add(&team->next, 1)) < team->count)
        team->work(team->context, item, thread);
}

static bool wait_for_round(cpu_team *team, size_t seen)
{
    pthread_mutex_lock(&team->lock);
    while (team->round == seen && !team->closing)
        pthread_cond_wait(&team->begin, &team->lock);
    const bool more = !team->closing;
    pthread_mutex_unlock(&team->lock);
    return more;
}

static void *live(void *opaque)
{
    const member *self = opaque;
    cpu_team *team = self->team;
    for (size_t round = 0; wait_for_round(team, round); round++) {
        take_items(team, self->number);
        pthread_mutex_lock(&team->lock);
        if (--team->busy == 0) pthread_cond_signal(&team->end);
        pthread_mutex_unlock(&team->lock);
    }
    return NULL;
}

luna_err cpu_team_create(int threads, cpu_team **out)
{
    const size_t size = threads > 0 ? (size_t)threads : processors();
    cpu_team *team = calloc(1, sizeof *team + size * sizeof team->members[0]);
    if (!team) return luna_error(LUNA_NO_MEMORY, "no memory for %zu threads", size);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->begin, NULL);
    pthread_cond_init(&team->end, NULL);
    team->size = size;
    for (; team->started + 1 < size; team->started++) {
        member *m = &team->members[team->started];
        *m = (member){.team = team, .number = team->started + 1};
        if (pthread_create(&m->thread, NULL, live, m) != 0) break;
    }
    *out = team;
    if (team->started + 1 == size) return LUNA_OK;
    cpu_team_destroy(out);
    return luna_error(LUNA_NO_MEMORY, "the system gives no %zu threads for decoding",
                      size);
}

void cpu_team_destroy(cpu_team **team)
{
    cpu_team *t = *team;
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    pthread_cond_broadcast(&t->begin);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < t->started; i++) pthread_join(t->members[i].thread, NULL);
    pthread_cond_destroy(&t->begin);
    pthread_cond_destroy(&t->end);
    pthread_mutex_destroy(&t->lock);
    free(t);
    *team = NULL;
}

size_t cpu_team_size(const cpu_team *team)
{
    return team->size;
}

void cpu_team_run(cpu_team *team, size_t count, cpu_work *work, void *context)
{
    pthread_mutex_lock(&team->lock);
    team->work = work;
    team->context = context;
    team->count = count;
    atomic_store(&team->next, 0);
    team->busy = team->started;
    team->round++;
    pthread_cond_broadcast(&team->begin);
    pthread_mutex_unlock(&team->lock);
    take_items(team, 0);
    pthread_mutex_lock(&team->lock);
    while (team->busy > 0) pthread_cond_wait(&team->end, &team->lock);
    pthread_mutex_unlock(&team->lock);
}
