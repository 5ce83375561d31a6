#include "broker/store/rows.h"

#include "broker/store/rows_sql.h"

//  "LUNA" in ASCII
#define APPLICATION_ID 0x4c554e41
#define SCHEMA_VERSION 1

static const char create[] =
    "CREATE TABLE job ("
    "  id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),"
    "  state TEXT NOT NULL CHECK (state IN"
    "    ('pending', 'in_progress', 'completed', 'failed', 'cancelled')),"
    "  client BLOB NOT NULL, prompt_id TEXT, priority INTEGER NOT NULL,"
    "  images INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    "  attempts INTEGER NOT NULL, lost INTEGER NOT NULL, refused INTEGER NOT NULL,"
    "  created_ms INTEGER NOT NULL, accepted_ms INTEGER NOT NULL,"
    "  started_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,"
    "  vae TEXT, decoder TEXT, error TEXT, detail TEXT"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX job_accepted ON job (accepted_ms, id);"
    "CREATE INDEX job_state ON job (state, accepted_ms, id);"
    "CREATE INDEX job_finished ON job (finished_ms)"
    "  WHERE state IN ('completed', 'failed', 'cancelled');"
    "CREATE TABLE image ("
    "  job BLOB NOT NULL REFERENCES job (id) ON DELETE CASCADE,"
    "  input INTEGER NOT NULL, idx INTEGER NOT NULL,"
    "  path TEXT, bytes INTEGER NOT NULL, sha256 TEXT,"
    "  width INTEGER NOT NULL, height INTEGER NOT NULL,"
    "  decode_ms REAL, encode_ms REAL, write_ms REAL,"
    "  PRIMARY KEY (job, input, idx)"
    ") STRICT, WITHOUT ROWID;";

#define JOB_COLUMNS                                                             \
    "id, state, client, prompt_id, priority, images, bytes, attempts, lost, "   \
    "refused, created_ms, accepted_ms, started_ms, finished_ms, vae, decoder, " \
    "error, detail, (SELECT count(*) FROM image WHERE image.job = job.id)"

static const char *const sql[LUNA_SQL_COUNT] = {
    [LUNA_SQL_STATE] = "SELECT state FROM job WHERE id = ?1",
    [LUNA_SQL_GET] = "SELECT " JOB_COLUMNS " FROM job WHERE id = ?1",
    [LUNA_SQL_LIST] = "SELECT " JOB_COLUMNS
                      " FROM job"
                      " ORDER BY accepted_ms DESC, id DESC LIMIT ?1",
    [LUNA_SQL_LIST_STATE] = "SELECT " JOB_COLUMNS
                            " FROM job WHERE state = ?1"
                            " ORDER BY accepted_ms DESC, id DESC LIMIT ?2",
    [LUNA_SQL_ACTIVE] = "SELECT " JOB_COLUMNS
                        " FROM job"
                        " WHERE state IN ('pending', 'in_progress')"
                        " ORDER BY priority DESC, accepted_ms, id",
    [LUNA_SQL_FILES] =
        "SELECT input, idx, path, bytes, sha256, width, height,"
        " decode_ms, encode_ms, write_ms FROM image WHERE job = ?1"
        " ORDER BY input, idx",
    [LUNA_SQL_COUNTS] = "SELECT state, count(*) FROM job GROUP BY state",
    [LUNA_SQL_EXPIRED] =
        "SELECT id FROM job"
        " WHERE state IN ('completed', 'failed', 'cancelled')"
        " AND finished_ms < ?1 ORDER BY finished_ms LIMIT ?2",
    [LUNA_SQL_INSERT] =
        "INSERT INTO job (id, client, prompt_id, priority, images, bytes,"
        " created_ms, accepted_ms, vae, state, attempts, lost, refused,"
        " started_ms, finished_ms) VALUES"
        " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', 0, 0, 0, 0, 0)",
    [LUNA_SQL_ATTEMPT] =
        "UPDATE job SET state = 'in_progress', attempts = ?2,"
        " decoder = ?3, started_ms = ?4 WHERE id = ?1",
    [LUNA_SQL_IMAGE] =
        "INSERT INTO image (job, input, idx, path, bytes, sha256, width,"
        " height, decode_ms, encode_ms, write_ms) VALUES"
        " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        " ON CONFLICT DO NOTHING",
    [LUNA_SQL_FINISH] =
        "UPDATE job SET state = ?2, error = ?3, detail = ?4,"
        " finished_ms = ?5 WHERE id = ?1",
    [LUNA_SQL_REQUEUE] =
        "UPDATE job SET state = 'pending', lost = ?2, refused = ?3,"
        " error = coalesce(?4, error), detail = coalesce(?5, detail)"
        " WHERE id = ?1",
    [LUNA_SQL_RETRY] =
        "UPDATE job SET state = 'pending', lost = 0, refused = 0,"
        " started_ms = 0, finished_ms = 0, decoder = NULL,"
        " error = NULL, detail = NULL WHERE id = ?1",
    [LUNA_SQL_DELETE] = "DELETE FROM job WHERE id = ?1",
};

