//  adopt.h - makes the row of a payload that has none

#ifndef LUNA_BROKER_STORE_ADOPT_H
#define LUNA_BROKER_STORE_ADOPT_H

#include "broker/store/rows.h"
#include "broker/store/spool.h"

//  Verifies ready/<id> whole, makes its bytes durable and inserts the row that
//  luna_store_job_new gives for it, with `attempts` made. *sound is false, and the reason
//  is luna_error_text(), when the payload cannot be a job: then there is no row. Errors
//  of luna_rows_insert, LUNA_IO when it cannot be made durable, and LUNA_UNAVAILABLE when
//  the disk does not give it now.
LUNA_MUST_USE luna_err luna_adopt(const luna_spool *spool, luna_db *db, const luna_id *id,
                                  uint64_t attempts, bool *sound);

#endif
