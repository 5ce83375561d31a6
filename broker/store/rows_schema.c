//  rows_schema.c - the tables, how older ones become them, and every statement
//
//  `sum` of a job and of an image is a checksum over the other columns of the row, so
//  that a bit that flipped on the disk is noticed; 0 says that there is none. After a
//  change by hand set it to 0.
//
//  `damaged` keeps what a row was that could not be right, its columns as SQL values.
//
//  A version is brought to the next by upgrades[version - 1], all in one transaction.

#include "broker/store/rows.h"
#include "broker/store/rows_sql.h"

//  "LUNA" in ASCII
#define APPLICATION_ID 0x4c554e41
#define SCHEMA_VERSION 5

#define NEW_IN_2                                                        \
    "CREATE TABLE setting ("                                            \
    "  name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL,"         \
    "  sum INTEGER NOT NULL DEFAULT 0"                                  \
    ") STRICT, WITHOUT ROWID;"                                          \
    "CREATE TABLE damaged ("                                            \
    "  found_ms INTEGER NOT NULL, why TEXT NOT NULL, job TEXT NOT NULL" \
    ") STRICT;"

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
    "  vae TEXT, decoder TEXT, error TEXT, detail TEXT,"
    "  batches TEXT,"  //  images of each input, as "4 1"
    "  content INTEGER NOT NULL DEFAULT 0,"
    "  deadline_ms INTEGER NOT NULL DEFAULT 0,"
    "  next_ms INTEGER NOT NULL DEFAULT 0,"
    "  vae_name TEXT, vae_path TEXT, vae_sha256 TEXT,"  //  that decoded it
    "  formats TEXT,"                                   //  of its inputs, as "png avif"
    "  sum INTEGER NOT NULL DEFAULT 0"
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
    "  decode_ms REAL, encode_ms REAL, write_ms REAL, note TEXT,"
    "  sum INTEGER NOT NULL DEFAULT 0,"
    "  PRIMARY KEY (job, input, idx)"
    ") STRICT, WITHOUT ROWID;" NEW_IN_2
    //  What is found in the spool may be any job: see luna_recover.
    "INSERT INTO setting (name, value) VALUES ('rebuild', 1);";

static const char *const upgrades[SCHEMA_VERSION - 1] = {
    "ALTER TABLE job ADD COLUMN batches TEXT;"
    "ALTER TABLE job ADD COLUMN content INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN deadline_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN next_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE image ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;" NEW_IN_2,
    //  The sums that rows have are over fewer columns.
    "ALTER TABLE image ADD COLUMN note TEXT;"
    "UPDATE image SET sum = 0;",
    "ALTER TABLE job ADD COLUMN vae_name TEXT;"
    "ALTER TABLE job ADD COLUMN vae_path TEXT;"
    "ALTER TABLE job ADD COLUMN vae_sha256 TEXT;"
    "UPDATE job SET sum = 0;",
    "ALTER TABLE job ADD COLUMN formats TEXT;"
    "UPDATE job SET sum = 0;",
};

#define JOB_VALUES                                                              \
    "id, state, client, prompt_id, priority, images, bytes, attempts, lost, "   \
    "refused, created_ms, accepted_ms, started_ms, finished_ms, vae, decoder, " \
    "error, detail, batches, content, deadline_ms, next_ms, vae_name, "         \
    "vae_path, vae_sha256, formats"

#define JOB_SOUND "(sum = 0 OR sum = luna_sum(" JOB_VALUES "))"

#define JOB_COLUMNS \
    JOB_VALUES ", " JOB_SOUND ", (SELECT count(*) FROM image WHERE image.job = job.id)"

#define JOB_QUOTED                                                                       \
    "quote(id) || ', ' || quote(state) || ', ' || quote(client) || ', ' ||"              \
    " quote(prompt_id) || ', ' || quote(priority) || ', ' || quote(images) || ', ' ||"   \
    " quote(bytes) || ', ' || quote(attempts) || ', ' || quote(lost) || ', ' ||"         \
    " quote(refused) || ', ' || quote(created_ms) || ', ' || quote(accepted_ms) ||"      \
    " ', ' || quote(started_ms) || ', ' || quote(finished_ms) || ', ' || quote(vae) ||"  \
    " ', ' || quote(decoder) || ', ' || quote(error) || ', ' || quote(detail) ||"        \
    " ', ' || quote(batches) || ', ' || quote(content) || ', ' ||"                       \
    " quote(deadline_ms) || ', ' || quote(next_ms) || ', ' || quote(vae_name) ||"        \
    " ', ' || quote(vae_path) || ', ' || quote(vae_sha256) || ', ' || quote(formats) ||" \
    " ', ' || quote(sum)"

