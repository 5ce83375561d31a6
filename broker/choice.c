//  choice.c - which job goes to which decoder now
//
//  The first jobs of all lanes are looked at, and of each the best decoder: the cost is
//  lanes times decoders, whatever waits behind the first ones.

#include "broker/scheduler_state.h"

//  What a decoder would mean for a job; less is better, from the first difference on.
typedef struct luna_bid {
    bool refused;     //  it refused the job last
    int64_t wait_ms;  //  until the job would begin
    bool robs;        //  it would leave its own work for a swap
    bool cold;        //  the VAE must be loaded
    bool displaces;   //  and another one may have to go for it
    size_t holds;
    uint32_t session;
} luna_bid;

static luna_bid bid_of(const luna_scheduler *s, const luna_job *job, size_t place)
{
    const luna_decoder *decoder = s->fleet.at[place];
    const bool cold = decoder->queue != job->queue;
    const int64_t load_ms = cold ? luna_affinity_load_ms(s, job->queue) : 0;
    return (luna_bid){
        .refused = luna_id_compare(&decoder->instance, &job->avoid) == 0,
        .robs = cold && luna_affinity_has_own_work(s, job, place),
        .cold = cold,
        .displaces = cold && decoder->last_vae[0],
        .wait_ms = luna_pace_predict_ms(&s->pace, decoder->held_bytes) + load_ms,
        .holds = decoder->hold_count,
        .session = decoder->session};
}

static bool is_better(const luna_bid *a, const luna_bid *b)
{
    if (a->refused != b->refused) return b->refused;
    if (a->wait_ms != b->wait_ms) return a->wait_ms < b->wait_ms;
    if (a->robs != b->robs) return b->robs;
    if (a->cold != b->cold) return b->cold;
    if (a->displaces != b->displaces) return b->displaces;
    if (a->holds != b->holds) return a->holds < b->holds;
    return a->session < b->session;
}

//  The place in the fleet of the best decoder for a job, or the fleet's count.
static size_t choose(const luna_scheduler *s, const luna_job *job,
                     const luna_decoder_set *free)
{
    const luna_decoder_set *allowed = luna_lane_allowed(job->lane, &s->fleet);
    size_t best = s->fleet.count;
    luna_bid best_bid = {0};
    for (size_t i = 0; i < s->fleet.count; i++) {
        const luna_decoder *each = s->fleet.at[i];
        if (!luna_decoder_set_has(free, i) || !luna_decoder_set_has(allowed, i)) continue;
        if (!luna_decoder_has_room(each, job->bytes)) continue;
        if (luna_decoder_holds_job(each, &job->id)) continue;
        const luna_bid bid = bid_of(s, job, i);
        if (best < s->fleet.count && !is_better(&bid, &best_bid)) continue;
        best = i;
        best_bid = bid;
    }
    return best;
}

//  The first job of a lane against the best one so far.
static void consider(luna_scheduler *s, luna_lane *lane, const luna_decoder_set *free,
                     int64_t now_ms, luna_choice *best)
{
    luna_job *first = luna_job_heap_first(&lane->waiting);
    lane->held_back_by = NULL;
    if (!first || (best->job && luna_job_ranks_before(best->job, first))) return;
    const size_t place = choose(s, first, free);
    if (place == s->fleet.count) return;
    lane->held_back_by = luna_affinity_waits(s, first, place, now_ms);
    if (!lane->held_back_by)
        *best = (luna_choice){.job = first, .decoder = s->fleet.at[place]};
}

//  The next lane in the order of the queues; NULL after the last one.
static luna_lane *next_lane(const luna_queues *queues, size_t *queue, size_t *lane)
{
    for (; *queue < queues->count; ++*queue, *lane = 0)
        if (*lane < queues->at[*queue]->lane_count)
            return queues->at[*queue]->lanes[(*lane)++];
    return NULL;
}

//  Those that would have started but for affinity wait from now on.
static void note_held_back(luna_scheduler *s, const luna_job *started, int64_t now_ms)
{
    const luna_lane *lane;
    for (size_t q = 0, l = 0; (lane = next_lane(&s->queues, &q, &l));) {
        const luna_job *first = luna_job_heap_first(&lane->waiting);
        if (!lane->held_back_by || *lane->held_back_by) continue;
        if (!started || luna_job_ranks_before(first, started))
            *lane->held_back_by = now_ms;
    }
}

bool luna_choice_next(luna_scheduler *s, int64_t now_ms, luna_choice *choice)
{
    luna_decoder_set free;
    luna_lane *lane;
    *choice = (luna_choice){0};
    if (!luna_fleet_free(&s->fleet, &free)) return false;
    for (size_t q = 0, l = 0; (lane = next_lane(&s->queues, &q, &l));)
        consider(s, lane, &free, now_ms, choice);
    note_held_back(s, choice->job, now_ms);
    return choice->job != NULL;
}
