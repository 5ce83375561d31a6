//  store.c - the store's thread and the two queues between it and the loop
//
//  An operation is in exactly one place: waiting, in the batch being executed, done,
//  or (loop thread only) collected. The queues are linked through the operations.

#include "broker/store/store.h"

#include "broker/store/aside.h"
#include "broker/store/batch.h"
#include "broker/store/lock.h"
#include "broker/store/recover.h"
#include "broker/store/upkeep.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH_BYTES        ((size_t)64 << 20)
#define BATCH_QUERIES      8
#define LOG_BYTES          ((size_t)8 << 20)
#define BALLAST_BYTES      ((uint64_t)16 << 20)
#define ROOM_TO_OPEN_BYTES ((uint64_t)1 << 20)

typedef struct queue {
    luna_store_op *first;
    luna_store_op *last;
} queue;

struct luna_store {
    luna_engine engine;  //  the store thread's, but for health and spool's paths
    size_t batch_ops;
    size_t batch_bytes;
    bool paused;  //  as it was at open
    int lock;     //  of the state folder
    int event;    //  readable while `done` may hold something
    pthread_t thread;
    pthread_mutex_t mutex;  //  for what follows
    pthread_cond_t changed;
    queue waiting;
    queue done;
    bool busy;  //  a batch is being executed
    bool stopping;
    queue back;  //  the loop thread's: taken from `done`, not yet collected
};

//  ---- queues ----------------------------------------------------------------------

static void push(queue *q, luna_store_op *op)
{
    op->next = NULL;
    if (q->last)
        q->last->next = op;
    else
        q->first = op;
    q->last = op;
}

static luna_store_op *pop(queue *q)
{
    luna_store_op *op = q->first;
    if (!op) return NULL;
    q->first = op->next;
    if (!q->first) q->last = NULL;
    op->next = NULL;
    return op;
}

//  What a batch holds so far.
typedef struct load {
    size_t ops;
    size_t bytes;    //  of payloads
    size_t queries;  //  what they find may be large and stays in memory till it is sent
} load;

static bool is_query(const luna_store_op *op)
{
    return op->kind == LUNA_STORE_GET || op->kind == LUNA_STORE_LIST;
}

//  Whether `op` may join the batch.
static bool fits(const luna_store *store, const luna_store_op *op, const load *batch)
{
    if (batch->ops == 0) return true;
    if (batch->ops >= store->batch_ops || op->kind == LUNA_STORE_FORGET) return false;
    if (is_query(op)) return batch->queries < BATCH_QUERIES;
    if (op->kind != LUNA_STORE_PUT) return true;
    return batch->bytes < store->batch_bytes &&
           op->in.put.body.len <= store->batch_bytes - batch->bytes;
}

static size_t take_batch(luna_store *store, luna_store_op *ops[LUNA_BATCH_MAX])
{
    load batch = {0};
    while (store->waiting.first && fits(store, store->waiting.first, &batch)) {
        luna_store_op *op = pop(&store->waiting);
        ops[batch.ops++] = op;
        if (op->kind == LUNA_STORE_FORGET) break;
        if (op->kind == LUNA_STORE_PUT) batch.bytes += op->in.put.body.len;
        batch.queries += is_query(op);
    }
    return batch.ops;
}

//  ---- the store thread ---------------------------------------------------------------

static void signal_done(const luna_store *store)
{
    const uint64_t one = 1;
    //  Fails only when the counter is full, and then it is readable anyway.
    if (write(store->event, &one, sizeof one) < 0) return;
}

static void give_back(luna_store *store, luna_store_op *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) push(&store->done, ops[i]);
    store->busy = false;
    signal_done(store);
    pthread_cond_broadcast(&store->changed);
}

static bool has_work(const luna_store *store)
{
    return store->waiting.first || store->stopping;
}

