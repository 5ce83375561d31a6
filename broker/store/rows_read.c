//  rows_read.c - the half of rows.h that reads

#include "broker/store/rows.h"
#include "broker/store/rows_sql.h"

#include <string.h>

//  ---- lists that grow in an arena -------------------------------------------------

//  The old copy stays in the arena until it is freed: doubling bounds that to as
//  much again.
static void *grown(luna_arena *arena, const void *old, size_t count, size_t size)
{
    if (count != 0 && (count < 8 || (count & (count - 1)) != 0))
        return (void *)(uintptr_t)old;
    char *items = luna_arena_alloc(arena, count ? 2 * count : 8, size);
    if (items && count) memcpy(items, old, count * size);
    return items;
}

static luna_err add_item(luna_store_jobs *jobs, luna_store_job **out)
{
    luna_store_job *items = grown(&jobs->arena, jobs->items, jobs->count, sizeof *items);
    if (!items) return luna_error(LUNA_NO_MEMORY, "no memory for a list of jobs");
    jobs->items = items;
    *out = &items[jobs->count++];
    return LUNA_OK;
}

//  ---- rows to structs -------------------------------------------------------------

static luna_err read_state(const luna_query *query, int column, luna_job_state *out)
{
    const char *text = (const char *)sqlite3_column_text(query->statement, column);
    LUNA_TRY(luna_job_state_parse(luna_text_of(text), out));
    return *out == LUNA_JOB_ANY
               ? luna_error(LUNA_NO_MEMORY, "no memory for a job's state")
               : LUNA_OK;
}

static void read_numbers(const luna_query *query, luna_msg_job_info *info)
{
    uint64_t *const to[] = {&info->priority,   &info->images,      &info->bytes,
                            &info->attempts,   &info->lost,        &info->refused,
                            &info->created_ms, &info->accepted_ms, &info->started_ms,
                            &info->finished_ms};
    for (int i = 0; i < (int)(sizeof to / sizeof to[0]); i++)
        *to[i] = luna_query_as_uint(query, 4 + i);
    info->images_done = luna_query_as_uint(query, 18);
}

//  Columns in the order of JOB_COLUMNS.
static luna_err read_job(const luna_query *query, luna_arena *arena, luna_store_job *out)
{
    luna_msg_job_info *info = &out->info;
    LUNA_TRY(read_state(query, 1, &out->state));
    info->id = luna_query_as_id(query, 0);
    info->state = luna_text_of(luna_job_state_name(out->state));
    out->client = luna_query_as_id(query, 2);
    read_numbers(query, info);
    LUNA_TRY(luna_query_as_text(query, 3, arena, &out->prompt_id));
    LUNA_TRY(luna_query_as_text(query, 14, arena, &info->vae));
    LUNA_TRY(luna_query_as_text(query, 15, arena, &info->decoder));
    LUNA_TRY(luna_query_as_text(query, 16, arena, &info->error));
    return luna_query_as_text(query, 17, arena, &info->detail);
}

static luna_err read_image(const luna_query *query, luna_arena *arena,
                           luna_msg_image *out)
{
    out->input = luna_query_as_uint(query, 0);
    out->index = luna_query_as_uint(query, 1);
    out->bytes = luna_query_as_uint(query, 3);
    out->width = luna_query_as_uint(query, 5);
    out->height = luna_query_as_uint(query, 6);
    out->decode_ms = luna_query_as_real(query, 7);
    out->encode_ms = luna_query_as_real(query, 8);
    out->write_ms = luna_query_as_real(query, 9);
    LUNA_TRY(luna_query_as_text(query, 2, arena, &out->path));
    return luna_query_as_text(query, 4, arena, &out->sha256);
}

//  Every row of a query over JOB_COLUMNS.
static luna_err read_jobs(luna_query *query, luna_store_jobs *out)
{
    for (;;) {
        bool row;
        luna_store_job *job;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        LUNA_TRY(add_item(out, &job));
        LUNA_TRY(read_job(query, &out->arena, job));
    }
}

static luna_err read_images(luna_query *query, luna_arena *arena, luna_msg_image *to,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool row;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return luna_error(LUNA_INTERNAL, "a job has fewer images than counted");
        LUNA_TRY(read_image(query, arena, &to[i]));
    }
    return LUNA_OK;
}

