//  takes.h - which latents the VAEs of a registry take, for `auto`
//
//  Read from the header of each file when it is first asked for and remembered for that
//  version of it; no weights are loaded.
//
//  Thread: one at a time.

#ifndef LUNA_WORKER_TAKES_H
#define LUNA_WORKER_TAKES_H

#include "decoder/worker/registry.h"

typedef struct luna_takes luna_takes;

//  NULL without memory; luna_takes_free nulls the pointer, NULL is fine.
luna_takes *luna_takes_new(void);
void luna_takes_free(luna_takes **takes);

//  A luna_vae_probe with a luna_takes as its context. Errors are luna_vae_inspect's.
luna_err luna_takes_probe(void *takes, const luna_vae_entry *entry, luna_vae_fit *out);

#endif
