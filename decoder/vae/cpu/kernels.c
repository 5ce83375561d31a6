#include "decoder/vae/cpu/kernels.h"

#include <string.h>

//  The best first.
static const cpu_kernels *const known[] = {
#if defined(__x86_64__)
    &cpu_kernels_avx512,
    &cpu_kernels_avx2,
#endif
    &cpu_kernels_plain,
};

static bool can_run(const cpu_kernels *kernels)
{
#if defined(__x86_64__)
    if (kernels == &cpu_kernels_avx512) return __builtin_cpu_supports("avx512f");
    if (kernels == &cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &cpu_kernels_plain;
}

const cpu_kernels *cpu_kernels_find(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (can_run(known[i]) && (!name || strcmp(name, known[i]->name) == 0))
            return known[i];
    return NULL;
}
