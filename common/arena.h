//  arena.h - memory that is freed all at once
//
//  For results whose parts live exactly as long as the whole: a decoded message,
//  a list of rows. Allocations are zeroed and aligned for any type.

#ifndef LUNA_COMMON_ARENA_H
#define LUNA_COMMON_ARENA_H

#include <stddef.h>

typedef struct luna_arena {
    struct luna_arena_block *blocks;  //  newest first; NULL when empty
} luna_arena;

//  `count` zeroed objects of `size` bytes, or NULL when memory runs out or the
//  product does not fit. Freed by luna_arena_free only. A zeroed luna_arena is
//  ready for use. Not thread-safe.
void *luna_arena_alloc(luna_arena *arena, size_t count, size_t size);

//  A NUL-terminated copy of `len` bytes; NULL when memory runs out.
char *luna_arena_text(luna_arena *arena, const char *data, size_t len);

//  Frees everything and leaves an empty arena.
void luna_arena_free(luna_arena *arena);

#endif
