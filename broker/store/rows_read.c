//  rows_read.c - the half of rows.h that reads

#include "broker/store/rows.h"
#include "broker/store/rows_sql.h"
#include "common/log.h"
#include "proto/codec.h"

#include <stdlib.h>
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

//  Columns in the order of JOB_COLUMNS.
enum {
    AT_ID,
    AT_STATE,
    AT_CLIENT,
    AT_PROMPT_ID,
    AT_NUMBERS,  //  ten of them
    AT_VAE = AT_NUMBERS + 10,
    AT_DECODER,
    AT_ERROR,
    AT_DETAIL,
    AT_BATCHES,
    AT_CONTENT,
    AT_DEADLINE,
    AT_NEXT,
    AT_VAE_NAME,
    AT_VAE_PATH,
    AT_VAE_SHA256,
    AT_FORMATS,
    AT_SOUND,
    AT_IMAGES_DONE
};

//  Beyond what any clock or counter of ours reaches.
#define IMPOSSIBLE ((uint64_t)1 << 53)

static luna_err damaged(const luna_id *id, const char *what)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_IO, "the row of job %s is damaged: %s", text, what);
}

static luna_err read_state(const luna_query *query, int column, luna_job_state *out)
{
    const char *text = (const char *)sqlite3_column_text(query->statement, column);
    LUNA_TRY(luna_job_state_parse(luna_text_of(text), out));
    return *out == LUNA_JOB_ANY
               ? luna_error(LUNA_NO_MEMORY, "no memory for a job's state")
               : LUNA_OK;
}

//  False for anything but "N N ..." with 1 to LUNA_MAX_INPUTS numbers of a batch.
static bool parse_batches(const char *text, uint32_t out[LUNA_MAX_INPUTS])
{
    for (size_t i = 0; i < LUNA_MAX_INPUTS; i++) {
        char *end;
        const unsigned long n = strtoul(text, &end, 10);
        if (end == text || n == 0 || n > LUNA_MAX_BATCH) return false;
        out[i] = (uint32_t)n;
        if (*end == '\0') return true;
        if (*end != ' ') return false;
        text = end + 1;
    }
    return false;
}

//  Whether the pictures of all inputs, where they are known, are those of the job.
static bool add_up(const uint32_t batches[LUNA_MAX_INPUTS], uint64_t images)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LUNA_MAX_INPUTS; i++) sum += batches[i];
    return sum == 0 || sum == images;
}

//  An absent text: not known.
static bool read_batches(const luna_query *query, int column,
                         uint32_t out[LUNA_MAX_INPUTS])
{
    memset(out, 0, LUNA_MAX_INPUTS * sizeof out[0]);
    const char *text = (const char *)sqlite3_column_text(query->statement, column);
    return !text || parse_batches(text, out);
}

static bool read_numbers(const luna_query *query, luna_msg_job_info *info)
{
    uint64_t *const to[] = {&info->priority,   &info->images,      &info->bytes,
                            &info->attempts,   &info->lost,        &info->refused,
                            &info->created_ms, &info->accepted_ms, &info->started_ms,
                            &info->finished_ms};
    bool possible = true;
    for (int i = 0; i < (int)(sizeof to / sizeof to[0]); i++) {
        *to[i] = luna_query_as_uint(query, AT_NUMBERS + i);
        if (to[i] != &info->created_ms) possible &= *to[i] < IMPOSSIBLE;
    }
    return possible && info->priority <= LUNA_PRIORITY_MAX &&
           info->images <= LUNA_MAX_INPUTS * LUNA_MAX_BATCH;
}

static luna_err read_values(const luna_query *query, luna_store_job *out)
{
    luna_msg_job_info *info = &out->info;
    info->id = luna_query_as_id(query, AT_ID);
    if (!luna_query_as_uint(query, AT_SOUND))
        return damaged(&info->id, "its checksum is wrong");
    const luna_err err = read_state(query, AT_STATE, &out->state);
    if (err == LUNA_NO_MEMORY) return err;
    if (err != LUNA_OK) return damaged(&info->id, "its state is no state");
    if (luna_id_is_nil(&info->id)) return damaged(&info->id, "its id is no id");
    if (!read_numbers(query, info)) return damaged(&info->id, "a number is impossible");
    if (!read_batches(query, AT_BATCHES, out->batches) ||
        !add_up(out->batches, info->images))
        return damaged(&info->id, "its batches are impossible");
    info->state = luna_text_of(luna_job_state_name(out->state));
    out->client = luna_query_as_id(query, AT_CLIENT);
    out->content = luna_query_as_uint(query, AT_CONTENT);
    out->next_ms = luna_query_as_uint(query, AT_NEXT);
    info->next = out->next_ms != 0;
    info->deadline_ms = luna_query_as_uint(query, AT_DEADLINE);
    info->images_done = luna_query_as_uint(query, AT_IMAGES_DONE);
    return LUNA_OK;
}

