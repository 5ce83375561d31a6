//  err.h - every error Luna can report, in one table, and the sentence behind it
//
//  Functions that can fail return a luna_err; results come back through out
//  parameters, which are set on LUNA_OK only. The place that detects a failure
//  calls luna_error() once with one sentence: what is wrong, where, what to do.
//  Callers pass the code on; luna_error_text() gives the sentence of the calling
//  thread's latest failure. The same names stand on the wire, in the log, in
//  HTTP answers and in exit codes.

#ifndef LUNA_COMMON_ERR_H
#define LUNA_COMMON_ERR_H

#include <stdbool.h>

//  X(symbol, wire name, HTTP status, sysexits code, worth retrying, meaning)
#define LUNA_ERR_TABLE(X)                                                            \
    X(OK, "ok", 200, 0, false, "no error")                                           \
    X(USAGE, "usage", 400, 64, false, "the command line is wrong")                   \
    X(BAD_REQUEST, "bad_request", 400, 65, false, "the job or message is malformed") \
    X(BAD_LATENT, "bad_latent", 422, 65, false, "shape, type or values of a latent") \
    X(BAD_MODEL, "bad_model", 422, 65, false, "the file is not a VAE Luna can run")  \
    X(UNKNOWN_VAE, "unknown_vae", 422, 66, false, "no VAE of this name, or several") \
    X(UNSUPPORTED, "unsupported", 415, 65, false, "valid, but not offered here")     \
    X(FORBIDDEN, "forbidden", 403, 73, false, "a path outside the allowed roots")    \
    X(TOO_LARGE, "too_large", 413, 65, false, "over a configured limit")             \
    X(NOT_FOUND, "not_found", 404, 66, false, "no such job, file or tensor")         \
    X(EXISTS, "exists", 409, 73, false, "already there")                             \
    X(BUSY, "busy", 503, 75, true, "no room now; try again later")                   \
    X(TIMEOUT, "timeout", 504, 75, true, "no answer in time")                        \
    X(CANCELLED, "cancelled", 409, 75, false, "cancelled on request")                \
    X(UNAVAILABLE, "unavailable", 503, 69, true, "no broker, decoder or device")     \
    X(CANT_CREATE, "cant_create", 500, 73, true, "a file cannot be created")         \
    X(NO_SPACE, "no_space", 507, 74, true, "the disk is full")                       \
    X(IO, "io", 500, 74, true, "reading or writing failed")                          \
    X(NO_MEMORY, "no_memory", 503, 75, true, "out of memory")                        \
    X(OVERFLOW, "overflow", 500, 70, false, "the decode left the number range")      \
    X(DEVICE, "device", 503, 69, true, "the device failed")                          \
    X(LOST, "lost", 500, 75, true, "the decoder died or made no progress")           \
    X(PROTOCOL, "protocol", 400, 76, false, "the peer broke the wire's rules")       \
    X(CONFIG, "config", 500, 78, false, "a setting is wrong")                        \
    X(INTERNAL, "internal", 500, 70, true, "a bug in Luna")

typedef enum luna_err {
#define X(symbol, name, http, sysexit, retry, meaning) LUNA_##symbol,
    LUNA_ERR_TABLE(X)
#undef X
        LUNA_ERR_COUNT
} luna_err;

#define LUNA_MUST_USE            __attribute__((warn_unused_result))
#define LUNA_PRINTF(text, first) __attribute__((format(printf, text, first)))

//  Wire name ("bad_latent"); "internal" for a value outside the table. Static.
const char *luna_err_name(luna_err err);

//  The code of a wire name; LUNA_INTERNAL for a name this build does not know.
luna_err luna_err_from_name(const char *name);

//  HTTP status, sysexits exit code, and whether the same job may succeed later.
int luna_err_http(luna_err err);
int luna_err_exit(luna_err err);
bool luna_err_retry(luna_err err);

//  Notes the sentence of a failure for the calling thread and returns `err`, so
//  that `return luna_error(LUNA_IO, "...")` is one line. Longer texts are cut at
//  1023 bytes; bytes that are no UTF-8 become '?'. A previous sentence may be an
//  argument ("%s" of luna_error_text()).
luna_err luna_error(luna_err err, const char *format, ...) LUNA_PRINTF(2, 3);

//  As luna_error, with ": " and the text of `errno` appended; ENOSPC and EDQUOT
//  become LUNA_NO_SPACE, ENOMEM LUNA_NO_MEMORY, whatever `err` says.
luna_err luna_error_errno(luna_err err, const char *format, ...) LUNA_PRINTF(2, 3);

//  The calling thread's latest sentence, "" before the first. Valid until the
//  thread's next failure.
const char *luna_error_text(void);

//  Returns the error of `call` to the caller's caller. The only macro that
//  hides control flow.
#define LUNA_TRY(call)                              \
    do {                                            \
        const luna_err luna_try_ = (call);          \
        if (luna_try_ != LUNA_OK) return luna_try_; \
    } while (0)

#endif