//  Waits for work at most this long, or without end; returns whether there is some.
static bool wait_for_work(luna_store *store, int limit_ms)
{
    const int64_t due_ns = luna_now_ns() + (int64_t)limit_ms * 1000000;
    const struct timespec due = {.tv_sec = due_ns / 1000000000,
                                 .tv_nsec = due_ns % 1000000000};
    int rc = 0;
    while (!has_work(store) && rc == 0)
        rc = limit_ms < 0 ? pthread_cond_wait(&store->changed, &store->mutex)
                          : pthread_cond_timedwait(&store->changed, &store->mutex, &due);
    return has_work(store);
}

//  The mutex is held on entry and on return.
static void run_upkeep(luna_store *store)
{
    pthread_mutex_unlock(&store->mutex);
    luna_upkeep_run(&store->engine);
    pthread_mutex_lock(&store->mutex);
}

//  Jobs that cannot be recorded well are not accepted; those there are served.
static void judge_database(luna_engine *engine)
{
    if (!engine->db.damaged) return;
    (void)luna_error(LUNA_IO,
                     "the database is damaged; stop the broker and run luna-broker "
                     "--recover");
    luna_health_spoil(&engine->health);
}

static void run_batch(luna_store *store, luna_store_op **ops, size_t count)
{
    store->busy = true;
    pthread_mutex_unlock(&store->mutex);
    luna_batch_run(&store->engine, ops, count);
    judge_database(&store->engine);
    pthread_mutex_lock(&store->mutex);
    give_back(store, ops, count);
}

static void *work(void *argument)
{
    luna_store *store = argument;
    luna_store_op *ops[LUNA_BATCH_MAX];
    pthread_mutex_lock(&store->mutex);
    for (;;) {
        const int due_ms = luna_upkeep_due_ms(&store->engine);
        if (due_ms == 0 || !wait_for_work(store, due_ms)) {
            run_upkeep(store);
            continue;
        }
        const size_t count = take_batch(store, ops);
        if (count == 0) break;
        run_batch(store, ops, count);
    }
    pthread_mutex_unlock(&store->mutex);
    return NULL;
}

//  ---- open -------------------------------------------------------------------------

static size_t log_bytes_of(const luna_store_options *options)
{
    return options->log_bytes ? options->log_bytes : LOG_BYTES;
}

//  The names of new folders; the jobs that are there are served all the same.
static void sync_parent(const char *dir)
{
    if (luna_sync_above(dir) != LUNA_OK) return;
}

//  Errors of luna_rows_open. Without `recover` a database that is damaged is one, with it
//  the database is a new one afterwards.
static luna_err open_database(luna_engine *engine, const char *path, const char *dir,
                              const luna_store_options *options)
{
    const size_t log_bytes = log_bytes_of(options);
    luna_err err = luna_rows_open(&engine->db, path, log_bytes);
    if (!options->recover) return err;
    if (err == LUNA_OK) err = luna_db_check(&engine->db);
    if (err == LUNA_OK) err = luna_rows_reindex(&engine->db);
    if (err == LUNA_OK || !engine->db.damaged) return err;
    luna_log(LUNA_LOG_ERROR, "store.damaged", "error=\"%s\"", luna_error_text());
    luna_db_close(&engine->db);
    LUNA_TRY(luna_aside_move(dir, engine->spool.files));
    return luna_rows_open(&engine->db, path, log_bytes);
}

//  One sync of our own: SQLite does not look whether that of a new file's name succeeds.
static luna_err open_rows(luna_engine *engine, const luna_store_options *options,
                          luna_store_jobs *active)
{
    char path[4096];
    luna_recovered found;
    const char *dir = options->state_dir;
    LUNA_TRY(luna_path_join(path, sizeof path, dir, "luna.db"));
    luna_err err = open_database(engine, path, dir, options);
    if (err == LUNA_OK) err = luna_sync_dir(dir);
    if (err == LUNA_OK)
        err = luna_recover(&engine->spool, &engine->db, options->recover, active, &found);
    if (err == LUNA_OK) return LUNA_OK;
    luna_store_jobs_free(active);
    luna_db_close(&engine->db);
    return err;
}