static luna_err read_formats(const luna_query *query, luna_arena *arena,
                             luna_formats *out)
{
    luna_text words;
    LUNA_TRY(luna_query_as_text(query, AT_FORMATS, arena, &words));
    *out = luna_formats_parse(words);
    return LUNA_OK;
}

static luna_err read_texts(const luna_query *query, luna_arena *arena,
                           luna_store_job *out)
{
    luna_msg_job_info *info = &out->info;
    LUNA_TRY(read_formats(query, arena, &out->formats));
    LUNA_TRY(luna_query_as_text(query, AT_PROMPT_ID, arena, &out->prompt_id));
    LUNA_TRY(luna_query_as_text(query, AT_VAE, arena, &info->vae));
    LUNA_TRY(luna_query_as_text(query, AT_DECODER, arena, &info->decoder));
    LUNA_TRY(luna_query_as_text(query, AT_VAE_NAME, arena, &info->vae_name));
    LUNA_TRY(luna_query_as_text(query, AT_VAE_PATH, arena, &info->vae_path));
    LUNA_TRY(luna_query_as_text(query, AT_VAE_SHA256, arena, &info->vae_sha256));
    LUNA_TRY(luna_query_as_text(query, AT_ERROR, arena, &info->error));
    return luna_query_as_text(query, AT_DETAIL, arena, &info->detail);
}

//  A row without a checksum may hold anything, and one that no message could carry would
//  take the whole list that it is in with it.
static bool can_be_told(const luna_msg_job_info *info)
{
    luna_msg_answer answer = {.re = 1};
    answer.jobs.items = info;
    answer.jobs.count = 1;
    return luna_msg_size(LUNA_MSG_ANSWER, &answer) != 0;
}

static luna_err read_job(const luna_query *query, luna_arena *arena, luna_store_job *out)
{
    LUNA_TRY(read_values(query, out));
    LUNA_TRY(read_texts(query, arena, out));
    return can_be_told(&out->info) ? LUNA_OK : damaged(&out->info.id, luna_error_text());
}

//  Columns in the order of IMAGE_VALUES, then whether they are sound.
static luna_err read_image(const luna_query *query, luna_arena *arena,
                           luna_msg_image *out)
{
    out->input = luna_query_as_uint(query, 1);
    out->index = luna_query_as_uint(query, 2);
    out->bytes = luna_query_as_uint(query, 4);
    out->width = luna_query_as_uint(query, 6);
    out->height = luna_query_as_uint(query, 7);
    out->decode_ms = luna_query_as_real(query, 8);
    out->encode_ms = luna_query_as_real(query, 9);
    out->write_ms = luna_query_as_real(query, 10);
    LUNA_TRY(luna_query_as_text(query, 3, arena, &out->path));
    LUNA_TRY(luna_query_as_text(query, 11, arena, &out->note));
    return luna_query_as_text(query, 5, arena, &out->sha256);
}

static void report(const char *next)
{
    luna_log(LUNA_LOG_ERROR, "row.damaged", "error=\"%s\" next=\"%s\"", luna_error_text(),
             next);
}

//  Every row of a query over JOB_COLUMNS that is sound; the others are counted in
//  *bad, and luna_error_text() is about the last of them.
static luna_err read_jobs(luna_query *query, luna_store_jobs *out, size_t *bad)
{
    for (;;) {
        bool row;
        luna_store_job *job;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        LUNA_TRY(add_item(out, &job));
        const luna_err err = read_job(query, &out->arena, job);
        if (err == LUNA_OK) continue;
        out->count--;
        if (err != LUNA_IO) return err;
        (*bad)++;
    }
}

static bool comes_after(const luna_msg_image *image, const luna_msg_image *last)
{
    if (image->input != last->input) return image->input > last->input;
    return image->index > last->index;
}

static bool image_can_be_told(const luna_msg_job_info *job, const luna_msg_image *image)
{
    luna_msg_job_info alone = *job;
    alone.files.items = image;
    alone.files.count = 1;
    return can_be_told(&alone);
}

//  The sound ones of `room` rows; *count of them. A page that is damaged may show the
//  same row twice.
static luna_err read_images(luna_query *query, const luna_msg_job_info *job,
                            luna_arena *arena, luna_msg_image *to, size_t room,
                            size_t *count)
{
    for (size_t i = 0; i < room; i++) {
        bool row;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        LUNA_TRY(read_image(query, arena, &to[*count]));
        if (!luna_query_as_uint(query, 12) || !image_can_be_told(job, &to[*count]))
            continue;
        *count += *count == 0 || comes_after(&to[*count], &to[*count - 1]);
    }
    return LUNA_OK;
}