#define IMAGE_VALUES                                                              \
    "job, input, idx, path, bytes, sha256, width, height, decode_ms, encode_ms, " \
    "write_ms, note"

static const char *const sql[LUNA_SQL_COUNT] = {
    [LUNA_SQL_HEAD] = "SELECT state, batches, " JOB_SOUND " FROM job WHERE id = ?1",
    [LUNA_SQL_GET] = "SELECT " JOB_COLUMNS " FROM job WHERE id = ?1",
    [LUNA_SQL_LIST] = "SELECT " JOB_COLUMNS
                      " FROM job"
                      " ORDER BY accepted_ms DESC, id DESC LIMIT ?1",
    [LUNA_SQL_LIST_STATE] = "SELECT " JOB_COLUMNS
                            " FROM job WHERE state = ?1"
                            " ORDER BY accepted_ms DESC, id DESC LIMIT ?2",
    [LUNA_SQL_ACTIVE_IDS] =
        "SELECT id FROM job INDEXED BY job_state"
        " WHERE state IN ('pending', 'in_progress')"
        " ORDER BY accepted_ms, id",
    [LUNA_SQL_FILES] = "SELECT " IMAGE_VALUES ", (sum = 0 OR sum = luna_sum(" IMAGE_VALUES
                       ")) FROM image WHERE job = ?1 ORDER BY input, idx",
    [LUNA_SQL_COUNTS] = "SELECT state, count(*) FROM job GROUP BY state",
    [LUNA_SQL_EXPIRED] =
        "SELECT id FROM job"
        " WHERE state IN ('completed', 'failed', 'cancelled')"
        " AND finished_ms < ?1 ORDER BY finished_ms LIMIT ?2",
    [LUNA_SQL_INSERT] =
        "INSERT INTO job (id, client, prompt_id, priority, images, bytes,"
        " created_ms, accepted_ms, vae, batches, content, deadline_ms, next_ms,"
        " attempts, formats, state, lost, refused, started_ms, finished_ms) VALUES"
        " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
        " 'pending', 0, 0, 0, 0)",
    [LUNA_SQL_ATTEMPT] =
        "UPDATE job SET state = 'in_progress', attempts = ?2,"
        " decoder = ?3, started_ms = ?4 WHERE id = ?1",
    [LUNA_SQL_IMAGE] = "INSERT INTO image (" IMAGE_VALUES
                       ", sum) VALUES"
                       " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
                       " luna_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12))"
                       " ON CONFLICT DO NOTHING",
    [LUNA_SQL_FINISH] =
        "UPDATE job SET state = ?2, error = ?3, detail = ?4, finished_ms = ?5,"
        " vae_path = iif(?6 IS NULL, vae_path, ?7),"
        " vae_sha256 = iif(?6 IS NULL, vae_sha256, ?8),"
        " vae_name = coalesce(?6, vae_name) WHERE id = ?1",
    [LUNA_SQL_REQUEUE] =
        "UPDATE job SET state = 'pending', lost = ?2, refused = ?3,"
        " error = coalesce(?4, error), detail = coalesce(?5, detail)"
        " WHERE id = ?1",
    [LUNA_SQL_PRIORITISE] = "UPDATE job SET priority = ?2, next_ms = ?3 WHERE id = ?1",
    [LUNA_SQL_RETRY] =
        "UPDATE job SET state = 'pending', lost = 0, refused = 0,"
        " started_ms = 0, finished_ms = 0, decoder = NULL,"
        " error = NULL, detail = NULL WHERE id = ?1",
    [LUNA_SQL_SEAL] = "UPDATE job SET sum = luna_sum(" JOB_VALUES ") WHERE id = ?1",
    [LUNA_SQL_DELETE] = "DELETE FROM job WHERE id = ?1",
    [LUNA_SQL_SET_ASIDE] =
        "INSERT INTO damaged (found_ms, why, job)"
        " SELECT ?2, ?3, " JOB_QUOTED " FROM job WHERE id = ?1",
    [LUNA_SQL_SETTING] =
        "SELECT value, (sum = 0 OR sum = luna_sum(name, value))"
        " FROM setting WHERE name = ?1",
    [LUNA_SQL_SET] =
        "INSERT INTO setting (name, value, sum) VALUES (?1, ?2, luna_sum(?1, ?2))"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, sum = excluded.sum",
};

static const luna_db_schema schema = {
    .application_id = APPLICATION_ID,
    .version = SCHEMA_VERSION,
    .create = create,
    .upgrades = upgrades,
    .sql = sql,
    .count = LUNA_SQL_COUNT,
};

luna_err luna_rows_open(luna_db *db, const char *path, size_t log_bytes)
{
    return luna_db_open(db, path, &schema, log_bytes);
}
