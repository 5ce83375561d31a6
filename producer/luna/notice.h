//  notice.h - what the caller is told about the broker and the outbox
//
//  A trouble is a state: it is told when it begins and when it ends, however often it is
//  met in between, and to a callback that is set while it lasts. A loss is told once.
//  Pure data under the client's lock; luna_notice_tick alone calls the application.

#ifndef LUNA_PRODUCER_NOTICE_H
#define LUNA_PRODUCER_NOTICE_H

#include "common/id.h"

#include <stdint.h>

#define LUNA_NOTICE_TEXT_BYTES 1024
#define LUNA_LOSSES_MAX        64  //  untold ones; more are only in the outbox's folders

typedef enum luna_trouble_kind {
    LUNA_TROUBLE_AWAY,    //  no broker answers
    LUNA_TROUBLE_BUSY,    //  the broker takes no jobs now
    LUNA_TROUBLE_OUTBOX,  //  the outbox holds jobs
    LUNA_TROUBLE_FAILED,  //  the outbox cannot do what it is for
    LUNA_TROUBLES
} luna_trouble_kind;

typedef struct luna_trouble {
    bool on;
    bool told;
    uint64_t retry_ms;  //  BUSY
    char cause[40];     //  the word of the error; another one is told anew
    char text[LUNA_NOTICE_TEXT_BYTES];
} luna_trouble;

typedef struct luna_loss {
    const char *kind;  //  "refused" or "lost"
    luna_id job;
    char text[LUNA_NOTICE_TEXT_BYTES];
    struct luna_loss *next;
} luna_loss;

typedef struct luna_notice_state {
    luna_trouble trouble[LUNA_TROUBLES];
    luna_loss *losses, **last;
    size_t loss_count;
    bool wanted;  //  a callback is set
} luna_notice_state;

void luna_notice_init(luna_notice_state *state);
void luna_notice_clear(luna_notice_state *state);

//  A trouble begins or goes on. Under the lock.
void luna_notice_begin(luna_notice_state *state, luna_trouble_kind kind, luna_err cause,
                       const char *text, uint64_t retry_ms);

//  It is over, or never was. Under the lock.
void luna_notice_end(luna_notice_state *state, luna_trouble_kind kind);

//  `kind` is static, the text is copied; left out when memory ends. Under the lock.
void luna_notice_loss(luna_notice_state *state, const char *kind, const luna_id *job,
                      const char *text);

#endif
