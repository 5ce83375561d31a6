//  aside.h - moves a damaged database out of the way

#ifndef LUNA_BROKER_STORE_ASIDE_H
#define LUNA_BROKER_STORE_ASIDE_H

#include "broker/store/files.h"
#include "common/err.h"

//  DIR/luna.db and its log become DIR/luna.db.damaged-YYYYMMDDTHHMMSSZ and the same with
//  "-wal", so that SQLite opens them together; one line in the log. LUNA_IO.
LUNA_MUST_USE luna_err luna_aside_move(const char *dir, const luna_files *files);

#endif
