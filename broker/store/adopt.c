#include "broker/store/adopt.h"

#include "proto/codec.h"
#include "proto/job.h"

#include <stdlib.h>

typedef struct orphan {
    char *file;
    luna_packet *packet;
    luna_payload payload;
    luna_msg_job message;
} orphan;

static void orphan_close(orphan *o)
{
    luna_packet_close(&o->packet);
    free(o->file);
}

static luna_err orphan_read(orphan *o, const luna_id *id)
{
    if (luna_packet_type(o->packet) != LUNA_MSG_JOB)
        return luna_error(LUNA_BAD_REQUEST, "the payload holds no job");
    LUNA_TRY(luna_packet_read(o->packet, &o->message));
    if (luna_id_compare(&o->message.id, id) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the payload holds another job");
    return luna_job_check(&o->message);
}

//  LUNA_UNAVAILABLE and LUNA_NO_MEMORY may pass; any other error says that the payload
//  cannot become a job.
static luna_err orphan_open(const luna_spool *spool, const luna_id *id, orphan *o)
{
    char *file;
    LUNA_TRY(luna_spool_read(spool, id, &file, &o->payload));
    o->file = file;
    LUNA_TRY(luna_packet_open(o->payload.body.data, o->payload.body.len, &o->packet));
    return orphan_read(o, id);
}

static luna_err insert(const luna_spool *spool, luna_db *db, const orphan *o,
                       uint64_t attempts)
{
    luna_store_job job =
        luna_store_job_new(&o->message, o->payload.body.len, o->payload.accepted_ms);
    job.info.attempts = attempts;
    LUNA_TRY(luna_spool_sync_file(spool, &o->payload.id));
    return luna_rows_insert(db, &job);
}

luna_err luna_adopt(const luna_spool *spool, luna_db *db, const luna_id *id,
                    uint64_t attempts, bool *sound)
{
    orphan o = {0};
    luna_err err = orphan_open(spool, id, &o);
    *sound = err == LUNA_OK;
    if (err == LUNA_OK)
        err = insert(spool, db, &o, attempts);
    else if (err != LUNA_NO_MEMORY && err != LUNA_UNAVAILABLE)
        err = LUNA_OK;
    orphan_close(&o);
    return err;
}
