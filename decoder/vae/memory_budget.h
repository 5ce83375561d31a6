//  memory_budget.h - how much of a card's memory a decoder takes, and how it is shared
//  out
//
//  Arithmetic only; the numbers come from the device.

#ifndef LUNA_DECODER_VAE_MEMORY_BUDGET_H
#define LUNA_DECODER_VAE_MEMORY_BUDGET_H

#include <stddef.h>

//  The limit of one decode when none was set: what is free less a reserve, for the
//  libraries' own code and for others on the card (ComfyUI may sample on it). The reserve
//  is a sixteenth of the card, at least 512 MiB and at most 2 GiB, but never more than a
//  quarter of what is free. At least 1: 0 means no limit.
size_t luna_memory_budget(size_t free_bytes, size_t total_bytes);

//  How many images may be on their way at once: as many of `wanted` as fit in `limit`
//  bytes (0: no limit) when each takes `each` beside `fixed`; at least one, which may
//  then be refused.
size_t luna_sub_batch(size_t limit, size_t fixed, size_t each, size_t wanted);

#endif
