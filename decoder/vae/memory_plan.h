//  memory_plan.h - buffers that live at different times share the same bytes

#ifndef LUNA_DECODER_VAE_MEMORY_PLAN_H
#define LUNA_DECODER_VAE_MEMORY_PLAN_H

#include "common/err.h"

#include <stddef.h>

#define LUNA_MEMORY_ALIGN 64  //  of every offset: a cache line, a 512-bit vector

//  A buffer that holds data from step `first` to step `last`, both included.
typedef struct luna_span {
    size_t bytes;
    size_t first;
    size_t last;
    size_t shrinks;      //  the first step at which only later_bytes of it, from its start,
    size_t later_bytes;  //  are still used; 0: it does not shrink
    size_t offset;  //  out: a multiple of LUNA_MEMORY_ALIGN
} luna_span;

//  Places every span so that spans alive at the same step never overlap, the largest
//  first, each at the lowest offset free. Sets the bytes needed for all. LUNA_NO_MEMORY
//  when their sum does not fit in a size_t, or no memory for the work.
LUNA_MUST_USE luna_err luna_memory_plan(luna_span *spans, size_t count, size_t *bytes);

#endif
