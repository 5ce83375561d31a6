#define _GNU_SOURCE

#include "tests/fault/preload/plan.h"

#include "tests/fault/preload/real.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind {
    NONE,
    KILL,
    TORN,
    SHORT,
    INTR,
    EIO_ONCE,
    NO_ROOM,
    FULL,
    GONE,
    BAD_READ
} kind;

static const struct {
    const char *name;
    kind kind;
    int code;
} kinds[] = {{"kill", KILL, 0},           {"torn", TORN, 0},
             {"short", SHORT, 0},         {"eintr", INTR, EINTR},
             {"eio", EIO_ONCE, EIO},      {"enospc", NO_ROOM, ENOSPC},
             {"edquot", NO_ROOM, EDQUOT}, {"full", FULL, ENOSPC},
             {"gone", GONE, EIO},         {"badread", BAD_READ, EIO}};

static const char *const call_names[] = {
#define X(symbol, name, room) name,
    CALL_TABLE(X)
#undef X
};

static const bool call_needs_room[] = {
#define X(symbol, name, room) room,
    CALL_TABLE(X)
#undef X
};

static struct {
    kind kind;
    int code;
    unsigned long at;
    unsigned long steps;
    bool struck;
    int log;
} plan = {.log = -1};

static _Noreturn void malformed(const char *text)
{
    fprintf(stderr, "faultfs: FAULTFS_PLAN=%s is not KIND@N\n", text);
    _exit(99);
}

static void parse(const char *text)
{
    const char *at = strchr(text, '@');
    if (!at) malformed(text);
    plan.at = strtoul(at + 1, NULL, 10);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strlen(kinds[i].name) != (size_t)(at - text)) continue;
        if (strncmp(kinds[i].name, text, (size_t)(at - text)) != 0) continue;
        plan.kind = kinds[i].kind;
        plan.code = kinds[i].code;
    }
    if (plan.kind == NONE || plan.at == 0) malformed(text);
}

void plan_start(void)
{
    const char *text = getenv("FAULTFS_PLAN");
    const char *log = getenv("FAULTFS_LOG");
    if (text && *text) parse(text);
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_CLOEXEC;
    if (log && *log) plan.log = real_open(AT_FDCWD, log, flags, 0600);
}

bool plan_reads(void)
{
    return plan.kind == BAD_READ;
}

static bool applies(call what)
{
    switch (plan.kind) {
        case SHORT:
            return what == CALL_WRITE;
        case INTR:
            return what == CALL_WRITE || what == CALL_ALLOCATE;
        case NO_ROOM:
        case FULL:
            return call_needs_room[what];
        default:
            return plan.kind != NONE;
    }
}

static bool strikes(call what)
{
    if (plan.steps < plan.at || !applies(what)) return false;
    return !plan.struck || plan.kind == FULL || plan.kind == GONE;
}

static void note(call what, const char *file, bool strike)
{
    char line[512];
    if (plan.log < 0) return;
    const int n = snprintf(line, sizeof line, "%lu %s %.400s%s\n", plan.steps,
                           call_names[what], file, strike ? " *" : "");
    if (n > 0 && real_write(plan.log, line, (size_t)n) < 0) plan.log = -1;
}

verdict plan_take(call what, const char *file, int *code)
{
    if (plan_reads() != (what == CALL_READ || what == CALL_MAP)) return VERDICT_GO;
    plan.steps++;
    const bool strike = strikes(what), first = !plan.struck;
    note(what, file, strike);
    if (!strike) return VERDICT_GO;
    plan.struck = true;
    *code = plan.code;
    if (plan.kind == KILL) plan_die();
    if (plan.kind == TORN) return VERDICT_LAST;
    if (plan.kind == SHORT) return VERDICT_HALF;
    return plan.kind == FULL && first && what == CALL_WRITE ? VERDICT_HALF : VERDICT_FAIL;
}

_Noreturn void plan_die(void)
{
    for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}
