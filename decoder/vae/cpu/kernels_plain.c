//  Plain C with the compiler's own vectors: for any processor.

#define KERNELS      cpu_kernels_plain
#define KERNELS_NAME "plain"
#define LANES        4
#include "decoder/vae/cpu/kernels_body.h"
