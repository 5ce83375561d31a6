//  gate.h - where a thread under test is held, so that each state lasts as long as a test
//  looks at it
//
//  The thread calls gate_pass, from a callback; it goes on at once while the gate is
//  open. One that never closes counts.

#ifndef TEST_WORKER_GATE_H
#define TEST_WORKER_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool closed;
    size_t held;  //  that stand at it
    size_t came;  //  ever
} gate;

static inline void gate_init(gate *self)
{
    *self = (gate){.closed = false};
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->news, NULL);
}

static inline void gate_destroy(gate *self)
{
    pthread_mutex_destroy(&self->lock);
    pthread_cond_destroy(&self->news);
}

static inline void gate_pass(gate *self)
{
    pthread_mutex_lock(&self->lock);
    self->held++;
    self->came++;
    pthread_cond_broadcast(&self->news);
    while (self->closed) pthread_cond_wait(&self->news, &self->lock);
    self->held--;
    pthread_mutex_unlock(&self->lock);
}

static inline void gate_set(gate *self, bool closed)
{
    pthread_mutex_lock(&self->lock);
    self->closed = closed;
    pthread_cond_broadcast(&self->news);
    pthread_mutex_unlock(&self->lock);
}

//  Until somebody stands at it.
static inline void gate_wait_held(gate *self)
{
    pthread_mutex_lock(&self->lock);
    while (self->held == 0) pthread_cond_wait(&self->news, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static inline void gate_wait_came(gate *self, size_t count)
{
    pthread_mutex_lock(&self->lock);
    while (self->came < count) pthread_cond_wait(&self->news, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static inline size_t gate_came(gate *self)
{
    pthread_mutex_lock(&self->lock);
    const size_t came = self->came;
    pthread_mutex_unlock(&self->lock);
    return came;
}

#endif
