//  team.h - threads that share the items of a loop
//
//  The caller works along. Between loops the others sleep; they never spin, so a decode
//  takes no processor from an encode pool or a ComfyUI beside it while it has nothing to
//  do.

#ifndef LUNA_DECODER_VAE_CPU_TEAM_H
#define LUNA_DECODER_VAE_CPU_TEAM_H

#include "common/err.h"

#include <stddef.h>

typedef struct cpu_team cpu_team;

//  What is done with item `item` by thread `thread` (0 to size - 1; the caller is 0).
typedef void cpu_work(void *context, size_t item, size_t thread);

//  `threads` in all, the caller included; 0: one for each processor this process may use.
//  LUNA_NO_MEMORY, also when the system gives no more threads.
LUNA_MUST_USE luna_err cpu_team_create(int threads, cpu_team **out);

//  Ends the threads; NULL is fine.
void cpu_team_destroy(cpu_team **team);

size_t cpu_team_size(const cpu_team *team);

//  Calls work(context, i, thread) once for every i below count, in any order, and returns
//  when all are done. Not from inside a work.
void cpu_team_run(cpu_team *team, size_t count, cpu_work *work, void *context);

#endif
