//  program.h - how every program of Luna ends

#ifndef LUNA_COMMON_PROGRAM_H
#define LUNA_COMMON_PROGRAM_H

#include "common/err.h"

//  The exit code of `program` for `err`. Flushes stdout first: output that it could not
//  take, on a full disk say, must not pass for success and is LUNA_IO (74). An error is
//  written to stderr as "PROGRAM: SENTENCE", one line whatever the sentence holds.
//  To be called last, by the main thread.
int luna_program_end(const char *program, luna_err err);

#endif
