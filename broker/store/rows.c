//  rows.c - the half of rows.h that changes
//
//  Every change of a job ends with its new checksum.

#include "broker/store/rows.h"

#include "broker/store/rows_sql.h"

#include <stdio.h>

static luna_err seal(luna_db *db, const luna_id *id)
{
    luna_query query = luna_query_start(db, LUNA_SQL_SEAL);
    luna_query_id(&query, id);
    return luna_query_run(&query, NULL);
}

static luna_err change(luna_query *query, const luna_id *id)
{
    luna_db *db = query->db;
    LUNA_TRY(luna_query_run(query, NULL));
    return seal(db, id);
}

//  ---- a new job -------------------------------------------------------------------

#define BATCHES_BYTES (LUNA_MAX_INPUTS * 11 + 1)

//  "4 1"; absent when the batches are not known.
static luna_text write_batches(const uint32_t batches[LUNA_MAX_INPUTS],
                               char out[BATCHES_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < LUNA_MAX_INPUTS && batches[i]; i++)
        len += (size_t)snprintf(out + len, BATCHES_BYTES - len, "%s%u", i ? " " : "",
                                batches[i]);
    return len ? (luna_text){.data = out, .len = len} : (luna_text){0};
}

luna_err luna_rows_insert(luna_db *db, const luna_store_job *job)
{
    char batches[BATCHES_BYTES], formats[LUNA_FORMATS_BYTES];
    const luna_msg_job_info *info = &job->info;
    luna_query query = luna_query_start(db, LUNA_SQL_INSERT);
    luna_query_id(&query, &info->id);
    luna_query_id(&query, &job->client);
    luna_query_text(&query, job->prompt_id);
    luna_query_uint(&query, info->priority);
    luna_query_uint(&query, info->images);
    luna_query_uint(&query, info->bytes);
    luna_query_uint(&query, info->created_ms);
    luna_query_uint(&query, info->accepted_ms);
    luna_query_text(&query, info->vae);
    luna_query_text(&query, write_batches(job->batches, batches));
    luna_query_uint(&query, job->content);
    luna_query_uint(&query, info->deadline_ms);
    luna_query_uint(&query, job->next_ms);
    luna_query_uint(&query, info->attempts);
    luna_query_text(&query, luna_formats_write(job->formats, formats));
    return change(&query, &info->id);
}

//  ---- an active job ----------------------------------------------------------------

//  LUNA_EXISTS unless the job is active.
static luna_err need_active(luna_db *db, const luna_id *id, luna_rows_head *head,
                            luna_job_state *state)
{
    LUNA_TRY(luna_rows_read_head(db, id, head));
    *state = head->state;
    if (luna_job_state_is_active(*state)) return LUNA_OK;
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_EXISTS, "job %s is %s already", text,
                      luna_job_state_name(*state));
}

luna_err luna_rows_attempt(luna_db *db, const luna_id *id,
                           const luna_store_attempt *attempt, luna_job_state *state)
{
    luna_rows_head head;
    LUNA_TRY(need_active(db, id, &head, state));
    luna_query query = luna_query_start(db, LUNA_SQL_ATTEMPT);
    luna_query_id(&query, id);
    luna_query_uint(&query, attempt->attempt);
    luna_query_text(&query, attempt->decoder);
    luna_query_uint(&query, attempt->started_ms);
    *state = LUNA_JOB_IN_PROGRESS;
    return change(&query, id);
}

luna_err luna_rows_requeue(luna_db *db, const luna_id *id,
                           const luna_store_requeue *requeue, luna_job_state *state)
{
    luna_rows_head head;
    LUNA_TRY(need_active(db, id, &head, state));
    luna_query query = luna_query_start(db, LUNA_SQL_REQUEUE);
    luna_query_id(&query, id);
    luna_query_uint(&query, requeue->lost);
    luna_query_uint(&query, requeue->refused);
    luna_query_text(&query, requeue->error);
    luna_query_text(&query, requeue->detail);
    *state = LUNA_JOB_PENDING;
    return change(&query, id);
}

luna_err luna_rows_prioritise(luna_db *db, const luna_id *id,
                              const luna_store_prioritise *to, luna_job_state *state)
{
    luna_rows_head head;
    if (to->priority > LUNA_PRIORITY_MAX)
        return luna_error(LUNA_BAD_REQUEST, "the priority %llu is above %d",
                          (unsigned long long)to->priority, LUNA_PRIORITY_MAX);
    LUNA_TRY(need_active(db, id, &head, state));
    luna_query query = luna_query_start(db, LUNA_SQL_PRIORITISE);
    luna_query_id(&query, id);
    luna_query_uint(&query, to->priority);
    luna_query_uint(&query, to->next_ms);
    return change(&query, id);
}

