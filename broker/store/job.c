//  job.c - the plain data of store.h: jobs and operations

#include "broker/store/store.h"
#include "proto/job.h"

static uint64_t sum_of(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

luna_store_job luna_store_job_new(const luna_msg_job *job, size_t body_bytes,
                                  uint64_t accepted_ms)
{
    luna_store_job out = {
        .state = LUNA_JOB_PENDING,
        .client = job->client,
        .prompt_id = job->prompt_id,
        .formats = luna_formats_of_job(job),
        .content = luna_job_content(job),
        .info = {.id = job->id,
                 .state = luna_text_of(luna_job_state_name(LUNA_JOB_PENDING)),
                 .priority = job->priority,
                 .images = luna_job_images(job),
                 .bytes = body_bytes,
                 .created_ms = job->created_ms,
                 .accepted_ms = accepted_ms,
                 .vae = job->vae},
    };
    if (job->deadline_ms) out.info.deadline_ms = sum_of(accepted_ms, job->deadline_ms);
    for (size_t i = 0; i < job->inputs.count && i < LUNA_MAX_INPUTS; i++)
        out.batches[i] = (uint32_t)job->inputs.items[i].shape.at[0];
    return out;
}

void luna_store_jobs_free(luna_store_jobs *jobs)
{
    luna_arena_free(&jobs->arena);
    *jobs = (luna_store_jobs){0};
}

void luna_store_op_clear(luna_store_op *op)
{
    luna_store_jobs_free(&op->found);
    *op = (luna_store_op){0};
}