//  SQLite has several words for a full disk when it makes its files.
static bool is_full(const luna_engine *engine, const char *dir, luna_err err)
{
    uint64_t room = UINT64_MAX;
    if (err == LUNA_OK || err == LUNA_BUSY) return false;
    if (engine->spool.files->free_bytes(dir, &room) != 0) return false;
    return err == LUNA_NO_SPACE || room < ROOM_TO_OPEN_BYTES;
}

//  A full disk must not keep the jobs there are from coming to their end.
static luna_err open_rows_somehow(luna_engine *engine, const luna_store_options *options,
                                  luna_store_jobs *active)
{
    const luna_err err = open_rows(engine, options, active);
    if (!is_full(engine, options->state_dir, err)) return err;
    if (!luna_ballast_spend(&engine->ballast)) return err;
    return open_rows(engine, options, active);
}

static luna_err open_state(luna_store *store, const luna_store_options *options,
                           luna_store_jobs *active)
{
    const char *dir = options->state_dir;
    luna_engine *engine = &store->engine;
    const uint64_t ballast = options->ballast_bytes;
    engine->log_step = log_bytes_of(options) / LUNA_DB_PAGE_BYTES / 4;
    engine->log_mark = engine->log_step;
    LUNA_TRY(luna_make_dirs(dir, 0700));
    sync_parent(dir);
    LUNA_TRY(luna_lock_take(dir, "luna.lock", &store->lock));
    LUNA_TRY(luna_ballast_open(&engine->ballast, dir, ballast ? ballast : BALLAST_BYTES,
                               engine->spool.files));
    return open_rows_somehow(engine, options, active);
}

static luna_err open_data(luna_store *store, const luna_store_options *options,
                          luna_store_jobs *active)
{
    luna_engine *engine = &store->engine;
    LUNA_TRY(luna_spool_open(&engine->spool, options->spool_dir, options->reserve_bytes,
                             options->files));
    sync_parent(engine->spool.dir);
    return open_state(store, options, active);
}

static void close_data(luna_store *store)
{
    luna_db_close(&store->engine.db);
    luna_ballast_close(&store->engine.ballast);
    luna_spool_close(&store->engine.spool);
    if (store->lock >= 0) close(store->lock);
}

static luna_err start_helpers(luna_engine *engine, size_t sync_threads)
{
    LUNA_TRY(luna_reaper_start(&engine->reaper, &engine->spool));
    const luna_err err =
        luna_syncer_start(&engine->syncer, engine->spool.files, sync_threads);
    if (err != LUNA_OK) luna_reaper_stop(&engine->reaper);
    return err;
}

static void stop_helpers(luna_engine *engine)
{
    luna_syncer_stop(&engine->syncer);
    luna_reaper_stop(&engine->reaper);
}

static luna_err start_threads(luna_store *store, const luna_store_options *options)
{
    LUNA_TRY(
        start_helpers(&store->engine, options->sync_in_order ? 0 : LUNA_SYNCER_THREADS));
    if (pthread_create(&store->thread, NULL, work, store) == 0) return LUNA_OK;
    stop_helpers(&store->engine);
    return luna_error(LUNA_NO_MEMORY, "cannot start a thread of the store");
}

static void free_store(luna_store *store)
{
    if (store->event >= 0) close(store->event);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->mutex);
    luna_health_stop(&store->engine.health);
    free(store);
}

static luna_store *new_store(const luna_store_options *options)
{
    const size_t ops = options->batch_ops;
    luna_store *store = calloc(1, sizeof *store);
    if (!store) return NULL;
    store->batch_ops = ops == 0 || ops > LUNA_BATCH_MAX ? LUNA_BATCH_MAX : ops;
    store->batch_bytes = options->batch_bytes ? options->batch_bytes : BATCH_BYTES;
    store->lock = store->engine.spool.lock = store->engine.spool.ready = -1;
    store->engine.ballast.fd = -1;
    store->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&store->mutex, NULL);
    luna_clock_condition(&store->changed);
    luna_health_start(&store->engine.health);
    return store;
}

