//  fuzz.h - what the harnesses share: a check that ends the process, and a reader that
//  turns the fuzzer's bytes into choices
//
//  A harness is one file: LLVMFuzzerTestOneInput gets bytes, does one thing with them and
//  checks what must hold whatever they are. It keeps nothing from one input to the next,
//  unless its head says so.

#ifndef LUNA_TESTS_FUZZ_H
#define LUNA_TESTS_FUZZ_H

#include "common/err.h"
#include "proto/message.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *count, char ***words);

//  For functions that only check: what they compare is no news to the fuzzer.
#define FUZZ_QUIET __attribute__((no_sanitize("coverage")))

//  Ends the process, and with it the run, when `what` is false.
#define CHECK(what)                                        \
    do {                                                   \
        if (!(what)) fuzz_fail(__FILE__, __LINE__, #what); \
    } while (0)

static inline void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\nlatest error: %s\n", file, line, what,
            luna_error_text());
    abort();
}

//  An error comes with a sentence.
static inline void fuzz_check_error(luna_err err)
{
    CHECK(err > LUNA_OK && err < LUNA_ERR_COUNT);
    CHECK(luna_error_text()[0] != '\0');
}

//  ---- choices ---------------------------------------------------------------------

typedef struct fuzz_bytes {
    const uint8_t *at;
    size_t left;
} fuzz_bytes;

//  Little-endian; 0 where the bytes have ended.
static inline uint64_t fuzz_uint(fuzz_bytes *from, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && from->left > 0; i++, from->left--)
        value |= (uint64_t)*from->at++ << (8 * i);
    return value;
}

static inline uint64_t fuzz_below(fuzz_bytes *from, uint64_t below)
{
    return fuzz_uint(from, below <= 256 ? 1 : 4) % below;
}

static inline bool fuzz_bool(fuzz_bytes *from)
{
    return fuzz_uint(from, 1) & 1;
}

//  At most `most` of the next bytes, borrowed; the length comes first.
static inline luna_blob fuzz_blob(fuzz_bytes *from, size_t most)
{
    size_t len = (size_t)fuzz_below(from, most + 1);
    if (len > from->left) len = from->left;
    const luna_blob blob = {.data = from->at, .len = len};
    from->at += len;
    from->left -= len;
    return blob;
}

static inline luna_text fuzz_text(fuzz_bytes *from, size_t most)
{
    const luna_blob blob = fuzz_blob(from, most);
    return (luna_text){.data = blob.data, .len = blob.len};
}

static inline luna_blob fuzz_rest(fuzz_bytes *from)
{
    const luna_blob blob = {.data = from->at, .len = from->left};
    *from = (fuzz_bytes){0};
    return blob;
}

//  A copy in a block of its own, so that a step past its end is seen; free() it.
static inline void *fuzz_copy(const void *data, size_t len)
{
    void *copy = malloc(len ? len : 1);
    CHECK(copy);
    if (len) memcpy(copy, data, len);
    return copy;
}

#endif
