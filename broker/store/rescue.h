//  rescue.h - a damaged database makes way for a new one
//
//  Jobs can be made of their payloads again (recover.h); what a database knew beyond
//  them, finished jobs among it, is lost with it. So it is never deleted, and only moved
//  when asked.

#ifndef LUNA_BROKER_STORE_RESCUE_H
#define LUNA_BROKER_STORE_RESCUE_H

#include "broker/store/db.h"

//  Whether the database, when there is one, is sound: it can be opened as ours and every
//  page of it read. False with a sentence. Reads all of it.
bool luna_rescue_is_sound(const char *path, size_t log_bytes);

//  Renames the database and its log to PATH.damaged-TIME, durably. LUNA_IO.
LUNA_MUST_USE luna_err luna_rescue_move_aside(const char *dir, const char *path);

#endif