//  info.images_done, which read_job has set, is the number of rows. An image whose row
//  is damaged counts as not saved: a decoder finds its file and does not make it again.
static luna_err read_files(luna_db *db, luna_store_job *job, luna_arena *arena)
{
    const size_t rows = (size_t)job->info.images_done;
    size_t count = 0;
    if (rows == 0) return LUNA_OK;
    luna_msg_image *items = luna_arena_alloc(arena, rows, sizeof *items);
    if (!items) return luna_error(LUNA_NO_MEMORY, "no memory for a job's images");
    luna_query query = luna_query_start(db, LUNA_SQL_FILES);
    luna_query_id(&query, &job->info.id);
    const luna_err err = read_images(&query, &job->info, arena, items, rows, &count);
    luna_query_end(&query);
    LUNA_TRY(err);
    job->info.files.items = items;
    job->info.files.count = job->info.images_done = count;
    if (count == rows) return LUNA_OK;
    (void)damaged(&job->info.id, "one of its images");
    report("the image counts as not saved");
    return LUNA_OK;
}

//  ---- questions ----------------------------------------------------------------------

static luna_err not_found(const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_NOT_FOUND, "there is no job %s", text);
}

static luna_err read_head(const luna_query *query, const luna_id *id, luna_rows_head *out)
{
    const luna_err err = read_state(query, 0, &out->state);
    if (err == LUNA_NO_MEMORY) return err;
    if (err != LUNA_OK || !read_batches(query, 1, out->batches) ||
        !luna_query_as_uint(query, 2))
        return damaged(id, "its checksum, state or batches");
    return LUNA_OK;
}

luna_err luna_rows_read_head(luna_db *db, const luna_id *id, luna_rows_head *out)
{
    bool row;
    luna_query query = luna_query_start(db, LUNA_SQL_HEAD);
    luna_query_id(&query, id);
    luna_err err = luna_query_step(&query, &row);
    if (err == LUNA_OK) err = row ? read_head(&query, id, out) : not_found(id);
    luna_query_end(&query);
    return err;
}

luna_err luna_rows_state(luna_db *db, const luna_id *id, luna_job_state *out)
{
    luna_rows_head head;
    LUNA_TRY(luna_rows_read_head(db, id, &head));
    *out = head.state;
    return LUNA_OK;
}

luna_err luna_rows_get(luna_db *db, const luna_id *id, luna_store_jobs *out)
{
    size_t bad = 0;
    const size_t before = out->count;
    luna_query query = luna_query_start(db, LUNA_SQL_GET);
    luna_query_id(&query, id);
    const luna_err err = read_jobs(&query, out, &bad);
    luna_query_end(&query);
    LUNA_TRY(err);
    if (bad) return LUNA_IO;
    if (out->count == before) return not_found(id);
    return read_files(db, &out->items[before], &out->arena);
}

luna_err luna_rows_list(luna_db *db, const luna_store_list *want, luna_store_jobs *out)
{
    size_t bad = 0;
    const bool any = want->state >= LUNA_JOB_STATES;
    const uint64_t limit = want->limit < INT64_MAX ? want->limit : INT64_MAX;
    luna_query query = luna_query_start(db, any ? LUNA_SQL_LIST : LUNA_SQL_LIST_STATE);
    if (!any) luna_query_text(&query, luna_text_of(luna_job_state_name(want->state)));
    luna_query_uint(&query, limit);
    const luna_err err = read_jobs(&query, out, &bad);
    luna_query_end(&query);
    if (err == LUNA_OK && bad) report("left out of the list");
    return err;
}

luna_err luna_rows_setting(luna_db *db, const char *name, bool *out)
{
    bool row, sound = true;
    luna_query query = luna_query_start(db, LUNA_SQL_SETTING);
    luna_query_text(&query, luna_text_of(name));
    const luna_err err = luna_query_step(&query, &row);
    *out = false;
    if (err == LUNA_OK && row) {
        sound = luna_query_as_uint(&query, 1) != 0;
        *out = !sound || luna_query_as_uint(&query, 0) != 0;
    }
    luna_query_end(&query);
    if (sound) return err;
    (void)luna_error(LUNA_IO, "the setting %s is damaged", name);
    report("it counts as set");
    return LUNA_OK;
}

static luna_err read_counts(luna_query *query, uint64_t counts[LUNA_JOB_STATES])
{
    for (;;) {
        bool row;
        luna_job_state state;
        LUNA_TRY(luna_query_step(query, &row));
        if (!row) return LUNA_OK;
        const luna_err err = read_state(query, 0, &state);
        if (err == LUNA_NO_MEMORY) return err;
        if (err == LUNA_OK) counts[state] = luna_query_as_uint(query, 1);
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

luna_err luna_rows_active_ids(luna_db *db, luna_store_jobs *out)
{
    luna_query query = luna_query_start(db, LUNA_SQL_ACTIVE_IDS);
    const luna_err err = read_ids(&query, out);
    luna_query_end(&query);
    return err;
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