//  ---- images ------------------------------------------------------------------------

static bool has_image(const luna_rows_head *head, const luna_msg_image *image)
{
    if (head->batches[0] == 0) return true;  //  not known
    return image->input < LUNA_MAX_INPUTS && image->index < head->batches[image->input];
}

static luna_err check_images(const luna_rows_head *head, const luna_id *id,
                             const luna_store_images *images)
{
    for (size_t i = 0; i < images->count; i++) {
        const luna_msg_image *image = &images->items[i];
        if (has_image(head, image)) continue;
        char text[LUNA_ID_TEXT_BYTES];
        luna_id_text(id, text);
        return luna_error(LUNA_BAD_REQUEST, "job %s has no image %llu of input %llu",
                          text, (unsigned long long)image->index,
                          (unsigned long long)image->input);
    }
    return LUNA_OK;
}

static luna_err add_image(luna_db *db, const luna_id *id, const luna_msg_image *image,
                          uint64_t *added)
{
    uint64_t changed = 0;
    luna_query query = luna_query_start(db, LUNA_SQL_IMAGE);
    luna_query_id(&query, id);
    luna_query_uint(&query, image->input);
    luna_query_uint(&query, image->index);
    luna_query_text(&query, image->path);
    luna_query_uint(&query, image->bytes);
    luna_query_text(&query, image->sha256);
    luna_query_uint(&query, image->width);
    luna_query_uint(&query, image->height);
    luna_query_real(&query, image->decode_ms);
    luna_query_real(&query, image->encode_ms);
    luna_query_real(&query, image->write_ms);
    luna_query_text(&query, image->note);
    LUNA_TRY(luna_query_run(&query, &changed));
    *added += changed;
    return LUNA_OK;
}

static luna_err add_images(luna_db *db, const luna_id *id, const luna_rows_head *head,
                           const luna_store_images *images, uint64_t *added)
{
    LUNA_TRY(check_images(head, id, images));
    for (size_t i = 0; i < images->count; i++)
        LUNA_TRY(add_image(db, id, &images->items[i], added));
    return LUNA_OK;
}

luna_err luna_rows_images(luna_db *db, const luna_id *id, const luna_store_images *images,
                          uint64_t *added)
{
    luna_rows_head head;
    LUNA_TRY(luna_rows_read_head(db, id, &head));
    return add_images(db, id, &head, images, added);
}

//  ---- the end and after ---------------------------------------------------------------

luna_err luna_rows_finish(luna_db *db, const luna_id *id, const luna_store_finish *finish,
                          luna_job_state *state, uint64_t *added)
{
    luna_rows_head head;
    LUNA_TRY(need_active(db, id, &head, state));
    LUNA_TRY(add_images(db, id, &head, &finish->images, added));
    luna_query query = luna_query_start(db, LUNA_SQL_FINISH);
    luna_query_id(&query, id);
    luna_query_text(&query, luna_text_of(luna_job_state_name(finish->state)));
    luna_query_text(&query, finish->error);
    luna_query_text(&query, finish->detail);
    luna_query_uint(&query, finish->finished_ms);
    luna_query_text(&query, finish->vae.name);
    luna_query_text(&query, finish->vae.path);
    luna_query_text(&query, finish->vae.sha256);
    *state = finish->state;
    return change(&query, id);
}

luna_err luna_rows_retry(luna_db *db, const luna_id *id)
{
    luna_query query = luna_query_start(db, LUNA_SQL_RETRY);
    luna_query_id(&query, id);
    return change(&query, id);
}

luna_err luna_rows_delete(luna_db *db, const luna_id *id)
{
    luna_query query = luna_query_start(db, LUNA_SQL_DELETE);
    luna_query_id(&query, id);
    return luna_query_run(&query, NULL);
}

luna_err luna_rows_set_aside(luna_db *db, const luna_id *id, const char *why,
                             uint64_t now_ms)
{
    luna_query query = luna_query_start(db, LUNA_SQL_SET_ASIDE);
    luna_query_id(&query, id);
    luna_query_uint(&query, now_ms);
    luna_query_text(&query, luna_text_of(why));
    LUNA_TRY(luna_query_run(&query, NULL));
    return luna_rows_delete(db, id);
}

luna_err luna_rows_set(luna_db *db, const char *name, bool value)
{
    luna_query query = luna_query_start(db, LUNA_SQL_SET);
    luna_query_text(&query, luna_text_of(name));
    luna_query_uint(&query, value);
    return luna_query_run(&query, NULL);
}

luna_err luna_rows_reindex(luna_db *db)
{
    return luna_db_run(db, "REINDEX");
}