luna_err luna_rows_open(luna_db *db, const char *path)
{
    const luna_db_schema schema = {.application_id = APPLICATION_ID,
                                   .version = SCHEMA_VERSION,
                                   .create = create,
                                   .sql = sql,
                                   .count = LUNA_SQL_COUNT};
    return luna_db_open(db, path, &schema);
}

//  ---- changes ----------------------------------------------------------------------

luna_err luna_rows_insert(luna_db *db, const luna_store_job *job)
{
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
    return luna_query_run(&query, NULL);
}

//  LUNA_EXISTS unless the job is active.
static luna_err need_active(luna_db *db, const luna_id *id, luna_job_state *state)
{
    LUNA_TRY(luna_rows_state(db, id, state));
    if (luna_job_state_is_active(*state)) return LUNA_OK;
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_EXISTS, "job %s is %s already", text,
                      luna_job_state_name(*state));
}

luna_err luna_rows_attempt(luna_db *db, const luna_id *id,
                           const luna_store_attempt *attempt, luna_job_state *state)
{
    LUNA_TRY(need_active(db, id, state));
    luna_query query = luna_query_start(db, LUNA_SQL_ATTEMPT);
    luna_query_id(&query, id);
    luna_query_uint(&query, attempt->attempt);
    luna_query_text(&query, attempt->decoder);
    luna_query_uint(&query, attempt->started_ms);
    *state = LUNA_JOB_IN_PROGRESS;
    return luna_query_run(&query, NULL);
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
    LUNA_TRY(luna_query_run(&query, &changed));
    *added += changed;
    return LUNA_OK;
}

static luna_err add_images(luna_db *db, const luna_id *id,
                           const luna_store_images *images, uint64_t *added)
{
    for (size_t i = 0; i < images->count; i++)
        LUNA_TRY(add_image(db, id, &images->items[i], added));
    return LUNA_OK;
}

luna_err luna_rows_images(luna_db *db, const luna_id *id, const luna_store_images *images,
                          uint64_t *added)
{
    luna_job_state state;
    LUNA_TRY(luna_rows_state(db, id, &state));
    return add_images(db, id, images, added);
}

luna_err luna_rows_finish(luna_db *db, const luna_id *id, const luna_store_finish *finish,
                          luna_job_state *state, uint64_t *added)
{
    LUNA_TRY(need_active(db, id, state));
    LUNA_TRY(add_images(db, id, &finish->images, added));
    luna_query query = luna_query_start(db, LUNA_SQL_FINISH);
    luna_query_id(&query, id);
    luna_query_text(&query, luna_text_of(luna_job_state_name(finish->state)));
    luna_query_text(&query, finish->error);
    luna_query_text(&query, finish->detail);
    luna_query_uint(&query, finish->finished_ms);
    *state = finish->state;
    return luna_query_run(&query, NULL);
}

luna_err luna_rows_requeue(luna_db *db, const luna_id *id,
                           const luna_store_requeue *requeue, luna_job_state *state)
{
    LUNA_TRY(need_active(db, id, state));
    luna_query query = luna_query_start(db, LUNA_SQL_REQUEUE);
    luna_query_id(&query, id);
    luna_query_uint(&query, requeue->lost);
    luna_query_uint(&query, requeue->refused);
    luna_query_text(&query, requeue->error);
    luna_query_text(&query, requeue->detail);
    *state = LUNA_JOB_PENDING;
    return luna_query_run(&query, NULL);
}

luna_err luna_rows_retry(luna_db *db, const luna_id *id)
{
    luna_query query = luna_query_start(db, LUNA_SQL_RETRY);
    luna_query_id(&query, id);
    return luna_query_run(&query, NULL);
}

luna_err luna_rows_delete(luna_db *db, const luna_id *id)
{
    luna_query query = luna_query_start(db, LUNA_SQL_DELETE);
    luna_query_id(&query, id);
    return luna_query_run(&query, NULL);
}