//  info.images_done, which read_job has set, is the number of rows.
static luna_err read_files(luna_db *db, luna_store_job *job, luna_arena *arena)
{
    const size_t count = (size_t)job->info.images_done;
    if (count == 0) return LUNA_OK;
    luna_msg_image *items = luna_arena_alloc(arena, count, sizeof *items);
    if (!items) return luna_error(LUNA_NO_MEMORY, "no memory for a job's images");
    luna_query query = luna_query_start(db, LUNA_SQL_FILES);
    luna_query_id(&query, &job->info.id);
    const luna_err err = read_images(&query, arena, items, count);
    luna_query_end(&query);
    job->info.files.items = items;
    job->info.files.count = err == LUNA_OK ? count : 0;
    return err;
}

//  ---- questions ----------------------------------------------------------------------

static luna_err not_found(const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_NOT_FOUND, "there is no job %s", text);
}

luna_err luna_rows_state(luna_db *db, const luna_id *id, luna_job_state *out)
{
    bool row;
    luna_query query = luna_query_start(db, LUNA_SQL_STATE);
    luna_query_id(&query, id);
    luna_err err = luna_query_step(&query, &row);
    if (err == LUNA_OK) err = row ? read_state(&query, 0, out) : not_found(id);
    luna_query_end(&query);
    return err;
}

luna_err luna_rows_get(luna_db *db, const luna_id *id, luna_store_jobs *out)
{
    const size_t before = out->count;
    luna_query query = luna_query_start(db, LUNA_SQL_GET);
    luna_query_id(&query, id);
    const luna_err err = read_jobs(&query, out);
    luna_query_end(&query);
    LUNA_TRY(err);
    if (out->count == before) return not_found(id);
    return read_files(db, &out->items[before], &out->arena);
}

luna_err luna_rows_list(luna_db *db, const luna_store_list *want, luna_store_jobs *out)
{
    const bool any = want->state >= LUNA_JOB_STATES;
    const uint64_t limit = want->limit < INT64_MAX ? want->limit : INT64_MAX;
    luna_query query = luna_query_start(db, any ? LUNA_SQL_LIST : LUNA_SQL_LIST_STATE);
    if (!any) luna_query_text(&query, luna_text_of(luna_job_state_name(want->state)));
    luna_query_uint(&query, limit);
    const luna_err err = read_jobs(&query, out);
    luna_query_end(&query);
    return err;
}

luna_err luna_rows_active(luna_db *db, luna_store_jobs *out)
{
    luna_query query = luna_query_start(db, LUNA_SQL_ACTIVE);
    const luna_err err = read_jobs(&query, out);
    luna_query_end(&query);
    LUNA_TRY(err);
    for (size_t i = 0; i < out->count; i++)
        LUNA_TRY(read_files(db, &out->items[i], &out->arena));
    return LUNA_OK;
}

static luna_err read_counts(luna_query *query, uint64_t counts[LUNA_JOB_STATES])
{
    for (;;) {
        bool row;
        luna_job_state state;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        LUNA_TRY(read_state(query, 0, &state));
        counts[state] = luna_query_as_uint(query, 1);
    }
}

luna_err luna_rows_counts(luna_db *db, uint64_t counts[LUNA_JOB_STATES])
{
    memset(counts, 0, LUNA_JOB_STATES * sizeof counts[0]);
    luna_query query = luna_query_start(db, LUNA_SQL_COUNTS);
    const luna_err err = read_counts(&query, counts);
    luna_query_end(&query);
    return err;
}

static luna_err read_ids(luna_query *query, luna_store_jobs *out)
{
    for (;;) {
        bool row;
        luna_store_job *job;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        LUNA_TRY(add_item(out, &job));
        job->info.id = luna_query_as_id(query, 0);
    }
}

luna_err luna_rows_expired(luna_db *db, const luna_store_forget *forget,
                           luna_store_jobs *out)
{
    const uint64_t limit = forget->limit < INT64_MAX ? forget->limit : INT64_MAX;
    luna_query query = luna_query_start(db, LUNA_SQL_EXPIRED);
    luna_query_uint(&query, forget->before_ms);
    luna_query_uint(&query, limit);
    const luna_err err = read_ids(&query, out);
    luna_query_end(&query);
    return err;
}
