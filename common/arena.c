#include "common/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096 - 64 };

typedef struct luna_arena_block {
    struct luna_arena_block *next;
    size_t room;
    size_t used;
    max_align_t data[];
} luna_arena_block;

static luna_arena_block *add_block(luna_arena *arena, size_t bytes)
{
    const size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    luna_arena_block *block = calloc(1, sizeof *block + room);
    if (!block) return NULL;
    block->room = room;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *luna_arena_alloc(luna_arena *arena, size_t count, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    if (size && count > (SIZE_MAX / 2) / size) return NULL;
    const size_t bytes = (count * size + align - 1) / align * align;
    luna_arena_block *block = arena->blocks;
    if (!block || block->room - block->used < bytes) block = add_block(arena, bytes);
    if (!block) return NULL;
    void *out = (char *)block->data + block->used;
    block->used += bytes;
    return out;
}

char *luna_arena_text(luna_arena *arena, const char *data, size_t len)
{
    char *out = luna_arena_alloc(arena, len + 1, 1);
    if (out && len) memcpy(out, data, len);
    return out;
}

void luna_arena_free(luna_arena *arena)
{
    while (arena->blocks) {
        luna_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}
