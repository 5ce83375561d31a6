#include "broker/queues.h"

#include <stdlib.h>
#include <string.h>

static void free_queue(luna_queue *queue)
{
    for (size_t i = 0; i < queue->lane_count; i++) {
        free(queue->lanes[i]->waiting.at);
        free(queue->lanes[i]);
    }
    free(queue->vae);
    free(queue);
}

void luna_queues_free(luna_queues *queues)
{
    while (queues->count > 0) free_queue(queues->at[--queues->count]);
}

static luna_queue *find(const luna_queues *queues, luna_text vae)
{
    for (size_t i = 0; i < queues->count; i++)
        if (luna_text_is(vae, queues->at[i]->vae)) return queues->at[i];
    return NULL;
}

//  Forgets the queue at `i`; its decoders are known by the name of the VAE only.
static void forget(luna_queues *queues, luna_fleet *fleet, size_t i)
{
    luna_queue *queue = queues->at[i];
    for (size_t d = 0; d < fleet->count; d++)
        if (fleet->at[d]->queue == queue) fleet->at[d]->queue = NULL;
    queues->at[i] = queues->at[--queues->count];
    free_queue(queue);
}

static void forget_one_empty(luna_queues *queues, luna_fleet *fleet)
{
    for (size_t i = 0; i < queues->count; i++) {
        if (queues->at[i]->jobs > 0) continue;
        forget(queues, fleet, i);
        return;
    }
}

static void link_decoders(luna_queue *queue, luna_fleet *fleet)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (queue->vae[0] && strcmp(fleet->at[i]->last_vae, queue->vae) == 0)
            fleet->at[i]->queue = queue;
}

static luna_queue *new_queue(luna_text vae)
{
    luna_queue *queue = calloc(1, sizeof *queue);
    if (queue) queue->vae = malloc(vae.len + 1);
    if (!queue || !queue->vae) {
        free(queue);
        return NULL;
    }
    luna_text_copy(vae, queue->vae, vae.len + 1);
    queue->load_ms = -1;
    return queue;
}

static luna_err open_queue(luna_queues *queues, luna_fleet *fleet, luna_text vae,
                           luna_queue **out)
{
    luna_queue *queue = find(queues, vae);
    if (!queue) {
        if (queues->count == LUNA_QUEUES_MAX) forget_one_empty(queues, fleet);
        if (queues->count == LUNA_QUEUES_MAX)
            return luna_error(LUNA_BUSY, "jobs for %d different VAEs are waiting",
                              LUNA_QUEUES_MAX);
        queue = new_queue(vae);
        if (!queue) return luna_error(LUNA_NO_MEMORY, "no memory for one more queue");
        queues->at[queues->count++] = queue;
        link_decoders(queue, fleet);
    }
    *out = queue;
    return LUNA_OK;
}

static luna_err open_lane(luna_queue *queue, luna_formats formats, luna_lane **out)
{
    for (size_t i = 0; i < queue->lane_count; i++) {
        *out = queue->lanes[i];
        if ((*out)->formats == formats) return LUNA_OK;
    }
    luna_lane *lane = calloc(1, sizeof *lane);
    if (!lane) return luna_error(LUNA_NO_MEMORY, "no memory for one more lane");
    *lane = (luna_lane){
        .queue = queue, .formats = formats, .waiting = {.before = luna_job_ranks_before}};
    queue->lanes[queue->lane_count++] = *out = lane;
    return LUNA_OK;
}

luna_err luna_queues_open(luna_queues *queues, luna_fleet *fleet, luna_text vae,
                          luna_formats formats, luna_lane **out)
{
    luna_queue *queue = NULL;
    if (!vae.data) vae = luna_text_of("");
    LUNA_TRY(open_queue(queues, fleet, vae, &queue));
    const luna_err err = open_lane(queue, formats & LUNA_FORMATS_ALL, out);
    if (err != LUNA_OK) luna_queues_close(queues, fleet, queue);
    return err;
}

void luna_queues_close(luna_queues *queues, luna_fleet *fleet, luna_queue *queue)
{
    if (queue->jobs > 0 || queues->count <= LUNA_QUEUES_KEPT) return;
    for (size_t i = 0; i < queues->count; i++) {
        if (queues->at[i] != queue) continue;
        forget(queues, fleet, i);
        return;
    }
}

const luna_decoder_set *luna_lane_allowed(luna_lane *lane, const luna_fleet *fleet)
{
    if (lane->fleet_version != fleet->version) {
        lane->allowed = luna_fleet_for(fleet, lane->queue->vae, lane->formats);
        lane->fleet_version = fleet->version;
    }
    return &lane->allowed;
}
