#if defined(__x86_64__)
#define KERNELS      cpu_kernels_avx512
#define KERNELS_NAME "AVX-512"
#define LANES        16
#include "decoder/vae/cpu/kernels_body.h"
#else
typedef int luna_no_kernels_here;
#endif
