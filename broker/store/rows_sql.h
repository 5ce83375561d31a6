//  rows_sql.h - the statements of rows.c by number, for rows.c and rows_read.c only

#ifndef LUNA_BROKER_STORE_ROWS_SQL_H
#define LUNA_BROKER_STORE_ROWS_SQL_H

enum {
    LUNA_SQL_STATE,
    LUNA_SQL_GET,
    LUNA_SQL_LIST,
    LUNA_SQL_LIST_STATE,
    LUNA_SQL_ACTIVE,
    LUNA_SQL_FILES,
    LUNA_SQL_COUNTS,
    LUNA_SQL_EXPIRED,
    LUNA_SQL_INSERT,
    LUNA_SQL_ATTEMPT,
    LUNA_SQL_IMAGE,
    LUNA_SQL_FINISH,
    LUNA_SQL_REQUEUE,
    LUNA_SQL_RETRY,
    LUNA_SQL_DELETE,
    LUNA_SQL_COUNT
};

#endif
