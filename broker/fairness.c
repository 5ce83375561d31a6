//  fairness.c - the order of jobs: scheduler.h has the formula and what follows from it

#include "broker/scheduler_state.h"

#define WINDOW_MS 600000  //  a newcomer's head start, at most: 10 minutes

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

//  Never so much that it would outweigh a priority.
static int64_t window_ms(const luna_scheduler *s)
{
    const int64_t half = s->rules.ageing_ms / 2;
    return half < WINDOW_MS ? half : WINDOW_MS;
}

//  Of the queues that have such jobs the one that was served least far; 0: none has.
static int64_t least_clock_ms(const luna_queues *queues, uint32_t priority)
{
    int64_t least_ms = INT64_MAX;
    for (size_t i = 0; i < queues->count; i++) {
        const luna_queue *each = queues->at[i];
        if (each->pending[priority] > 0 && each->clock_ms[priority] < least_ms)
            least_ms = each->clock_ms[priority];
    }
    return least_ms == INT64_MAX ? 0 : least_ms;
}

//  Where the first job of a client comes in.
static int64_t newcomer_ms(luna_scheduler *s, const luna_job *job)
{
    const uint32_t priority = job->priority;
    int64_t *latest_ms = &s->accepted_ms[priority];
    *latest_ms = later(*latest_ms, job->accepted_ms);
    const int64_t served_ms =
        job->queue->pending[priority]
            ? job->queue->clock_ms[priority]
            : later(job->accepted_ms, least_clock_ms(&s->queues, priority));
    return later(served_ms, *latest_ms - window_ms(s));
}

//  The end of the turns of a client's jobs of this priority and those above it.
static int64_t turns_end_ms(const luna_client *client, uint32_t priority)
{
    int64_t end_ms = 0;
    for (uint32_t i = priority; i <= LUNA_PRIORITY_MAX; i++) {
        const luna_chain *chain = &client->chains[i];
        end_ms = later(end_ms, chain->served_ms);
        if (chain->last)
            end_ms = later(end_ms, chain->last->fair_ms + chain->last->cost_ms);
    }
    return end_ms;
}

//  With the whole fleet at work on jobs like this one.
static int64_t cost_ms(const luna_scheduler *s, const luna_job *job)
{
    int64_t decoders = 0;
    for (size_t i = 0; i < s->fleet.count; i++)
        decoders += luna_decoder_works(s->fleet.at[i]);
    const int64_t alone_ms = luna_pace_predict_ms(&s->pace, job->bytes);
    return later(alone_ms / later(decoders, 1), 1);
}

void luna_fairness_rank(const luna_scheduler *s, luna_job *job)
{
    job->rank_ms = job->fair_ms - (int64_t)job->priority * s->rules.ageing_ms;
}

void luna_fairness_place(luna_scheduler *s, luna_job *job)
{
    int64_t *clock_ms = &job->queue->clock_ms[job->priority];
    const int64_t first_ms = newcomer_ms(s, job);
    *clock_ms = later(*clock_ms, first_ms);
    job->fair_ms = later(first_ms, turns_end_ms(job->client, job->priority));
    job->cost_ms = cost_ms(s, job);
    luna_fairness_rank(s, job);
}

//  What was ordered to go next does not tell how far the others have come.
void luna_fairness_started(luna_job *job)
{
    int64_t *clock_ms = &job->queue->clock_ms[job->priority];
    luna_chain *chain = &job->client->chains[job->priority];
    if (job->next_ms == 0) *clock_ms = later(*clock_ms, job->fair_ms);
    if (!job->chained) return;
    chain->served_ms = later(chain->served_ms, job->fair_ms + job->cost_ms);
    luna_chain_remove(job);
}