static luna_err start(luna_store *store, const luna_store_options *options,
                      luna_store_jobs *active)
{
    if (store->event < 0)
        return luna_error_errno(LUNA_NO_MEMORY, "cannot make an eventfd");
    LUNA_TRY(open_data(store, options, active));
    LUNA_TRY(luna_rows_setting(&store->engine.db, LUNA_SETTING_PAUSED, &store->paused));
    return start_threads(store, options);
}

luna_err luna_store_open(const luna_store_options *options, luna_store **out,
                         luna_store_jobs *active)
{
    luna_store *store = new_store(options);
    if (!store) return luna_error(LUNA_NO_MEMORY, "no memory for the store");
    *active = (luna_store_jobs){0};
    const luna_err err = start(store, options, active);
    if (err == LUNA_OK) {
        *out = store;
        return LUNA_OK;
    }
    luna_store_jobs_free(active);
    close_data(store);
    free_store(store);
    return err;
}

//  ---- the loop's side -------------------------------------------------------------

void luna_store_submit(luna_store *store, luna_store_op *op)
{
    op->next = NULL;
    luna_store_submit_all(store, op);
}

void luna_store_submit_all(luna_store *store, luna_store_op *first)
{
    pthread_mutex_lock(&store->mutex);
    for (luna_store_op *next; first; first = next) {
        next = first->next;
        push(&store->waiting, first);
    }
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->mutex);
}

int luna_store_fd(const luna_store *store)
{
    return store->event;
}

//  The event is cleared before `done` is taken: what comes later signals again.
luna_store_op *luna_store_collect(luna_store *store)
{
    uint64_t signals;
    if (store->back.first) return pop(&store->back);
    if (read(store->event, &signals, sizeof signals) < 0) return NULL;
    pthread_mutex_lock(&store->mutex);
    store->back = store->done;
    store->done = (queue){0};
    pthread_mutex_unlock(&store->mutex);
    return pop(&store->back);
}

void luna_store_drain(luna_store *store)
{
    pthread_mutex_lock(&store->mutex);
    while (store->waiting.first || store->busy)
        pthread_cond_wait(&store->changed, &store->mutex);
    pthread_mutex_unlock(&store->mutex);
}

bool luna_store_writable(luna_store *store, char *why, size_t room)
{
    if (!luna_health_good(&store->engine.health, why, room)) return false;
    if (luna_ballast_check(&store->engine.ballast) == LUNA_OK &&
        luna_spool_room(&store->engine.spool, 0) == LUNA_OK)
        return true;
    if (why) snprintf(why, room, "%s", luna_error_text());
    return false;
}

bool luna_store_paused(const luna_store *store)
{
    return store->paused;
}

void luna_store_condition(luna_store *store, luna_store_condition_t *out)
{
    const luna_spool *spool = &store->engine.spool;
    *out = (luna_store_condition_t){0};
    if (spool->files->free_bytes(spool->dir, &out->free_bytes) != 0) out->free_bytes = 0;
    out->ballast_spent = luna_ballast_check(&store->engine.ballast) != LUNA_OK;
    if (out->ballast_spent)
        snprintf(out->alarm, sizeof out->alarm, "%s", luna_error_text());
    out->read_only =
        !luna_health_good(&store->engine.health, out->alarm, sizeof out->alarm);
}

luna_err luna_store_payload_path(const luna_store *store, const luna_id *id, char *out,
                                 size_t room)
{
    return luna_spool_path(&store->engine.spool, id, out, room);
}

void luna_store_close(luna_store **store_p)
{
    luna_store *store = *store_p;
    if (!store) return;
    pthread_mutex_lock(&store->mutex);
    store->stopping = true;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->mutex);
    pthread_join(store->thread, NULL);
    stop_helpers(&store->engine);
    close_data(store);
    free_store(store);
    *store_p = NULL;
}
