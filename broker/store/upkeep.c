#include "broker/store/upkeep.h"

#include "common/clock.h"
#include "common/log.h"

#define REST_MS            100
#define UNSYNCED_BYTES_MAX ((uint64_t)256 << 20)

//  A mark that was passed by three steps more has waited for a pause in vain.
static int log_due_ms(const luna_engine *engine)
{
    const size_t pages = engine->db.log_pages;
    if (pages >= engine->log_mark + 3 * engine->log_step) return 0;
    if (engine->unsynced_bytes >= UNSYNCED_BYTES_MAX) return 0;
    return engine->unsynced_bytes > 0 || pages >= engine->log_mark ? REST_MS : -1;
}

static int ballast_due_ms(const luna_engine *engine)
{
    if (!atomic_load(&engine->ballast.spent)) return -1;
    const int64_t left_ms = engine->ballast.due_ms - luna_now_ms();
    return left_ms > 0 ? (int)left_ms : 0;
}

int luna_upkeep_due_ms(const luna_engine *engine)
{
    const int log_ms = log_due_ms(engine), ballast_ms = ballast_due_ms(engine);
    if (log_ms < 0 || ballast_ms < 0) return log_ms > ballast_ms ? log_ms : ballast_ms;
    return log_ms < ballast_ms ? log_ms : ballast_ms;
}

//  When it cannot be moved the log goes on growing, and after some steps it is tried
//  again.
static luna_err move_log(luna_engine *engine)
{
    engine->log_mark = engine->db.log_pages + 4 * engine->log_step;
    LUNA_TRY(luna_db_checkpoint(&engine->db));
    if (engine->db.log_pages == 0) engine->log_mark = engine->log_step;
    return LUNA_OK;
}

static luna_err keep_up(luna_engine *engine)
{
    if (engine->db.log_pages >= engine->log_mark) return move_log(engine);
    return engine->unsynced_bytes > 0 ? luna_db_log_sync(&engine->db) : LUNA_OK;
}

void luna_upkeep_run(luna_engine *engine)
{
    luna_ballast_restore(&engine->ballast, luna_now_ms());
    const luna_err err = luna_health_judge(&engine->health, keep_up(engine));
    engine->unsynced_bytes = 0;
    if (err != LUNA_OK)
        luna_log(LUNA_LOG_WARNING, "store.upkeep",
                 "error=\"%s\" next=\"the log of the database grows\"",
                 luna_error_text());
}
