#if defined(__x86_64__)
#define KERNELS      cpu_kernels_avx2
#define KERNELS_NAME "AVX2"
#define LANES        8
#include "decoder/vae/cpu/kernels_body.h"
#else
typedef int luna_no_kernels_here;
#endif
