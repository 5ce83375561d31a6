//  recover.h - makes rows and payloads agree again after a crash

#ifndef LUNA_BROKER_STORE_RECOVER_H
#define LUNA_BROKER_STORE_RECOVER_H

#include "broker/store/rows.h"
#include "broker/store/spool.h"

//  Run once at open, before any operation, in one transaction:
//    - an active job without a sound payload (header and length are read, not the
//      body) becomes failed, the payload goes to quarantine/;
//    - a payload without a row, cut off between its name and its row, is verified
//      whole and becomes a pending job; one that is damaged goes to quarantine/;
//    - payloads of completed and cancelled jobs are removed;
//    - anything else in ready/ goes to quarantine/.
//  With a `fresh` database every payload is without a row, and how often a job was tried
//  is not known: attempts are counted on from LUNA_REBUILT_ATTEMPTS, so that no decoder
//  sees a number again that it may still hold.
//  One line in the log each. LUNA_IO, LUNA_NO_SPACE, LUNA_BUSY, LUNA_NO_MEMORY.
#define LUNA_REBUILT_ATTEMPTS 1000

LUNA_MUST_USE luna_err luna_recover(luna_spool *spool, luna_db *db, bool fresh);

#endif
