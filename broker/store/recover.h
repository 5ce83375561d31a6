//  recover.h - makes rows and payloads agree again after a crash or damage

#ifndef LUNA_BROKER_STORE_RECOVER_H
#define LUNA_BROKER_STORE_RECOVER_H

#include "broker/store/rows.h"
#include "broker/store/spool.h"

typedef struct luna_recovered {
    size_t adopted;     //  payloads that became pending jobs
    size_t damaged;     //  rows that were moved to the table `damaged`
    size_t unreadable;  //  jobs left alone, because the database itself is damaged
} luna_recovered;

//  Run once at open, before any operation, in one transaction:
//    - the row of an active job that is damaged is moved to the table `damaged`;
//    - an active job without a sound payload (header and length are read, not the
//      body) becomes failed, the payload goes to quarantine/;
//    - a payload without a row is verified whole and becomes a pending job; one that is
//      damaged goes to quarantine/;
//    - payloads of completed and cancelled jobs are removed;
//    - anything else in ready/ goes to quarantine/.
//  One line in the log each. `active` receives the active jobs with their images, oldest
//  accepted first.
//
//  A payload without a row is as a rule a PUT that was cut short: no attempt. After
//  damage it may be any job: it then has LUNA_STORE_REBUILT_ATTEMPTS. `thorough`, a new
//  database, and whatever is found to be wrong count as damage.
//
//  In a database that PRAGMA quick_check finds fault with no row is made or moved: that
//  one is not found proves nothing there, and a change may do more harm. Such jobs are
//  left alone, and luna_db.damaged is set.
//
//  LUNA_IO, LUNA_NO_SPACE, LUNA_BUSY, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_recover(luna_spool *spool, luna_db *db, bool thorough,
                                    luna_store_jobs *active, luna_recovered *out);

#endif
