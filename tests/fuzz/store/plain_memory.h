//  plain_memory.h - SQLite's memory past the address sanitizer
//
//  SQLite is not built with it, so nothing is lost, and an open of the store, which
//  allocates thousands of times, is several times faster. What is not given back shows
//  in sqlite3_memory_used().

#ifndef LUNA_TESTS_FUZZ_PLAIN_MEMORY_H
#define LUNA_TESTS_FUZZ_PLAIN_MEMORY_H

#include "fuzz/fuzz.h"

#include <sqlite3.h>

void *__libc_malloc(size_t size);
void *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);

enum { PLAIN_HEAD = 16 };  //  the size is kept before the block

static inline void *plain_keep(char *block, int size)
{
    if (!block) return NULL;
    memcpy(block, &size, sizeof size);
    return block + PLAIN_HEAD;
}

static void *plain_malloc(int size)
{
    return plain_keep(__libc_malloc((size_t)size + PLAIN_HEAD), size);
}

static void plain_free(void *block)
{
    if (block) __libc_free((char *)block - PLAIN_HEAD);
}

static void *plain_realloc(void *block, int size)
{
    return plain_keep(
        __libc_realloc((char *)block - PLAIN_HEAD, (size_t)size + PLAIN_HEAD), size);
}

static int plain_size(void *block)
{
    int size = 0;
    if (block) memcpy(&size, (char *)block - PLAIN_HEAD, sizeof size);
    return size;
}

static int plain_round(int size)
{
    return (size + 7) & ~7;
}

static int plain_start(void *context)
{
    (void)context;
    return SQLITE_OK;
}

static void plain_stop(void *context)
{
    (void)context;
}

//  Before SQLite is used for the first time.
static inline void plain_memory(void)
{
    static const sqlite3_mem_methods methods = {plain_malloc, plain_free,  plain_realloc,
                                                plain_size,   plain_round, plain_start,
                                                plain_stop,   NULL};
    CHECK(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK);
}

#endif
