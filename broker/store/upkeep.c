#include "broker/store/upkeep.h"

#include "common/log.h"

#define REST_MS            100
#define RESTORE_MS         1000
#define UNSYNCED_BYTES_MAX ((uint64_t)256 << 20)

//  A mark that was passed by three steps more has waited for a pause in vain.
int luna_upkeep_due_ms(const luna_engine *engine)
{
    const size_t pages = engine->db.log_pages;
    if (pages >= engine->log_mark + 3 * engine->log_step) return 0;
    if (engine->unsynced_bytes >= UNSYNCED_BYTES_MAX) return 0;
    if (engine->unsynced_bytes > 0 || pages >= engine->log_mark) return REST_MS;
    return luna_ballast_spent(&engine->ballast) ? RESTORE_MS : -1;
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
    return luna_db_log_sync(&engine->db);
}

//  Until it is there, the reason stands in the store's condition.
static void restore_ballast(luna_engine *engine)
{
    if (luna_ballast_restore(&engine->ballast) != LUNA_OK) return;
}

void luna_upkeep_run(luna_engine *engine)
{
    restore_ballast(engine);
    const luna_err err = luna_health_judge(&engine->health, keep_up(engine));
    engine->unsynced_bytes = 0;
    if (err != LUNA_OK)
        luna_log(LUNA_LOG_WARNING, "store.upkeep",
                 "error=\"%s\" next=\"the log of the database grows\"",
                 luna_error_text());
}
