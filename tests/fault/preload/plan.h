//  plan.h - which step to the disk goes wrong, and how
//
//  Every interposed call on a file below the root is a step; steps are numbered from 1
//  in the order they are made. FAULTFS_PLAN=KIND@N says what becomes of step N:
//
//      kill     the process dies before it
//      torn     a write is done by half, any other step wholly, and the process dies
//      short    a write is done by half and says so
//      eintr    it is interrupted (writes and allocations)
//      eio      it fails once
//      enospc, edquot   the same, for steps that can need room
//      full     from here on there is no room: every such step fails; the first write is
//               done by half
//      gone     from here on every step fails with EIO
//      badread  counts reads and private mappings instead: the N-th read fails with EIO,
//               the N-th mapping raises SIGBUS when it is touched
//
//  A step the plan cannot apply to (a close is never short) is not spared: the next one
//  it can apply to is taken. FAULTFS_LOG=FILE gets a line a step: its number, the call,
//  the file, and `*` where the plan struck.
//
//  Not thread-safe: the caller holds the lock of disk.h.

#ifndef LUNA_TESTS_FAULT_PLAN_H
#define LUNA_TESTS_FAULT_PLAN_H

#include <stdbool.h>

//  What a call does; `room`: it can need room.
#define CALL_TABLE(X)       \
    X(OPEN, "open", 0)      \
    X(CREATE, "create", 1)  \
    X(CLOSE, "close", 0)    \
    X(WRITE, "write", 1)    \
    X(ALLOCATE, "alloc", 1) \
    X(TRUNCATE, "trunc", 0) \
    X(SYNC, "sync", 0)      \
    X(START, "start", 0)    \
    X(RENAME, "rename", 1)  \
    X(LINK, "link", 1)      \
    X(UNLINK, "unlink", 0)  \
    X(MKDIR, "mkdir", 1)    \
    X(READ, "read", 0)      \
    X(MAP, "map", 0)

typedef enum call {
#define X(symbol, name, room) CALL_##symbol,
    CALL_TABLE(X)
#undef X
} call;

typedef enum verdict {
    VERDICT_GO,
    VERDICT_FAIL,  //  with the errno that plan_take gives
    VERDICT_HALF,  //  a write of half the bytes
    VERDICT_LAST   //  half a write, or the whole step, and then plan_die
} verdict;

//  Reads the plan from the environment. Ends the process when it is malformed.
void plan_start(void);

//  Whether reads and mappings are steps, instead of the others.
bool plan_reads(void);

//  Counts and logs one step on `file`; does not return when it is the last.
verdict plan_take(call what, const char *file, int *code);

_Noreturn void plan_die(void);

#endif
